#!/usr/bin/env bash
# What has to be there before any of the project's Python can run: its environment and a Docker engine.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/setup.sh venv|dev|docker|lock

  venv    make .venv from requirements.lock, exactly
  dev     the same with the tools of requirements-dev.lock
  docker  make sure a Docker engine answers; on Debian and Ubuntu, install and start one where none does
  lock    write both lock files from pyproject.toml; `lock --upgrade` takes newer versions

Nothing is done twice. Before it installs system packages it asks on a terminal, and goes ahead without one.
TEXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly VENV=.venv STAMP=.venv/.setup-stamp

say() { echo "setup: $*" >&2; }

# die WHAT [WHAT TO DO...]: one line each.
die() {
  echo "setup: $1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 2
}

ask() {
  local reply=
  [[ -t 0 && -t 2 ]] || return 0
  read -r -p "setup: $1 [Y/n] " reply || true
  [[ ${reply,,} =~ ^(y|yes|)$ ]]
}

# shellcheck source=/dev/null
os_release() { (. /etc/os-release 2>/dev/null && echo "${!1-}") || true; }
is_debian() { [[ " $(os_release ID) $(os_release ID_LIKE) " == *" debian "* ]]; }

# A Python without ensurepip (python3-venv is a package of its own on Debian) cannot make an environment.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    command -v "$name"
    return
  done
  return 1
}

install_python() {
  local package=python3-venv
  # The only supported release whose default Python is too old; it packages a newer one beside it.
  [[ $(os_release ID)$(os_release VERSION_ID) != ubuntu22.04 ]] || package=python3.11-venv
  is_debian || die "no Python 3.11 or newer with its venv module on this system ($(os_release PRETTY_NAME))." \
    "Install one with the system's package manager (for example: sudo dnf install python3.12), then run this again."
  local commands=("apt-get update" "apt-get install -y --no-install-recommends $package")
  ((EUID == 0)) || die "no Python 3.11 or newer with its venv module, and only root can install it. Run:" \
    "${commands[@]/#/sudo }"
  ask "Install the package $package (Python's venv module)?" || die "nothing was installed. To do it by hand:" "${commands[@]}"
  say "installing $package ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$package" >/dev/null
  find_python >/dev/null || die "$package brought no Python 3.11 or newer: this release ($(os_release PRETTY_NAME)) is too old." \
    "Use Debian 12, Ubuntu 22.04 or newer."
}

sum_of() { sha256sum "$1" | cut -c1-64; }

# stamped runtime|dev: is .venv complete, of this very lock, not moved, and does its Python still run?
stamped() {
  local python runtime dev place
  [[ -f $STAMP ]] && read -r python runtime dev place <"$STAMP" || return 1
  [[ $place == "$PWD" && $("$VENV/bin/python" -V 2>/dev/null) == "Python $python" ]] || return 1
  [[ $runtime == "$(sum_of requirements.lock)" ]] || return 1
  [[ $1 == runtime || $dev == "$(sum_of requirements-dev.lock)" ]]
}

install_venv() {
  local wanted=$1 lock=requirements.lock dev=-
  [[ $wanted == runtime ]] || { lock=requirements-dev.lock; dev=$(sum_of "$lock"); }
  exec 9<requirements.lock
  flock --nonblock 9 || { say "waiting for another set-up of this checkout ..."; flock 9; }
  if stamped "$wanted"; then return; fi

  # The tools are added to a complete environment, as both locks agree. Anything else starts from nothing: an
  # interrupted install cannot be told from a good one, and a new lock may have dropped packages.
  if ! stamped runtime; then
    [[ ! -e $VENV || -f $VENV/pyvenv.cfg ]] || die "$VENV is there but is no Python environment. Move it away."
    find_python >/dev/null || install_python
    rm -rf "$VENV"
    "$(find_python)" -m venv "$VENV"
  fi
  say "installing $lock into $VENV (about half a minute) ..."
  # --no-compile: of Ansible's thousands of modules a run imports a few, which Python compiles by itself. 12 s, not 34.
  "$VENV/bin/python" -m pip --quiet --quiet --disable-pip-version-check install --no-compile --require-hashes \
    --requirement "$lock" || die "pip could not install $lock. To see all it has to say:" \
      "$VENV/bin/python -m pip install --require-hashes --requirement $lock" \
      "Behind a proxy or a mirror? pip reads PIP_PROXY, PIP_INDEX_URL and PIP_CERT."
  echo "$("$VENV/bin/python" -V | cut -d' ' -f2) $(sum_of requirements.lock) $dev $PWD" >"$STAMP"
}

# In a subshell, so that the lock on the checkout ends with it and no daemon started later inherits it.
make_venv() { stamped "$1" || (install_venv "$1"); }

make_docker() {
  make_venv runtime
  local answer
  # Compose is the client that will talk to the engine, so it is the one to ask: it knows DOCKER_HOST and contexts.
  ! answer=$("$VENV/bin/docker-compose" ls --quiet 2>&1) || return 0
  [[ $answer != *"permission denied"* ]] || die "$(id -un) may not use the Docker engine ($answer)." \
    "sudo usermod -aG docker $(id -un)    # then log in again" "Members of that group are root on this machine."
  [[ -z ${DOCKER_HOST-} ]] || die "DOCKER_HOST=$DOCKER_HOST does not answer ($answer)." \
    "Start the engine there, or unset DOCKER_HOST to use the one of this machine."
  is_debian || die "no Docker engine answers ($answer), and this can only install one on Debian and Ubuntu." \
    "Not installed: https://docs.docker.com/engine/install/" "Installed: sudo systemctl enable --now docker"
  ((EUID == 0)) || die "no Docker engine answers ($answer), and only root can install or start one. Run:" \
    "sudo scripts/setup.sh docker" "sudo usermod -aG docker $(id -un)    # then log in again"
  local step="Install Docker (the distribution's docker.io) and start it"
  ! command -v dockerd >/dev/null || step="Start the Docker engine that is installed here"
  ask "$step?" || die "nothing was changed. To do it later: scripts/setup.sh docker"
  say "${step,} ..."
  # LC_ALL: Ansible refuses to start in a locale that is not UTF-8. Shown: what changes, not what is looked at.
  LC_ALL=C.UTF-8 ANSIBLE_DISPLAY_OK_HOSTS=no ANSIBLE_CONFIG=ansible/ansible.cfg "$VENV/bin/ansible-playbook" \
    --inventory ansible/inventory/local/hosts.yml ansible/playbooks/docker.yml
}

write_locks() {
  make_venv dev
  # Universal: one file holds for every supported Python and platform, whichever this machine has.
  local compile=("$VENV/bin/uv" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest
    --generate-hashes --strip-extras --custom-compile-command "scripts/setup.sh lock" "$@")
  "${compile[@]}" --output-file requirements.lock pyproject.toml
  "${compile[@]}" --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
}

case ${1-} in
  venv) make_venv runtime ;;
  dev) make_venv dev ;;
  docker) make_docker ;;
  lock) write_locks "${@:2}" ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
