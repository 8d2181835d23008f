"""Lines of instructions: every form, every way to get one wrong, and every broken line named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import DataError
from hpctrain.tasks.examples import Example, ExampleOptions, ExampleReader
from hpctrain.tasks.template import Message, render, render_request

LANGUAGES = ("c", "cpp", "fortran-free")
C = ExampleOptions(language="c")


def read(
    tmp_path: Path, lines: list[Any], options: ExampleOptions = C, name: str = "some.jsonl"
) -> list[Example]:
    path = tmp_path / name
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    reader = ExampleReader(options, LANGUAGES)
    found = list(reader.read(path))
    reader.refuse_problems()
    return found


def test_a_prompt_stands_alone_or_under_a_heading(tmp_path: Path) -> None:
    line = {"prompt": "Sum an array.", "response": "int sum;\n"}
    [plain] = read(tmp_path, [line], ExampleOptions("plain", "c"))
    assert (plain.prompt, plain.response, plain.source) == ("Sum an array.", "int sum;\n", "some")
    [chat] = read(tmp_path, [line])
    assert (
        chat.prompt == "### Request\nSum an array.\n### Response\n" == render_request("Sum an array.", "chat")
    )


def test_a_conversation_is_an_example_for_each_answer(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": text} for role, text in turns]
    first, second = read(tmp_path, [{"messages": messages}])
    assert first.prompt == "### System\nBe brief.\n### Request\na\n### Response\n"
    assert second.prompt == f"{first.prompt}b\n### Request\nc\n### Response\n"
    assert [first.response, second.response] == ["b", "d"]
    assert second.prompt == render([Message(role=role, content=text) for role, text in turns[:-1]])  # type: ignore[arg-type]


def test_language_comes_from_the_line_the_path_or_the_option(tmp_path: Path) -> None:
    line = {"prompt": "p", "response": "r"}
    lines = [{**line, "language": "cpp"}, {**line, "path": "src/a.f90"}, line]
    assert [each.language for each in read(tmp_path, lines)] == ["cpp", "fortran-free", "c"]


def test_splits_come_from_the_line_the_file_or_the_request(tmp_path: Path) -> None:
    lines = [{"prompt": f"p{n}", "response": f"r{m}"} for n in range(200) for m in range(2)]
    drawn = read(tmp_path, lines, ExampleOptions(language="c", validation=0.2))
    by_prompt = {
        each.prompt: {other.split for other in drawn if other.prompt == each.prompt} for each in drawn[::2]
    }
    assert all(len(splits) == 1 for splits in by_prompt.values())
    assert 20 <= sum(splits == {"validation"} for splits in by_prompt.values()) <= 60
    assert {each.split for each in read(tmp_path, lines, name="test.jsonl")} == {"test"}
    [chosen] = read(tmp_path, [{**lines[0], "split": "validation"}], name="train.jsonl")
    assert chosen.split == "validation"


def test_every_broken_line_is_named(tmp_path: Path) -> None:
    good = {"prompt": "p", "response": "r"}
    answer = {"role": "assistant", "content": "a"}
    broken: list[tuple[Any, str]] = [
        ('{"prompt": "p", ', "not JSON: "),
        ("[1]", "a list, not an object"),
        ({"prompt": "p"}, "response: required, but not given"),
        ({"prompt": "p", "response": ""}, "response: string should have at least 1 character"),
        ({"prompt": 3, "response": "r"}, "prompt: input should be a valid string (found 3)"),
        ({}, "give either prompt and response, or messages"),
        ({**good, "messages": [answer]}, "messages: list should have at least 2 items"),
        ({"messages": [{**answer, "role": "tool"}, answer]}, "messages.0.role: input should be 'system'"),
        ({"messages": [answer, answer]}, "messages: begin with the user's"),
        ({**good, "language": "cobol"}, "language: 'cobol' is none of c, cpp, fortran-free"),
        ({**good, "split": "dev"}, "split: input should be 'train', 'validation' or 'test'"),
        ("[" * 100_000, "not JSON: "),
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        read(tmp_path, [good, *(line for line, _ in broken), good])
    told = str(caught.value).splitlines()
    assert told[0] == f"{len(broken)} lines cannot be used:"
    for number, ((_, expected), line) in enumerate(zip(broken, told[1:], strict=True), 2):
        assert line.startswith(f"{tmp_path / 'some.jsonl'}:{number}: {expected}"), line


def test_of_very_many_broken_lines_all_numbers_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, ["{"] * 120)
    assert all(f"some.jsonl:{number}" in str(caught.value) for number in range(1, 121))
    assert len(str(caught.value).splitlines()) < 60


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"prompt": "\xff", "response": "r"}\n')
    reader = ExampleReader(C, LANGUAGES)
    assert not list(reader.read(tmp_path / "x.jsonl"))
    assert reader.problems == [f"{tmp_path / 'x.jsonl'}:1: not UTF-8 at byte 12"]


def test_what_templates_and_forms_exclude(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(
        DataError, match=r"some.jsonl:1: messages: template plain has no roles; use --template chat"
    ):
        read(tmp_path, [talk], ExampleOptions("plain", "c"))
    with pytest.raises(DataError, match=r"language: not given, and the path tells none"):
        read(tmp_path, [talk], ExampleOptions())
    with pytest.raises(DataError, match=r"suffix: goes with prompt"):
        read(tmp_path, [{**talk, "suffix": "x"}])


def test_other_keys_are_counted_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "p", "response": "r", "stars": 3}\n' * 2)
    reader = ExampleReader(C, LANGUAGES)
    assert len(list(reader.read(path))) == 2
    assert reader.passed_over == {"stars": 2}


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.text(), st.lists), max_size=3))
def test_no_object_makes_the_reader_fail(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_text(json.dumps(tree) + "\n")
    reader = ExampleReader(C, LANGUAGES)
    found = list(reader.read(path))
    assert len(found) + len(reader.problems) == 1
