#!/bin/bash
# Unpacks the wheels of requirements.lock into the build context given as $1, with the pip given as $PIP.
# On the host and not in the image: only the host's pip knows its indexes and certificate authorities.
set -euo pipefail
cd "$1"
platforms=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)
for minor in {5..36}; do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done # Debian 12 has glibc 2.36
# shellcheck disable=SC2086  # $PIP is a command with arguments
$PIP install --quiet --target site-packages --no-deps --no-compile --only-binary=:all: \
    --implementation cp --python-version 3.11 "${platforms[@]}" --requirement requirements.lock
# Command line scripts carry the host's interpreter; torch's tests and tools are never run by a server.
cd site-packages
rm -rf bin share opt torch/test
find torch/bin -type f ! -name torch_shm_manager -delete
