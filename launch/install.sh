#!/bin/sh
# Make a virtual environment with hpctrain in it: launch/install.sh VENV
# No root and no compiler needed. TORCH=site uses the torch that python3 already has (a site's own build); cuda, cpu
# or the name of another of torch's builds (rocm7.2, xpu) installs that. If not set: cuda with an NVIDIA GPU, else cpu.
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

# Torch's own index, which uv knows, has the builds that the package index has not.
torch_build() {
    pip install -q uv
    "$venv/bin/python" -m uv pip install -q --compile-bytecode --torch-backend="$1" --python "$venv/bin/python" \
        "torch==$torch"
}

install_torch() {
    if [ "${TORCH:-}" = site ]; then
        "$venv/bin/python" -c 'import torch; print("using the torch that is there:", torch.__version__)'
    elif [ "${TORCH:-}" = cuda ] || { [ -z "${TORCH:-}" ] && command -v nvidia-smi >/dev/null 2>&1; }; then
        pip install -q "torch==$torch"
    elif [ -n "${TORCH:-}" ] && [ "$TORCH" != cpu ]; then
        torch_build "$TORCH" || { echo "torch $torch cannot be had as TORCH=$TORCH" >&2; exit 2; }
    elif pip install -q "torch==$torch+cpu" 2>/dev/null; then
        echo "no GPU found or wanted: installed the CPU build of torch $torch"
    else
        torch_build cpu || { echo "no CPU build of torch can be reached: falling back to the default build (several GB)"
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
