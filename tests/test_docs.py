"""The documentation: its reference is up to date, its links resolve, its commands exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml

from hpctrain.cli.main import app
from hpctrain.config import load_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tokenizer/*.md")])

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INLINE_COMMAND = re.compile(r"`(hpctrain [^`]+)`")
_WHAT_STARTS_IT = re.compile(r"^.*?(?=\bhpctrain\s+(?:--|[a-z]+\b))")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(generate: ModuleType) -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate.generated(ROOT).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run python docs/generate.py: {stale}"


def test_every_config_meets_its_schema(generate: ModuleType) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for folder, name in generate.SCHEMA_OF_FOLDER.items():
        schema = generate.editor_schema(generate.SCHEMAS[name])
        for path in (ROOT / folder).glob("*.yaml"):
            jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)
            load_config(path, [], generate.SCHEMAS[name])


def test_a_schema_wants_a_preset_or_all_sizes(generate: ModuleType) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = generate.editor_schema(generate.SCHEMAS["run"])
    run = yaml.safe_load((ROOT / "configs/pretrain/quickstart.yaml").read_text(encoding="utf-8"))
    for model in ({"layers": 2}, {"preset": "1m", "layer": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**run, "model": model}, schema)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def example_commands(page: Path) -> Iterator[str]:
    """The `hpctrain ...` command lines of a page's code blocks, continued lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    in_fence = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_fence = not in_fence
        elif (in_fence or line.startswith("    ")) and (start := _WHAT_STARTS_IT.match(line)):
            yield line[start.end() :]


def find_command(words: list[str]) -> tuple[typer.core.TyperCommand, list[str]]:
    """The command that words begin with, and the words after its name."""
    command = typer.main.get_command(app)
    while children := getattr(command, "commands", None):
        assert words, "a command group is no command"
        assert words[0] in children, f"no command {words[0]}; there are {', '.join(children)}"
        command, words = children[words[0]], words[1:]
    return command, words


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it."""
    line = re.sub(r"\bSTEP_[AB]\b|(?<=--step )N\b|(?<=--sequence-length )N\b", "2", line)
    line = line.replace("[section.key=value ...]", "")
    command, words = find_command(shlex.split(line, comments=True)[1:])
    with command.make_context(command.name, list(words)):
        pass


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_command_parses(page: Path) -> None:
    for line in example_commands(page):
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_named_in_prose_exists(page: Path) -> None:
    for line in _INLINE_COMMAND.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        command, words = find_command([word for word in shlex.split(line)[1:] if word != "..."])
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert not {word for word in words if word.startswith("--")} - known, f"{page.name}: {line}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hpctrain trian CONFIG", "no command trian"),
        ("hpctrain train CONFIG --rank 2", "No such option"),
        ("hpctrain export RUN", "Missing parameter: out"),
    ],
)
def test_a_wrong_command_is_seen(line: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        parse(line)


def test_guide_pages_are_short() -> None:
    for page in ROOT.glob("docs/*.md"):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 150, page.name
