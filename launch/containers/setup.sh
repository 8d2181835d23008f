#!/bin/sh
# Run inside an image while it is built, on Debian or Ubuntu: Python, a compiler, and hpctrain in /opt/venv.
# TORCH: see launch/install.sh. MOUNTS: directories of the site that images without a writable root need as mount points.
set -eu
umask 022 # the image is read by others than its builder
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1
apt_get() { apt-get -q -o APT::Sandbox::User=root "$@"; } # a build without root has no other users
apt_get update
# Triton compiles its launchers with gcc and Python's headers; ranks bind memory with libnuma.
apt_get install -y --no-install-recommends ca-certificates gcc libc6-dev libnuma1 python3 python3-dev python3-venv
rm -rf /var/lib/apt/lists/*
sh /opt/hpctrain/launch/install.sh /opt/venv
for directory in ${MOUNTS:-}; do mkdir -p "$directory"; done
/opt/venv/bin/hpctrain --help >/dev/null
