#!/usr/bin/env bash
# Make .bench-venv from tests/bench/requirements.txt: the peers that the benchmarks measure. Not done twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly VENV=.bench-venv WANTED=tests/bench/requirements.txt
cmp -s "$WANTED" "$VENV/.requirements" && exit
echo "bench: installing the peers into $VENV (800 MB, some minutes) ..." >&2
rm -rf "$VENV"
.venv/bin/python -m venv "$VENV"
"$VENV/bin/python" -m pip --quiet --quiet --disable-pip-version-check install --requirement "$WANTED"
cp "$WANTED" "$VENV/.requirements"
