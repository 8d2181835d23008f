"""Config: every error at once with its dotted path, safe and strict YAML, overrides, stable fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from hpctrain.config import Section, dump_yaml, fingerprint, load_config, read_yaml
from hpctrain.errors import ConfigError


class Disk(Section):
    kind: Literal["disk"] = "disk"
    folder: Path = Path()


class Tape(Section):
    kind: Literal["tape"]
    reel: int = Field(ge=0)


class Optimizer(Section):
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = 10
    schedule: Literal["cosine", "linear"] = "cosine"

    @field_validator("warmup_steps")
    @classmethod
    def _even(cls, steps: int) -> int:
        if steps % 2:
            raise ValueError(f"{steps} is odd")
        return steps


class Whole(Section):
    name: str
    optimizer: Optimizer = Optimizer()
    sources: list[Annotated[Disk | Tape, Field(discriminator="kind")]] = []
    labels: dict[str, float] = {}


def load(directory: Path, text: str, *overrides: str) -> Whole:
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides, Whole)


def problems(directory: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, text, *overrides)
    return caught.value.problems


def test_every_problem_is_reported_at_once_with_its_dotted_path(tmp_path: Path) -> None:
    text = """
        optimizer: {learning_rate: -1, warmup_steps: 3, schedul: cosine}
        sources: [{kind: disk, foldr: /tmp}]
        zzzzzz: 1
    """
    found = problems(tmp_path, text, "optimizer.schedule=wrong", "nonsense")
    assert len(found) == 8
    assert any(line.startswith("nonsense: an override is written section.key=value") for line in found)
    for expected in (
        "name: required, but not given",
        "optimizer.learning_rate: input should be greater than 0 (found -1)",
        "optimizer.warmup_steps: 3 is odd",
        "optimizer.schedul: unknown key; did you mean schedule?",
        "zzzzzz: unknown key; valid keys: labels, name, optimizer, sources",
    ):
        assert expected in found
    assert any(line.startswith("optimizer.schedule: input should be 'cosine' or 'linear'") for line in found)
    assert any(line.startswith("sources.0.") and "did you mean folder?" in line for line in found)


def test_the_error_carries_exit_code_2_and_all_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "optimizer: {a: 1, b: 2}")
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines() == caught.value.problems
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.learning_rate=3e-4", 3e-4),
        ("optimizer.learning_rate=.5", 0.5),
        ("optimizer.learning_rate=1", 1.0),
    ],
)
def test_numbers_of_overrides(tmp_path: Path, override: str, expected: float) -> None:
    assert load(tmp_path, "name: a", override).optimizer.learning_rate == expected


def test_overrides_are_yaml_values_that_replace_and_nest(tmp_path: Path) -> None:
    record = load(
        tmp_path, "name: before\nlabels: {old: 1}", "name=after", "optimizer.warmup_steps=4",
        "sources=[{kind: tape, reel: 7}]", "labels.new=2.5",
    )  # fmt: skip
    assert record.name == "after"
    assert record.optimizer == Optimizer(warmup_steps=4)
    assert record.sources == [Tape(kind="tape", reel=7)]
    assert record.labels == {"old": 1.0, "new": 2.5}


def test_the_last_override_of_a_key_wins_and_a_value_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert load(tmp_path, "name: a", "name=b", "name=c=d").name == "c=d"


@pytest.mark.parametrize(
    "override", ["name", "=1", "optimizer.=1", ".name=1", "optimizer..warmup_steps=1", ""]
)
def test_malformed_overrides(tmp_path: Path, override: str) -> None:
    assert problems(tmp_path, "name: a", override) == [
        f"{override}: an override is written section.key=value"
    ]


def test_an_override_below_something_that_is_no_section(tmp_path: Path) -> None:
    assert problems(tmp_path, "name: a", "name.sub.key=1") == ["name.sub.key: name is not a section"]


@pytest.mark.parametrize(
    "value", ["[unclosed", "2020-99-99", "!!bool maybe", "[" * 5000, "*alias", "a: b: c"]
)
def test_a_value_that_is_no_yaml_is_taken_as_text(tmp_path: Path, value: str) -> None:
    assert load(tmp_path, "name: a", f"name={value}").name == value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: a\nname: b\n", "line 2"),
        ("name: a\noptimizer:\n  schedule: cosine\n  schedule: linear\n", "line 4"),
        ("name: a\nsources: [{kind: disk, kind: disk}]\n", "line 2"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, where: str) -> None:
    (found,) = problems(tmp_path, text)
    assert "is given twice" in found
    assert where in found


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml", [], Whole)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, [], Whole)


@pytest.mark.parametrize(
    "content",
    [b"name: [", b"name: \xff\xfe", b"a: b: c", b"\0", b"name: *unknown", b"{[a]: 1}", b"{{a: 1}: 1}",
     b"[" * 5000, b"name: 2020-99-99", b"name: !!bool maybe", b"name: !!timestamp x", b"name: !!int x"],
)  # fmt: skip
def test_what_is_not_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml: not valid YAML"):
        load_config(path, [], Whole)


@pytest.mark.parametrize(
    ("text", "found"), [("", "NoneType"), ("- a\n- b", "list"), ("42", "int"), ("words", "str")]
)
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, found: str) -> None:
    (line,) = problems(tmp_path, text)
    assert line.endswith(f"expected a mapping of sections, found {found}")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_yaml_tags_run_nothing(tmp_path: Path, tag: str) -> None:
    made = tmp_path / "made"
    value = f"{tag} [{made}]"
    with pytest.raises((TypeError, ValueError)):  # of what the unsafe loader makes of it, after it ran
        Whole.model_validate({"name": yaml.unsafe_load(value)})
    made.rmdir()
    (found,) = problems(tmp_path, f"name: {value}")
    assert "not valid YAML" in found
    assert "could not determine a constructor" in found
    assert load(tmp_path, "name: a", f"name={value}").name == value, (
        "an override that is no YAML is only text"
    )
    assert not made.exists()


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    for value in (".nan", ".inf"):
        assert problems(tmp_path, f"name: a\noptimizer: {{learning_rate: {value}}}")


@pytest.mark.parametrize("value", ["{}", "[]", "1", "null"])
def test_a_section_of_another_shape_is_an_error(tmp_path: Path, value: str) -> None:
    if value == "{}":
        assert load(tmp_path, f"name: a\noptimizer: {value}").optimizer == Optimizer()
    else:
        assert problems(tmp_path, f"name: a\noptimizer: {value}")[0].startswith("optimizer: ")


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, draw: Any) -> Any:
    """An equal value whose mappings are written in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return [shuffled(inner, draw) for inner in value] if isinstance(value, list) else value


@settings(max_examples=100)
@given(st.data(), values)
def test_the_fingerprint_does_not_depend_on_the_order_of_keys(data: Any, value: Any) -> None:
    assert fingerprint(shuffled(value, data.draw)) == fingerprint(value)


@settings(max_examples=100)
@given(values, values)
def test_the_fingerprint_tells_values_apart(one: Any, other: Any) -> None:
    # JSON's own sense of equality: 1 is not 1.0, and -0.0 is not 0.0
    assert (repr_json(one) == repr_json(other)) == (fingerprint(one) == fingerprint(other))


def repr_json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{repr_json(value[key])}" for key in sorted(value)) + "}"
    return "[" + ",".join(map(repr_json, value)) + "]" if isinstance(value, list) else repr(value)


def test_the_fingerprint_of_a_record_is_that_of_its_values(tmp_path: Path) -> None:
    record = load(tmp_path, "labels: {b: 1, a: 2}\nname: a")
    again = load(tmp_path, "name: a\nlabels: {a: 2, b: 1}")
    assert fingerprint(record) == fingerprint(again) == fingerprint(record.model_dump(mode="json"))
    assert fingerprint(record) != fingerprint(load(tmp_path, "name: a\nlabels: {a: 2, b: 1.5}"))


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
records = st.builds(
    Whole,
    name=names,
    optimizer=st.builds(
        Optimizer,
        learning_rate=st.floats(min_value=1e-300, max_value=1e300),
        warmup_steps=st.integers().map(lambda number: 2 * number),
        schedule=st.sampled_from(["cosine", "linear"]),
    ),
    sources=st.lists(
        st.builds(Tape, kind=st.just("tape"), reel=st.integers(min_value=0))
        | st.builds(Disk, folder=st.sampled_from([Path("/a b"), Path("ä/ö")])),
        max_size=3,
    ),
    labels=st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)


@settings(max_examples=80)
@given(records)
def test_dumped_yaml_loads_to_the_same_record(record: Whole) -> None:
    assert Whole.model_validate(yaml.safe_load(dump_yaml(record))) == record


@settings(max_examples=80)
@given(record=records)
@example(record=Whole(name="\x85 \u2028\r\n\ufeff: ä #", labels={"\x85": 0.0, "null": 1.0, "1e3": 2.0}))
def test_the_strict_reader_reads_what_was_dumped(
    tmp_path_factory: pytest.TempPathFactory, record: Whole
) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_yaml(record), encoding="utf-8", newline="")
    assert load_config(path, [], Whole) == record
    assert list(read_yaml(path)) == list(Whole.model_fields)


def test_records_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, "name: a").name = "b"  # type: ignore[misc]
