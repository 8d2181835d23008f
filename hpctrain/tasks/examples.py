"""Examples of instructions from JSON lines: what is asked, and what is to be answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import xxhash
from pydantic import Field, ValidationError, model_validator

from hpctrain.config import Section, describe_errors
from hpctrain.corpus.document import SPLITS
from hpctrain.corpus.languages import find_language
from hpctrain.errors import DataError
from hpctrain.tasks.template import Message, Template, render, render_request

Split = Literal["train", "validation", "test"]
_OF_RECORDS = {"family", "meta"}
"""Keys of a task's records that scores need, not training."""
_SHOWN = 50


@dataclass(frozen=True)
class ExampleOptions:
    """How lines become examples."""

    template: Template = "chat"
    """How requests stand in the text; conversations need chat."""
    language: str | None = None
    """Label of the corpus for lines that have none, and whose path tells none."""
    validation: float = 0.05
    """Share of the examples that is held out, of files that say nothing of splits."""


@dataclass(frozen=True)
class Example:
    """One response with all that comes before it."""

    prompt: str
    response: str
    suffix: str | None
    """Text after the response; fill in the middle where it is given."""
    language: str
    path: str
    split: str
    source: str
    """The task, or the name of the file."""
    line: int
    """Where it stands in its file, from 1."""


class _Line(Section):
    """What a line may hold."""

    prompt: str | None = Field(default=None, min_length=1)
    response: str | None = Field(default=None, min_length=1)
    suffix: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=2)
    language: str | None = None
    path: str = ""
    split: Split | None = None
    id: str | None = None
    task: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> _Line:
        if (self.messages is None) == (self.prompt is None and self.response is None):
            raise ValueError("give either prompt and response, or messages")
        if self.messages is None and (self.prompt is None or self.response is None):
            raise ValueError(f"{'prompt' if self.prompt is None else 'response'}: required, but not given")
        if self.messages is not None:
            if self.suffix is not None:
                raise ValueError("suffix: goes with prompt and response, not with messages")
            roles = [message.role for message in self.messages]
            if roles[0] == "assistant" or roles[-1] != "assistant":
                raise ValueError("messages: begin with the user's or the system's, end with the assistant's")
        return self


@dataclass
class ExampleReader:
    """Reads files of JSON lines and keeps what is wrong with them until the end."""

    options: ExampleOptions
    languages: Sequence[str]
    """The labels that there are."""
    problems: list[str] = field(default_factory=list)
    """What is wrong, by file and line."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Keys that say nothing here, with the number of lines that have them."""

    def read(self, path: Path) -> Iterator[Example]:
        """The examples of a file: one a line, or of a conversation one for each turn of the assistant.

        Raises DataError if the file cannot be read; broken lines go to `problems`.
        """
        try:
            with path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    if not line.strip():
                        continue
                    try:
                        yield from self._examples(path, number, self._parse(line))
                    except ValueError as reason:
                        self.problems.append(f"{path}:{number}: {reason}")
        except OSError as reason:
            raise DataError(f"{path}: {reason.strerror}") from None

    def refuse_problems(self) -> None:
        """Raise DataError with every broken line, of very many the numbers only."""
        if not self.problems:
            return
        rest = [problem.split(": ", 1)[0] for problem in self.problems[_SHOWN:]]
        more = [f"and {', '.join(rest)}"] if rest else []
        raise DataError(
            "\n".join([f"{len(self.problems)} lines cannot be used:", *(self.problems[:_SHOWN]), *more])
        )

    def _parse(self, line: bytes) -> _Line:
        try:
            tree = json.loads(line)
        except UnicodeDecodeError as reason:
            raise ValueError(f"not UTF-8 at byte {reason.start}") from None
        except (json.JSONDecodeError, RecursionError) as reason:
            raise ValueError(f"not JSON: {reason}") from None
        if not isinstance(tree, dict):
            raise ValueError(f"a {type(tree).__name__}, not an object")
        known: dict[str, Any] = {name: tree[name] for name in tree if name in _Line.model_fields}
        self.passed_over.update(tree.keys() - known.keys() - _OF_RECORDS)
        try:
            return _Line.model_validate(known)
        except ValidationError as error:
            raise ValueError("; ".join(describe_errors(error, _Line))) from None

    def _examples(self, path: Path, number: int, line: _Line) -> Iterator[Example]:
        language = line.language or find_language(line.path or "", b"") or self.options.language
        if language is None:
            raise ValueError("language: not given, and the path tells none; add it, or give --language")
        if language not in self.languages:
            raise ValueError(f"language: {language!r} is none of {', '.join(self.languages)}")
        split = line.split or (path.stem if path.stem in SPLITS else self._draw(line))
        for prompt, response in self._turns(line):
            yield Example(
                prompt, response, line.suffix, language, line.path, split, line.task or path.stem, number
            )

    def _turns(self, line: _Line) -> Iterator[tuple[str, str]]:
        """Each response with the text before it."""
        if line.messages is None:
            assert line.prompt is not None
            assert line.response is not None
            yield render_request(line.prompt, self.options.template), line.response
            return
        if self.options.template != "chat":
            raise ValueError(f"messages: template {self.options.template} has no roles; use --template chat")
        for place, message in enumerate(line.messages):
            if message.role == "assistant":
                yield render(line.messages[:place]), message.content

    def _draw(self, line: _Line) -> Split:
        """Hold out by what is asked, so that one request is not on two sides of the split."""
        asked = line.prompt or next(m.content for m in line.messages or () if m.role != "system")
        draw = xxhash.xxh3_64_intdigest(asked.encode("utf-8", "surrogatepass")) / 2**64
        return "validation" if draw < self.options.validation else "train"
