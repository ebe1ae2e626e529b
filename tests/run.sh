#!/usr/bin/env bash
# `make test`: everything, on a machine that may have nothing yet. An engine that was started for it is stopped again;
# packages, images and the Python environment stay, as the next run wants them.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
readonly PID_FILE=/run/docker.pid
began=$SECONDS

engine_answers() { .venv/bin/docker-compose ls --quiet >/dev/null 2>&1; }

stop_our_engine() {
  local pid
  pid=$(cat "$PID_FILE" 2>/dev/null) || return 0
  kill "$pid"
  for _ in {1..300}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  echo "test: the Docker engine (process $pid) is still running" >&2
}

install() {
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}
command -v curl >/dev/null || install curl || exit          # pasted in a test
command -v ssh >/dev/null || install openssh-client || exit # signs commits; does not reach a host
command -v ip >/dev/null || install iproute2 || exit        # a machine beyond this one is a network namespace
command -v chromium >/dev/null || install chromium ||
  echo "test: no Chromium: nobody looks at the report's picture, that test is skipped" >&2
scripts/setup.sh dev || exit
if ! engine_answers; then
  # systemd keeps what it started, as after any installation
  [[ -d /run/systemd/system ]] || trap stop_our_engine EXIT
  scripts/setup.sh docker || exit
fi

# Fast ones first; all of them run.
failed=()
part() {
  local start=$SECONDS
  echo "test: $* ..." >&2
  "$@" || failed+=("$*")
  echo "test: $* took $((SECONDS - start)) s" >&2
}
part tests/unit.sh
part tests/lint.sh
part .venv/bin/python -m pytest --numprocesses auto --dist worksteal tests/plays
part .venv/bin/python -m pytest --verbose -s -rs tests/integration # what is skipped is said at the end
part .venv/bin/python -m pytest --verbose -s tests/provision/test_provision.py
part .venv/bin/python -m pytest --verbose -s tests/deploy/test_deploy.py

echo "test: $((SECONDS - began)) s in all" >&2
((${#failed[@]} == 0)) || { printf 'test: failed: %s\n' "${failed[@]}" >&2 && exit 1; }
