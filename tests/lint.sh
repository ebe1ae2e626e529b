#!/usr/bin/env bash
# Every linter over the sources, then every rendered file checked by the program that reads it. All of them run, so
# that one round of mending is enough; the exit code is 1 when any found something.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH="$PWD/.venv/bin:$PATH" LC_ALL=C.UTF-8 ANSIBLE_CONFIG=ansible/ansible.cfg
export ANSIBLE_HOME="$PWD/.ansible" # ansible-lint would write to the user's home
failed=()

check() {
  echo "lint: $*" >&2
  "$@" || failed+=("$1 $2")
}

mapfile -t shell < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
check ruff check .
check ruff format --check .
check mypy scripts tests grafana
check yamllint --strict .
check shellcheck "${shell[@]}"
check ansible-lint --offline ansible
check python -m pytest --numprocesses auto --dist worksteal tests/rendered

((${#failed[@]} == 0)) || { printf 'lint: failed: %s\n' "${failed[@]}" >&2 && exit 1; }
echo "lint: clean" >&2
