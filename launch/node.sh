#!/bin/bash
# One node's part of launch/broadcast.sh, which starts it once on every node:
#   node.sh make DIR BYTES [JOB ...]  make this job's own directory with room for BYTES; see remove for JOB
#   node.sh copy FILE COPY            copy a file from the shared file system
#   node.sh check FILE SHA256         refuse a damaged file
#   node.sh unpack ARCHIVE            unpack an environment beside its archive and start its Python once
#   node.sh remove DIR [JOB ...]      remove the directory; with the user's live jobs, what ended ones left too
set -euo pipefail
umask 077

fail() { echo "$(hostname): $*" >&2; exit 1; }
is_own() { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; }

make() {
    local dir=$1 bytes=$2 parent free
    shift 2
    parent=$(dirname "$dir")
    if [ ! -d "$parent" ] || [ ! -w "$parent" ]; then
        fail "$parent is not a directory that can be written to: name one of the node's own in BROADCAST"
    fi
    remove "$dir" "$@" # a start of this job that was cut off
    free=$(df -Pk "$parent" | awk 'NR == 2 { print $4 }') # KiB
    [ "$free" -gt $((bytes >> 10)) ] ||
        fail "$parent has $((free >> 10)) MiB free, $((bytes >> 20)) are needed: name another directory in BROADCAST"
    mkdir -m 700 "$dir" || fail "$dir is in the way"
}

remove() {
    local dir=$1 other
    shift
    if is_own "$dir"; then rm -rf "$dir"; fi
    [ $# -gt 0 ] || return 0
    for other in "${dir%-*}"-*; do # hpctrain-UID-JOB
        [[ ${other##*-} =~ ^[0-9]+$ ]] || continue
        # The youngest are spared: their jobs may have started after the list of live jobs was made.
        if [[ " $* " != *" ${other##*-} "* ]] && is_own "$other" && [ -n "$(find "$other" -prune -mmin +10 2>/dev/null)" ]; then
            rm -rf "$other"
        fi
    done
}

copy() { cp "$1" "$2" || fail "cannot copy $1 to $2"; }

check() { echo "$2  $1" | sha256sum --check --status || fail "$1 is damaged: its checksum is wrong"; }

unpack() {
    local archive=$1 dir read=cat
    dir=$(dirname "$archive")
    if [[ $archive = *.zst ]]; then
        command -v zstd >/dev/null || fail "there is no zstd to unpack $archive: set BROADCAST_COMPRESSION=none"
        read="zstd -dcq"
    fi
    $read "$archive" | tar -x -C "$dir" --no-same-owner || fail "cannot unpack $archive in $dir"
    rm "$archive"
    if [ -d "$dir/python" ]; then echo "home = $dir/python/bin" >>"$dir/env/pyvenv.cfg"; fi
    LD_LIBRARY_PATH="$dir/python/libpython${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
        "$dir/env/bin/python" -I -c '
import importlib.util, os, sys
here = os.path.realpath(sys.argv[1])
found = [sys.prefix, importlib.util.find_spec("hpctrain").origin]
found += [sys.base_prefix] if os.path.isdir(f"{here}/python") else []
outside = [path for path in found if not os.path.realpath(path).startswith(f"{here}/")]
sys.exit(f"{outside} is not in {here}" if outside else 0)
' "$dir" || fail "the environment unpacked in $dir does not start (is it mounted noexec?)"
}

case ${1:-} in
make | copy | check | unpack | remove) "$@" ;;
*) fail "usage: node.sh make|copy|check|unpack|remove ..." ;;
esac
