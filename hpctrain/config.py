"""From YAML and dotted overrides to frozen, typed records; every error is reported at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import xxhash
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hpctrain.errors import ConfigError


class Section(BaseModel):
    """Base of every config record: frozen, unknown keys refused, fields documented by their docstrings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


SectionT = TypeVar("SectionT", bound=Section)

# PyYAML lets more than its own errors escape: of impossible dates, `!!bool maybe`, and a thousand brackets.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)


def load_config(path: Path, overrides: Sequence[str], schema: type[SectionT]) -> SectionT:
    """Read a YAML file, apply `section.key=value` overrides and check the whole against `schema`.

    Raises ConfigError with one line for each problem, each with its dotted path.
    """
    tree = read_yaml(path)
    problems = [problem for text in overrides if (problem := _apply_override(tree, text))]
    try:
        record = schema.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([*problems, *describe_errors(error, schema)]) from None
    if problems:
        raise ConfigError(problems)
    return record


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML mapping without running any code. Raises ConfigError that names the line."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def dump_yaml(record: Section) -> str:
    """The resolved config as YAML, in the order of its fields."""
    # Not with allow_unicode: PyYAML would write U+0085 and U+2028 bare, and read them back as spaces.
    return str(yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False))


def fingerprint(value: Any) -> str:
    """A 128-bit hash of any JSON-like value (or Section), independent of key order."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(xxhash.xxh3_128_hexdigest(canonical.encode("utf-8", "surrogatepass")))


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where plain YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # never hashable here: refused below
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"the key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _apply_override(tree: dict[str, Any], text: str) -> str | None:
    """Set one dotted key in place; returns the problem, if any."""
    dotted, separator, raw = text.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        return f"{text}: an override is written section.key=value"
    try:
        value = yaml.safe_load(raw)
    except _NOT_YAML:
        value = raw
    node: Any = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            return f"{dotted}: {key} is not a section"
    node[keys[-1]] = value
    return None


def describe_errors(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One line a problem: dotted path, what is wrong, and the nearest valid key where one was misspelt."""
    return [_describe(dict(detail), schema) for detail in error.errors(include_url=False)]


def _describe(detail: Mapping[str, Any], schema: type[BaseModel]) -> str:
    location = [str(part) for part in detail["loc"]]
    dotted = ".".join(location)
    if detail["type"] == "extra_forbidden":
        valid = _keys_at(schema, location[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(sorted(valid))}"
        return f"{dotted}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{dotted}: required, but not given"
    if detail["type"] == "value_error":
        message = str(detail["msg"]).removeprefix("Value error, ")
        return f"{dotted}: {message}" if dotted else message
    message = str(detail["msg"])
    return f"{dotted}: {message[:1].lower()}{message[1:]} (found {detail['input']!r})"


def _keys_at(schema: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The valid keys of the record that a dotted path leads to; empty where the path leads elsewhere."""
    current = [schema]  # several where a union awaits its tag
    for part in location:
        fields = [record.model_fields[part] for record in current if part in record.model_fields]
        if fields:
            current = [record for field in fields for record in _records_in(field.annotation)]
        elif tagged := [record for record in current if _has_tag(record, part)]:
            current = tagged  # anything else is an index in a list or a key of a mapping
    return list(dict.fromkeys(name for record in current for name in record.model_fields))


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """Every record type named anywhere in a type annotation."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for argument in get_args(annotation) for record in _records_in(argument)]


def _has_tag(record: type[BaseModel], tag: str) -> bool:
    """True if a field of the record is a Literal with this value, as the tag of a union is."""
    return any(tag in get_args(field.annotation) for field in record.model_fields.values())
