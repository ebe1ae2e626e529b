#!/usr/bin/env bash
# Unit and case tests, on all cores. They write thousands of small files: in memory, where it has room and runs programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly MEMORY=/dev/shm NEEDED_MIB=2048
free_mib=$(df --output=avail --block-size=1M "$MEMORY" 2>/dev/null | tail -n 1) || free_mib=0
if ((free_mib > NEEDED_MIB)) && [[ $(findmnt --noheadings --output OPTIONS --target "$MEMORY") != *noexec* ]]; then
  TMPDIR=$(mktemp --directory "$MEMORY/unit-tests-XXXXXX")
  export TMPDIR
  trap 'rm -rf "$TMPDIR"' EXIT
fi
.venv/bin/python -m pytest --numprocesses auto --dist worksteal "$@"
