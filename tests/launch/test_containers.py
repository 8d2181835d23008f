"""The container recipes: they parse, agree with each other and with the project, and bring all they need."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "launch" / "containers"
SCRIPTS = [CONTAINERS / "setup.sh", CONTAINERS / "bin" / "hpctrain", ROOT / "launch" / "install.sh"]
PYTHON_OF_BASE = {"ubuntu:22.04": (3, 10), "ubuntu:24.04": (3, 12), "debian:12": (3, 11)}
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Charliecloud's ch-image is a script of the system's Python."""
IMAGE_PROGRAM = """\
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    char here[4096];
    printf("%s|%s", getcwd(here, sizeof here), getenv("PYTHONPATH") ? "PYTHONPATH" : "");
    for (int i = 1; i < count; i++) printf("|%s", words[i]);
    return access(getenv("SEEN"), R_OK) ? 9 : 0;
}
"""


@dataclass
class Recipe:
    """What a recipe says: arguments with defaults, the base, what is copied where, and what is run."""

    base: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    run: str = ""


def read_definition(text: str) -> Recipe:
    """Parse an Apptainer definition: a header of keys, then sections."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        if line.startswith("%"):
            name = line.strip()
            assert name not in sections, f"{name} twice"
            sections[name] = []
        elif line.strip() and not line.startswith("#"):
            sections[name].append(line.strip())
    known = {"", "%arguments", "%files", "%post", "%environment", "%runscript", "%test"}
    assert set(sections) <= known, set(sections) - known
    header = dict(line.split(": ", 1) for line in sections[""])
    assert header["Bootstrap"] == "docker"
    arguments = dict(line.split("=", 1) for line in sections["%arguments"])
    used = set(re.findall(r"\{\{ (\w+) \}\}", text))
    assert used == set(arguments), "each argument has a default and is used"
    files = {source: target + Path(source).name for source, target in map(str.split, sections["%files"])}
    return Recipe(header["From"], arguments, files, "\n".join(sections["%post"]))


def read_dockerfile(text: str) -> Recipe:
    """Parse the instructions that the Dockerfile uses."""
    recipe = Recipe()
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        assert instruction in ("ARG", "FROM", "COPY", "RUN", "ENV"), line
        words = shlex.split(rest)
        if instruction == "ARG":
            name, _, default = rest.partition("=")
            recipe.arguments[name] = default
        elif instruction == "FROM":
            recipe.base = rest
        elif instruction == "COPY":
            *sources, target = words
            for source in sources:
                recipe.files[source] = target + source if target.endswith("/") else target
        elif instruction == "RUN":
            recipe.run += rest
    return recipe


@pytest.fixture
def definition() -> Recipe:
    return read_definition((CONTAINERS / "hpctrain.def").read_text())


@pytest.fixture
def dockerfile() -> Recipe:
    return read_dockerfile((CONTAINERS / "Dockerfile").read_text())


def test_both_recipes_make_the_same_image(definition: Recipe, dockerfile: Recipe) -> None:
    assert definition.files == dockerfile.files
    assert definition.base == "{{ BASE }}"
    assert dockerfile.base == "$BASE"
    for name in ("BASE", "TORCH"):
        assert definition.arguments[name] == dockerfile.arguments[name]
        assert f"{name}=" in (definition.run + dockerfile.run + "BASE=")
    setup = "sh /opt/hpctrain/launch/containers/setup.sh"
    assert definition.run.endswith(setup)
    assert dockerfile.run.endswith(setup)
    assert f"{definition.files['launch']}/containers/setup.sh" == setup.split()[1]


def test_the_default_base_has_a_python_that_serves(dockerfile: Recipe) -> None:
    found = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert found is not None
    least, below = map(int, found.groups())
    assert least <= PYTHON_OF_BASE[dockerfile.arguments["BASE"]][1] < below


def test_what_is_copied_is_enough_to_install(dockerfile: Recipe, tmp_path: Path) -> None:
    """A wheel can be built from the copied files alone, and holds the whole package."""
    for source, target in dockerfile.files.items():
        copy = tmp_path / target.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, copy)
    project = tmp_path / "opt" / "hpctrain"
    assert (project / "launch" / "install.sh").is_file()
    assert (project / "constraints.txt").is_file()
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path / "wheels", project], check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "wheels").glob("hpctrain-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert packed == {str(path.relative_to(ROOT)) for path in (ROOT / "hpctrain").rglob("*.py")}


@pytest.mark.parametrize("package", ["torch", "deepspeed"])
def test_what_is_installed_is_what_the_project_is_tested_with(package: str) -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = re.search(rf"^{package}==(\S+)", constraints, re.MULTILINE)
    installed = re.search(rf"\b{package}==?(\d[\w.]*)", (ROOT / "launch" / "install.sh").read_text())
    assert pinned is not None
    assert installed is not None
    assert pinned[1] == installed[1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    shell = script.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", script], check=True)
    if shutil.which("shellcheck"):
        found = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


def test_charliecloud_reads_the_recipe() -> None:
    if shutil.which("ch-image", path=SYSTEM_PATH) is None:
        pytest.skip("no Charliecloud here")
    environment = {"PATH": SYSTEM_PATH, "HOME": os.environ["HOME"], "USER": "nobody"}
    command = ["ch-image", "build", "--parse-only", "-f", CONTAINERS / "Dockerfile", ROOT]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "ModuleNotFoundError" in found.stderr:
        pytest.skip(f"Charliecloud does not work here: {found.stderr.splitlines()[-1]}")
    assert found.returncode == 0, found.stderr


def hpctrain(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run hpctrain out of a container image."""
    return subprocess.run(
        [CONTAINERS / "bin" / "hpctrain", *words], env={**os.environ, **variables},
        capture_output=True, text=True, cwd=variables["HERE"],
    )  # fmt: skip


def test_what_apptainer_is_asked_for(tmp_path: Path) -> None:
    """A stand-in prints what it is asked for: Apptainer itself is not needed for that."""
    image, stand_in = tmp_path / "image.sif", tmp_path / "bin" / "apptainer"
    image.touch()
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\necho "${PYTHONPATH-unset}"\n')
    stand_in.chmod(0o755)
    done = hpctrain(
        "train", "a config.yaml", HERE=str(tmp_path), HPCTRAIN_IMAGE=str(image), PYTHONPATH="/host",
        PATH=f"{stand_in.parent}:{os.environ['PATH']}", HPCTRAIN_LOCAL="/local", HPCTRAIN_BIND="/a,/b:/c",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = [word for word in done.stdout.splitlines() if word not in ("--nv", "--rocm")]
    binds = [f"--bind={path}" for path in (tmp_path, "/local", "/a", "/b:/c")]
    inside = [str(image), "/opt/venv/bin/hpctrain", "train", "a config.yaml", "unset"]
    assert words == ["exec", "--no-home", *binds, "--pwd", str(tmp_path), *inside]


@pytest.mark.parametrize(
    ("image", "problem"), [("", "there is no such image"), ("image.sif", "there is no apptainer")]
)
def test_what_is_missing_is_named(tmp_path: Path, image: str, problem: str) -> None:
    (tmp_path / "image.sif").touch()
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "hostname"):
        (commands / name).symlink_to(shutil.which(name) or name)
    place = str(tmp_path / image) if image else ""
    done = hpctrain("--help", HERE=str(tmp_path), HPCTRAIN_IMAGE=place, PATH=str(commands))
    assert done.returncode == 2
    assert problem in done.stderr


def test_charliecloud_runs_the_images_hpctrain(tmp_path: Path) -> None:
    """A real ch-run, with an image of one program: it sees the present directory and what is bound."""
    if shutil.which("ch-run") is None or shutil.which("gcc") is None:
        pytest.skip("no ch-run or no gcc here")
    image, here, data = tmp_path / "image", tmp_path / "here", tmp_path / "data"
    inside = ["dev", "proc", "sys", "tmp", "etc", "opt/venv/bin", "mnt/data", *map(str, (here, data))]
    for name in inside:
        (image / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for directory in (here, data):
        directory.mkdir()
    (image / "etc" / "passwd").touch()
    (image / "etc" / "group").touch()
    (tmp_path / "program.c").write_text(IMAGE_PROGRAM)
    program = image / "opt" / "venv" / "bin" / "hpctrain"
    subprocess.run(["gcc", "-static", "-o", program, tmp_path / "program.c"], check=True)
    done = hpctrain(
        "train", "a config.yaml", HERE=str(here), HPCTRAIN_IMAGE=str(image), PYTHONPATH="/host",
        HPCTRAIN_BIND=f"{data}:/mnt/data", SEEN="/mnt/data",
    )  # fmt: skip
    if "namespace" in done.stderr:
        pytest.skip(f"no containers without root here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{here}||train|a config.yaml"
