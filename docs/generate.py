"""Write the reference pages and JSON Schemas from the code: `python docs/generate.py`.

With --check nothing is written; exit code 1 and one line for each file that is out of date.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from hpctrain.cli.main import app
from hpctrain.config import Section
from hpctrain.corpus.build import CorpusConfig
from hpctrain.evaluate.config import EvaluationConfig
from hpctrain.launch.site import Site, load_site
from hpctrain.model.config import ModelConfig
from hpctrain.tokenizer.train import TokenizerConfig
from hpctrain.train.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS: dict[str, type[Section]] = {
    "run": RunConfig,
    "corpus": CorpusConfig,
    "tokenizer": TokenizerConfig,
    "site": Site,
    "evaluate": EvaluationConfig,
}
SCHEMA_OF_FOLDER = {
    "configs/pretrain": "run",
    "configs/corpus": "corpus",
    "configs/tokenizer": "tokenizer",
    "launch/sites": "site",
    "configs/evaluate": "evaluate",
}
"""Which schema the YAML files of a folder follow."""

_HINT = "# yaml-language-server: $schema="
_NOTE = "<!-- Written by docs/generate.py from the code: do not edit. -->\n"
Schema = Mapping[str, Any]


def generated(root: Path) -> dict[Path, str]:
    """Every generated file under `root` with the text it should hold."""
    schemas = {name: editor_schema(record) for name, record in SCHEMAS.items()}
    files = {root / "docs/reference/config.md": config_page(schemas)}
    files[root / "docs/reference/cli.md"] = cli_page()
    files[root / "docs/sites.md"] = sites_page([load_site(str(path)) for path in _sites(root)])
    for name, schema in schemas.items():
        files[root / f"configs/schemas/{name}.json"] = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
    for folder, name in SCHEMA_OF_FOLDER.items():
        to_schemas = os.path.relpath("configs/schemas", folder)
        for path in sorted((root / folder).glob("*.yaml")):
            files[path] = with_editor_hint(path.read_text(encoding="utf-8"), f"{to_schemas}/{name}.json")
    return files


def with_editor_hint(text: str, schema: str) -> str:
    """A YAML config with the line that tells editors the path of its schema as the first."""
    rest = text.partition("\n")[2] if text.startswith(_HINT) else text
    return f"{_HINT}{schema}\n{rest}"


def editor_schema(record: type[Section]) -> dict[str, Any]:
    """The JSON Schema of a config; the sizes of a model are required only where no preset gives them."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **record.model_json_schema()}
    if model := schema.get("$defs", {}).get(ModelConfig.__name__):
        sizes = model.pop("required")
        model["anyOf"] = [{"required": ["preset"]}, {"required": sizes}]
    return schema


_INTRODUCTION = """\
# Config reference

A config is a YAML file. `section.key=value` on the command line overrides one key. Unknown keys, keys given
twice and values out of range are errors; all are reported at once, with exit code 2. There are four kinds:
`hpctrain train` reads a run config, `hpctrain corpus build` a corpus config, `hpctrain tokenizer train` a
tokenizer config, and `hpctrain submit` a site profile.
"""


def config_page(schemas: Mapping[str, Schema]) -> str:
    """The reference of all configs as Markdown."""
    parts = [_NOTE + _INTRODUCTION]
    for name, schema in schemas.items():
        records = {f"#/$defs/{key}": record for key, record in schema.get("$defs", {}).items()}
        parts.append(f"## {name.capitalize()} config\n\n{_text(schema)}\n")
        parts += _sections(schema, schema["properties"], records, "")
    return "\n".join(parts)


def _sections(record: Schema, fields: Schema, records: Schema, path: str) -> Iterator[str]:
    """A table of `fields` of the record at `path`, then one for each record below it."""
    rows, below = [], []
    for key, field in fields.items():
        if "$ref" in field:
            below.append((f"{path}{key}", records[field["$ref"]]))
            continue
        for many, mark in (("items", "[]"), ("additionalProperties", ".NAME")):
            if "$ref" in field.get(many, {}):
                below.append((f"{path}{key}{mark}", records[field[many]["$ref"]]))
        default = _default(field, key in record.get("required", ()), record)
        rows.append(f"| `{path}{key}` | {_type(field)} | {default} | {_text(field)} |")
        if "oneOf" in field.get("items", {}):
            kinds = [records[option["$ref"]] for option in field["items"]["oneOf"]]
            yield from _table(rows)
            rows = []
            yield from _kinds(kinds, records, f"{path}{key}")
    yield from _table(rows)
    for name, inner in below:
        yield f"### {name}\n\n{_text(inner)}\n"
        yield from _sections(inner, inner["properties"], records, f"{name}.")


def _kinds(kinds: list[Schema], records: Schema, path: str) -> Iterator[str]:
    """The records of which a list holds one kind or another: what all have, then what each adds."""
    shared = {key for key in kinds[0]["properties"] if all(key in kind["properties"] for kind in kinds)}
    common = {key: field for key, field in kinds[0]["properties"].items() if key in shared - {"kind"}}
    yield f"### {path}[], of every kind\n"
    yield from _sections(kinds[0], common, records, "")
    for kind in kinds:
        own = {key: field for key, field in kind["properties"].items() if key not in shared}
        yield f"### {path}[] with kind: {kind['properties']['kind']['const']}\n\n{_text(kind)}\n"
        yield from _sections(kind, own, records, "")


def _table(rows: list[str]) -> Iterator[str]:
    if rows:
        yield "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _type(field: Schema) -> str:
    """The type of a value in words, with its bounds."""
    if "$ref" in field:
        return "record"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return " or ".join(f"`{choice}`" for choice in field.get("enum") or [field["const"]])
    if field.get("type") == "array":
        return "list of records" if "oneOf" in field["items"] else f"list of {_type(field['items'])}s"
    if field.get("type") == "object":
        return f"mapping of names to {_type(field['additionalProperties'])}s"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]}" for key, sign in signs.items() if key in field]
    word = "nothing" if field["type"] == "null" else str(field.get("format", field["type"]))
    return f"{word} {', '.join(bounds)}".strip()


def _default(field: Schema, is_required: bool, record: Schema) -> str:
    if is_required or "default" not in field:
        return "from the preset" if "preset" in record["properties"] else "required"
    return "none" if field["default"] is None else f"`{json.dumps(field['default'])}`"


def _text(described: Schema) -> str:
    return " ".join(str(described.get("description", "")).split()).replace("|", "\\|")


_SITES_INTRODUCTION = """\
# Sites

A site profile tells `hpctrain submit` what it must know of a cluster: scheduler, queues and their limits,
what a node has, modules, the network's variables. Profiles are in `launch/sites/`; `--site ./mysite.yaml`
takes one of your own, and a copy of the nearest is a good start ([keys](reference/config.md#site-config)).
What is not known is left out and not checked. A profile that was **not tried** was written from the
documentation it cites and never run: look at the script with `--print`, try it on one node for some
minutes, and please report what had to change.

A job puts itself into the queue again only where `requeue: true` says that the site allows it; elsewhere
use `--chain N`. Options of srun are given as its variables under `environment`, such as `SLURM_CPU_BIND`.
"""


def _sites(root: Path) -> list[Path]:
    return sorted((root / "launch/sites").glob("*.yaml"))


def sites_page(sites: list[Site]) -> str:
    """What the site profiles say, as Markdown."""
    rows = [
        f"| [{site.name}](#{site.name}) | {site.title} | {site.scheduler} | {_node(site)} | "
        f"{site.tried or '**not tried**'} |"
        for site in sites
    ]
    head = "| name | what | scheduler | a node | tried |\n|---|---|---|---|---|\n"
    return "\n".join([f"{_NOTE}{_SITES_INTRODUCTION}", f"{head}{chr(10).join(rows)}\n", *map(_site, sites)])


def _node(site: Site) -> str:
    gpus = f"{site.node.gpus} x {site.node.gpu}" if site.node.gpus else ""
    cores = f"{site.node.cores} cores" if site.node.cores else ""
    return ", ".join(filter(None, [gpus, cores]))


def _upto(nodes: int | None) -> str:
    return "any nodes" if nodes is None else f"to {nodes} nodes"


def _site(site: Site) -> str:
    """A table of a site's queues, and where the profile is from."""
    rows = []
    for name, queue in site.queues.items():
        notes = [
            *(["default"] if name == site.default_queue else []),
            *(["preemptable"] if queue.preemptable else []),
            *([f"at least {queue.min_nodes} nodes"] if queue.min_nodes > 1 else []),
        ]  # fmt: skip
        limits = [f"{_upto(limit.nodes)}: {limit.time or 'not known'}" for limit in queue.limits]
        rows.append(f"| {name} | {', '.join(limits) or 'not known'} | {', '.join(notes)} |")
    table = "| queue | longest time | |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
    sources = [f"<{source.url}> (read {source.read})" for source in site.sources]
    parts = [f"## {site.name}\n\n", table if rows else "No queues are known; any is taken.\n\n"]
    if sources:
        parts.append("From " + ",\n".join(sources) + ".\n")
    return "".join(parts).rstrip() + "\n"


def cli_page() -> str:
    """The reference of all commands as Markdown."""
    root = typer.main.get_command(app)
    codes = "Exit codes: [training.md](../training.md#signals-and-exit-codes).\n"
    parts = [part for name, command in commands(root, "hpctrain") for part in _command(name, command)]
    return "\n".join([f"{_NOTE}# Command reference\n\n{root.help} {codes}", *parts])


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command below a group with its full name."""
    for child_name, child in group.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, f"{name} {child_name}")
        else:
            yield f"{name} {child_name}", child


def _command(name: str, command: Any) -> Iterator[str]:
    """One command: how it is called, what it does, its arguments and options."""
    hints = get_type_hints(command.callback)
    shown = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
    spelt = {p.name: p.metavar or f"{p.opts[0]} {_value(hints[p.name])}".strip() for p in shown}
    usage = " ".join(spelt[p.name] for p in shown if p.required or p.param_type_name == "argument")
    yield f"## {name}\n\n    {name} {usage}\n\n{command.help}\n"
    rows = [f"| `{spelt[p.name]}` | {_option_default(p)} | {p.help or ''} |" for p in shown]
    yield "| argument | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _value(hint: Any) -> str:
    """What stands for the value of an option: its type, its choices, or nothing for a flag."""
    hint = next((part for part in get_args(hint) if part is not type(None)), hint)
    if issubclass(hint, Enum):
        return "/".join(str(choice.value) for choice in hint)
    return {Path: "PATH", int: "N", float: "X", bool: ""}.get(hint, "TEXT")


def _option_default(parameter: Any) -> str:
    if parameter.default is None or parameter.default is False:
        return "required" if parameter.required else ""
    return f"`{getattr(parameter.default, 'value', parameter.default)}`"


def main(arguments: list[str]) -> int:
    """Write what is out of date, or with --check only name it; returns the exit code."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: python docs/generate.py [--check]")
    texts = generated(ROOT)
    stale = [p for p in texts if not p.is_file() or p.read_text(encoding="utf-8") != texts[p]]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date' if arguments else 'written'}")
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return int(bool(arguments and stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
