"""What can be known without running: the tools agree, the promises of style hold, the configs load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpctrain.config import Section, load_config
from hpctrain.corpus.build import CorpusConfig
from hpctrain.evaluate.config import EvaluationConfig
from hpctrain.tokenizer.train import TokenizerConfig
from hpctrain.train.config import RunConfig

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "hpctrain").rglob("*.py"))
SCHEMAS: dict[str, type[Section]] = {
    "corpus": CorpusConfig,
    "tokenizer": TokenizerConfig,
    "pretrain": RunConfig,
    "finetune": RunConfig,
    "evaluate": EvaluationConfig,
}
"""What the YAML files in each directory of configs/ are."""
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*") if path.suffix in (".yaml", ".yml"))

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_HELP_CPU_SECONDS = 0.5


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=" ".join,
)
def test_the_tools_agree(command: list[str]) -> None:
    tool = Path(sysconfig.get_path("scripts")) / command[0]
    found = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def undocumented(node: ast.AST, name: str) -> Iterator[str]:
    """The public definitions in a module or class that lack a docstring."""
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        is_stub = len(inner.body) == 1 and ast.unparse(inner.body[0]) == "..."  # of a protocol
        if inner.name.startswith("_") or is_stub:
            continue
        if not ast.get_docstring(inner):
            yield f"{name}:{inner.lineno}: {inner.name}"
        if isinstance(inner, ast.ClassDef):
            yield from undocumented(inner, name)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert path.name == "__main__.py" or ast.get_docstring(tree), f"{path}: the module itself"
    assert list(undocumented(tree, relative(path))) == []


def test_no_file_and_no_function_is_too_long_to_read() -> None:
    long_files = [relative(path) for path in MODULES if len(path.read_text().splitlines()) > MOST_FILE_LINES]
    long_functions = [
        f"{relative(path)}:{node.lineno}: {node.name}"
        for path in MODULES
        for node in definitions(path)
        if not isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= MOST_FUNCTION_LINES
    ]
    assert long_files == []
    assert long_functions == []


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command that succeeds."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_help_is_quick() -> None:
    command = [str(Path(sysconfig.get_path("scripts")) / "hpctrain"), "--help"]
    assert min(cpu_seconds(command) for _ in range(3)) < MOST_HELP_CPU_SECONDS


HELP = """
import sys
from hpctrain.cli.main import main
sys.argv = ["hpctrain", *sys.argv[1:], "--help"]
try:
    main()
except SystemExit as leave:
    assert not leave.code, leave.code
heavy = {"torch", "numpy", "deepspeed", "transformers", "h5py", "wandb"} & set(sys.modules)
sys.exit(f"help imports {sorted(heavy)}" if heavy else 0)
"""


@pytest.mark.parametrize("command", [[], ["train"], ["corpus", "build"]], ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    found = subprocess.run([sys.executable, "-c", HELP, *command], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    assert "Usage:" in found.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=relative)
def test_every_config_loads(path: Path) -> None:
    kind = path.relative_to(ROOT / "configs").parts[0]
    assert kind in SCHEMAS, f"{path}: name the schema of configs/{kind} in this test"
    load_config(path, [], SCHEMAS[kind])


def test_there_are_configs() -> None:
    assert {path.parent.name for path in CONFIGS} >= {"corpus", "tokenizer", "pretrain"}
