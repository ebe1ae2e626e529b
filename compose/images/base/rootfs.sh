#!/bin/bash
# Writes a minimal Debian root file system as a tar, to be imported as the base of the images beside this
# folder. Where packages come from is the caller's business: nothing here names a mirror.
#
#   rootfs.sh SUITE MIRROR SECURITY_MIRROR KEYRING WORK_DIR > SUITE.tar
#
# SECURITY_MIRROR may be empty. Needs root (debootstrap uses chroot). WORK_DIR must allow device nodes.
set -euo pipefail
suite=$1 mirror=$2 security=$3 keyring=$4 work=$5
root=$work/$suite

include=()
case $mirror$security in *https://*) include=(--include=ca-certificates) ;; esac
debootstrap --variant=minbase "${include[@]}" --keyring="$keyring" "$suite" "$root" "$mirror" >&2

{
    echo "deb $mirror $suite main"
    echo "deb $mirror $suite-updates main"
    if [ -n "$security" ]; then echo "deb $security $suite-security main"; fi
} >"$root/etc/apt/sources.list"

# An image is built or thrown away as a whole: syncing every unpacked file to disk only costs time.
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/image"
printf 'path-exclude /usr/share/%s/*\n' doc info locale man >>"$root/etc/dpkg/dpkg.cfg.d/image"
echo 'path-include /usr/share/doc/*/copyright' >>"$root/etc/dpkg/dpkg.cfg.d/image"
cat >"$root/etc/apt/apt.conf.d/image" <<'CONF'
APT::Install-Recommends "false";
Acquire::Languages "none";
Binary::apt::APT::Keep-Downloaded-Packages "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
CONF
# Package scripts must not try to start services while an image is built.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -rf "$root"/usr/share/{info,locale,man}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* \
    "$root"/var/cache/debconf/*-old "$root"/var/log/* "$root"/debootstrap \
    "$root"/etc/{hostname,resolv.conf,machine-id}
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"

tar --create --numeric-owner --xattrs --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -C "$root" .
rm -rf "$root"
