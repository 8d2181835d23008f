"""An environment that is quick to make and to copy: no packages but an editable install of hpctrain."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make_small_venv(directory: Path) -> Path:
    """Make `directory/venv` with hpctrain, installed by pip from a copy of it in `directory/checkout`."""
    checkout, venv = directory / "checkout", directory / "venv"
    shutil.copytree(ROOT / "hpctrain", checkout / "hpctrain", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    borrowed = site / "borrowed.pth"  # pip and setuptools of the environment that runs the tests
    borrowed.write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip = [venv / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "-e", checkout], check=True, timeout=120)
    borrowed.unlink()
    return venv


def add_script(venv: Path, name: str, text: str, long_path: bool = False) -> None:
    """Add a script as pip would, started by the environment's own Python; a long path needs another start."""
    start = f"#!{venv}/bin/python"
    if long_path:
        start = f"#!/bin/sh\n'''exec' {venv}/bin/python \"$0\" \"$@\"\n' '''"
    script = venv / "bin" / name
    script.write_text(f"{start}\n{text}")
    script.chmod(0o755)
