#!/usr/bin/env bash
# A maintainers' tool: runs a command on a Debian or Ubuntu machine that has nothing on it yet, with this checkout.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tests/integration/fresh_machine.sh [--release NAME] [--systemd] [--keep] [--rebuild] [--] [COMMAND]

Makes a bare Debian 12 container in which a Docker engine of its own can run, copies the checkout into it
(its files but those that git ignores, and git's own folder), runs COMMAND there with bash and removes the container.
The exit code is the command's.

  COMMAND     default: what the README tells a newcomer, apt-get install -y make git && make up
  --release   another one: trixie, jammy, noble ...
  --systemd   with systemd as PID 1, as on a server; without it no init system runs, as in a container
  --keep      leave the container running, and say how to enter and remove it
  --rebuild   make the base image anew

Needs root, debootstrap, a Docker engine, and a package mirror: this machine's own apt source of the release, or
MIRROR=URL. The machine's pip settings, proxies and certificate authorities are handed on. The base images stay:
docker image ls vllm-onprem-fresh
TEXT
}

die() {
  echo "fresh_machine: $1" >&2
  exit 2
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly PLACE=/root/vllm-onprem
release=bookworm mode=plain keep=false rebuild=false command='apt-get install -y make git && make up'
while (($#)); do
  case $1 in
    --release) release=${2:?--release needs a name} && shift ;;
    --systemd) mode=systemd ;;
    --keep) keep=true ;;
    --rebuild) rebuild=true ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
  esac
  shift
done
(($# == 0)) || command="$*"
readonly name=vllm-onprem-fresh-$$ image=vllm-onprem-fresh:$release-$mode

mirror() {
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' |
    sed -n "s/^$release main //p" | head -n 1
}

make_image() {
  local source options=(--variant=minbase) script=/usr/share/debootstrap/scripts/$release
  source=${MIRROR:-$(mirror)}
  [[ -n $source ]] || die "this machine's apt sources have no $release main: set MIRROR to a mirror that does."
  [[ $mode == plain ]] || options+=('--include=systemd-sysv,dbus')
  # docker.io, and the Python that 22.04 needs, are in Ubuntu's universe. One script serves all of its releases.
  case $release in
    jammy | noble) options+=('--components=main,universe') script=${script%/*}/gutsy ;;
  esac
  echo "fresh_machine: making $image from $source (about half a minute) ..." >&2
  debootstrap "${options[@]}" "$release" "$scratch/root" "$source" "$script" >"$scratch/log" 2>&1 ||
    { tail -n 20 "$scratch/log" >&2 && die "debootstrap failed."; }
  tar -C "$scratch/root" -c --exclude='./var/cache/apt/archives/*.deb' . | docker import - "$image" >/dev/null
}

# What the machine's environment and pip's own files say about registries, and the certificate authorities to trust:
# without them a container on a network with a proxy or a private mirror finds no package.
settings() {
  compgen -e | grep -E '^(PIP_.*|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|(HTTPS?|NO|https?|no)_(PROXY|proxy))$' || true
}

# Folders and files that pip's configuration names: packages that no index has, constraints.
pip_paths() {
  { pip config list 2>/dev/null || true; } | grep -oE "/[^/' ][^' ]*" | sort --unique
}

pip_folders() {
  local path
  for path in $(pip_paths); do
    [[ ! -d $path ]] || echo "${path%/simple}" # an index links to files beside its own folder
  done
}

settings_files() {
  local variable path
  for path in $(pip_paths); do
    [[ ! -f $path ]] || echo "$path"
  done
  for variable in $(settings); do
    [[ ! -f ${!variable} ]] || echo "${!variable}"
  done
  find /etc/pip.conf ~/.config/pip/pip.conf /usr/local/share/ca-certificates -type f 2>/dev/null || true
}

# Docker in Docker without --privileged, which some hosts cannot give: the folder of the inner engine is a volume, as
# overlay does not work on overlay.
start() {
  local environment=() folders=()
  mapfile -t environment < <(settings | sed 's/^/--env=/')
  mapfile -t folders < <(pip_folders | sed 's/.*/--volume=&:&:ro/')
  local init=(--init "$image" sleep infinity)
  [[ $mode == plain ]] || init=("$image" /sbin/init)
  docker run --detach --name "$name" --hostname fresh "${environment[@]}" "${folders[@]}" \
    --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add MKNOD --cap-add SYS_PTRACE \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --cgroupns=host --volume /sys/fs/cgroup:/sys/fs/cgroup:rw \
    --tmpfs /run --tmpfs /run/lock --volume /var/lib/docker "${init[@]}" >/dev/null
  [[ $mode == plain ]] || wait_for_systemd
  settings_files | sort --unique | tar --create --absolute-names --dereference --files-from - |
    docker exec --interactive "$name" tar --extract --absolute-names --no-same-owner
  docker exec "$name" mkdir "$PLACE"
  { git ls-files -z --cached --others --exclude-standard --deduplicate && printf '.git\0'; } |
    tar --create --null --files-from - --ignore-failed-read | docker exec --interactive "$name" tar --extract --directory "$PLACE"
}

wait_for_systemd() {
  local state
  for _ in {1..60}; do
    state=$(docker exec "$name" systemctl is-system-running 2>&1) || true
    [[ $state != running ]] || return 0
    sleep 0.5
  done
  die "systemd is not up after 30 s, but '$state': look with --keep and docker exec $name systemctl --failed"
}

clean_up() {
  rm -rf "$scratch"
  if $keep; then
    echo "fresh_machine: docker exec -it -w $PLACE $name bash    # later: docker rm --force --volumes $name" >&2
  else
    docker rm --force --volumes "$name" >/dev/null 2>&1 || true
  fi
}

scratch=$(mktemp --directory)
readonly scratch
trap clean_up EXIT
if $rebuild || ! docker image inspect "$image" >/dev/null 2>&1; then make_image; fi
start
terminal=()
[[ ! -t 0 || ! -t 1 ]] || terminal=(--interactive --tty)
docker exec "${terminal[@]}" --workdir "$PLACE" "$name" bash -c "$command"
