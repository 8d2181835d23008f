#!/bin/sh
# Make a virtual environment with hpctrain in it: launch/install.sh VENV
# No root and no compiler needed. TORCH=site uses the torch that python3 already has (a site's own build).
set -eu
venv=$1
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)
torch=2.13.0

"$python" - <<'CHECK' || exit 2
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit(f"hpctrain needs Python 3.10 to 3.12; {sys.executable} is {sys.version.split()[0]} (set PYTHON=...)")
try:
    import ensurepip, venv
except ImportError:
    sys.exit("this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv")
CHECK

if [ "${TORCH:-}" = site ]; then
    "$python" -m venv --system-site-packages "$venv"
else
    "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

install_torch() {
    if [ "${TORCH:-}" = site ]; then
        "$venv/bin/python" -c 'import torch; print("using the torch that is there:", torch.__version__)'
    elif command -v nvidia-smi >/dev/null 2>&1; then
        pip install -q "torch==$torch"
    elif pip install -q "torch==$torch+cpu" 2>/dev/null; then
        echo "no GPU found: installed the CPU build of torch $torch"
    else
        # The package index has no CPU build under this name; uv knows where torch's own builds are.
        pip install -q uv
        "$venv/bin/python" -m uv pip install -q --torch-backend=cpu --python "$venv/bin/python" "torch==$torch" ||
            { echo "no CPU build of torch can be reached: falling back to the default build (several GB)"
              pip install -q "torch==$torch"; }
    fi
}

echo "installing into $venv (about three minutes)"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
if [ "${TORCH:-}" = site ]; then
    grep -v '^torch==' "$here/constraints.txt" >"$constraints" # the site's version stays
else
    cat "$here/constraints.txt" >"$constraints"
fi
pip install -q -c "$constraints" setuptools wheel
install_torch
# deepspeed's build asks for torch, so it must see the one above; its kernels are compiled on first use only.
DS_BUILD_OPS=0 pip install -q -c "$constraints" --no-build-isolation deepspeed==0.19.8
pip install -q -c "$constraints" --no-build-isolation -e "${here}[test]"
touch "$venv/.installed"
