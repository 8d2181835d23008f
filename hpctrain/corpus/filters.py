"""What makes a file poor training data, one rule a reason. Thresholds come from the config, by language.

docs/reference/corpus-filters.md shows what each rule dropped of real packages and how its threshold was
chosen. No rule asks whether a file parses: general lexers reject more than half of real fixed-form Fortran.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field, field_validator

from hpctrain.config import Section
from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.languages import UNDECIDED
from hpctrain.corpus.lexer import LIVE, Kind, mask, regions
from hpctrain.corpus.secret_kinds import is_random

_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1a\x1b")) + b"\x7f"
_BLANK_BYTES = b" \t\n\r\f\v"
_BASE64 = (string.ascii_letters + string.digits + "+/").encode()
_HEAD_BYTES = 4096
_HEAD_LINES = 30
_LETTERS = b"ghijklmnopqrstuvwyzGHIJKLMNOPQRSTUVWYZ"  # without x, the mark of a hexadecimal number
_NUMBERS = re.compile(
    rb"""(?<![\w.])(?:[-+]?
      (?:0[xX][0-9a-fA-F]{1,40}|(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eEdD][-+]?\d{1,5})?)
      (?:_\w{1,20}|[uUlLfF]{0,3})[\s,;{}()/&*$]{1,200}){8,}""",
    re.VERBOSE,
)


class LanguageThresholds(Section):
    """What differs for a language; what is not given is as for all."""

    min_code_bytes: int | None = Field(None, ge=0)
    """As `filters.min_code_bytes`."""
    max_line_bytes: int | None = Field(None, gt=0)
    """As `filters.max_line_bytes`."""
    max_mean_line_bytes: int | None = Field(None, gt=0)
    """As `filters.max_mean_line_bytes`."""
    min_letter_share: float | None = Field(None, ge=0, le=1)
    """As `filters.min_letter_share`."""
    max_table_share: float | None = Field(None, ge=0, le=1)
    """As `filters.max_table_share`."""
    max_encoded_share: float | None = Field(None, ge=0, le=1)
    """As `filters.max_encoded_share`."""


_FORTRAN_FIXED = LanguageThresholds(max_line_bytes=500, max_mean_line_bytes=100)
_FORTRAN_FREE = LanguageThresholds(max_line_bytes=1000, max_mean_line_bytes=100)


class FilterConfig(Section):
    """Thresholds of the content filters."""

    min_bytes: int = Field(64, ge=0)
    """Files with fewer bytes than this, blanks not counted, are dropped as `too small`."""
    max_bytes: int = Field(1 << 20, gt=0)
    """Files of more bytes than this are dropped unread as `too large`."""
    min_code_bytes: int = Field(32, ge=0)
    """Files with fewer bytes of code than this, without comments and blanks, are dropped as `no code`."""
    max_line_bytes: int = Field(2000, gt=0)
    """Files with a longer line than this are dropped as `long lines`."""
    max_mean_line_bytes: int = Field(150, gt=0)
    """Files whose lines are longer than this on average are dropped as `long lines`."""
    max_control_share: float = Field(0.01, ge=0, le=1)
    """Files with a higher share of control bytes than this are dropped as `binary`."""
    min_letter_share: float = Field(0.06, ge=0, le=1)
    """Files with a lower share of the letters that no hexadecimal number has are dropped as `few letters`."""
    max_table_share: float = Field(0.85, ge=0, le=1)
    """Files with more of their code than this in lists of eight numbers or more: dropped as `data table`."""
    max_encoded_share: float = Field(0.5, ge=0, le=1)
    """Files of which more than this is base64, hexadecimal or escapes are dropped as `encoded`."""
    keep_generated: bool = False
    """Whether to keep files that say a program wrote them."""
    by_language: dict[str, LanguageThresholds] = {
        "fortran-fixed": _FORTRAN_FIXED,
        "fortran-free": _FORTRAN_FREE,
    }
    """What differs for a language. Fortran has no lines as long as those of C++ templates."""

    @field_validator("by_language")
    @classmethod
    def _check_languages(cls, given: dict[str, LanguageThresholds]) -> dict[str, LanguageThresholds]:
        if unknown := sorted(set(given) - set(LANGUAGES)):
            raise ValueError(f"unknown language {', '.join(unknown)}; known: {', '.join(LANGUAGES)}")
        return given


class Filter(Protocol):
    """One reason to drop a file."""

    reason: str
    """The name under which the ledger counts what this filter drops."""

    def keeps(self, content: bytes, language: str) -> bool:
        """True if the file may stay; `language` is its label, which may be undecided."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One threshold, for all languages and for those that differ."""

    general: float
    particular: Mapping[str, float]

    def of(self, language: str) -> float:
        """The threshold for a language."""
        return self.particular.get(language, self.general)


def _limit(config: FilterConfig, name: str) -> Limit:
    given = {language: getattr(own, name) for language, own in config.by_language.items()}
    return Limit(getattr(config, name), {k: value for k, value in given.items() if value is not None})


def _settled(language: str) -> str:
    """The language to lex a header as while its neighbours are not known: comments are the same in both."""
    return "c" if language == UNDECIDED else language


def _dense(content: bytes) -> bytes:
    return content.translate(None, _BLANK_BYTES)


class Binary:
    """Drops files with NUL bytes or many control bytes: object code, UTF-16, images."""

    reason = "binary"

    def __init__(self, config: FilterConfig) -> None:
        self.max_share = config.max_control_share

    def keeps(self, content: bytes, language: str) -> bool:
        """True if the content is text in some superset of ASCII."""
        controls = len(content) - len(content.translate(None, _CONTROL_BYTES))
        return b"\0" not in content and controls <= self.max_share * len(content)


class TooSmall:
    """Drops empty and nearly empty files, such as headers that only forward to another."""

    reason = "too small"

    def __init__(self, config: FilterConfig) -> None:
        self.min_bytes = config.min_bytes

    def keeps(self, content: bytes, language: str) -> bool:
        """True if enough bytes are not blank."""
        return len(_dense(content)) >= self.min_bytes


class LongLines:
    """Drops minified code and data written on few lines."""

    reason = "long lines"

    def __init__(self, config: FilterConfig) -> None:
        self.longest = _limit(config, "max_line_bytes")
        self.mean = _limit(config, "max_mean_line_bytes")

    def keeps(self, content: bytes, language: str) -> bool:
        """True if neither the longest line nor the mean is over its limit."""
        lines = content.splitlines()
        longest = max(map(len, lines), default=0)
        mean = len(content) / max(1, len(lines))
        return longest <= self.longest.of(language) and mean <= self.mean.of(language)


class FewLetters:
    """Drops numbers, rulers and banners that happen to be a source file."""

    reason = "few letters"

    def __init__(self, config: FilterConfig) -> None:
        self.min_share = _limit(config, "min_letter_share")

    def keeps(self, content: bytes, language: str) -> bool:
        """True if enough of the bytes that are not blank are such letters."""
        return letter_share(content) >= self.min_share.of(language)


def letter_share(content: bytes) -> float:
    """How much of the bytes that are not blank are letters that no hexadecimal number has."""
    dense = _dense(content)
    return 1 - len(dense.translate(None, _LETTERS)) / max(1, len(dense))


class DataTable:
    """Drops tables of numbers: arrays of C, DATA statements, with a few lines of code around them."""

    reason = "data table"

    _MAY_BE_TABLE = 0.35  # a higher share of letters leaves no room for a table, and saves the lexing

    def __init__(self, config: FilterConfig) -> None:
        self.max_share = _limit(config, "max_table_share")

    def keeps(self, content: bytes, language: str) -> bool:
        """True if enough of the code is something else than lists of eight numbers or more."""
        if letter_share(content) > self._MAY_BE_TABLE:
            return True
        return table_share(content, language) <= self.max_share.of(language)


def table_share(content: bytes, language: str) -> float:
    """How much of the code (comments and blanks left out) stands in lists of eight numbers or more."""
    code = mask(content, _settled(language), LIVE | {Kind.STRING})
    tables = sum(len(_dense(found[0])) for found in _NUMBERS.finditer(code))
    return tables / max(1, len(_dense(code)))


class Encoded:
    """Drops files that are mostly base64, hexadecimal digits or escapes: images, keys, compressed data."""

    reason = "encoded"

    _SHAPE = bytes.maketrans(_BASE64, b"a" * len(_BASE64))
    _RUN = b"a" * 48
    _RUNS = re.compile(rb"(?:\\x[0-9a-fA-F]{1,2}|\\[0-7]{1,3}){16,}|[A-Za-z0-9+/]{48,}")

    def __init__(self, config: FilterConfig) -> None:
        self.max_share = _limit(config, "max_encoded_share")

    def keeps(self, content: bytes, language: str) -> bool:
        """True if enough of the bytes that are not blank stand outside of such runs."""
        shape = content.translate(self._SHAPE)
        if self._RUN not in shape and 20 * content.count(b"\\") < len(content):
            return True
        # a ruler of slashes and a long name are not encoded
        found = (run[0] for run in self._RUNS.finditer(content))
        runs = sum(len(run) for run in found if run.startswith(b"\\") or is_random(run))
        return runs <= self.max_share.of(language) * len(_dense(content))


class NoCode:
    """Drops files that are a licence and a comment: documentation pages, headers that only forward."""

    reason = "no code"

    def __init__(self, config: FilterConfig) -> None:
        self.min_bytes = _limit(config, "min_code_bytes")

    def keeps(self, content: bytes, language: str) -> bool:
        """True if enough bytes are neither blank nor comment; stops reading where that is known."""
        found, needed = 0, self.min_bytes.of(language)
        for kind, start, stop in regions(content, _settled(language)):
            if found >= needed:
                break
            if kind in LIVE or kind is Kind.STRING:
                found += len(_dense(content[start:stop]))
        return found >= needed


class Generated:
    """Drops files whose first lines say that a program wrote them."""

    reason = "generated"

    # Not: "Z is generated by DGEQRF", "config.h is auto-generated", "as in autogenerated code"; nor what
    # LAPACK made of one precision from another, which is LAPACK all the same.
    _MARKS = re.compile(
        rb"""(?i:do[ ]not[ ](?:edit|modify)(?![ ]+(?:the|any)[ ])
          | @generated\b(?![ ]from\b[^\n]*,[ ]fortran\b) | made[ ]by[ ]GNU[ ]Bison
          | this[ ]is[ ]an?[ ](?:\w+[- ])?generated[ ](?:file|header|code)\b
          | \b(?:file|header|code|source|module|following)[ ](?:\W?\w+\W?[ ]){0,2}
            (?:auto(?:matically)?|machine)[ -]?generated\b
          | \b(?:file|header|code|source)[ ](?:was|is|has[ ]been)[ ](?:\w+[ ])?generated\b
          | \btranslated[ ]by[ ]f2c\b | /\*[ ]System[ ]generated[ ]locals[ ]\*/)
        | ^\W*(?i:(?:auto(?:matically)?|machine)[ -]?generated)\b
        | (?P<part>^\W*(?:\w+\.h(?:pp)?\.[ ]+)?Generated[ ](?:by|from|with|using|automatically)\b)""",
        re.MULTILINE | re.VERBOSE,
    )
    _INCLUDE = re.compile(rb"^[ \t]*#[ \t]*include\b", re.MULTILINE)

    def keeps(self, content: bytes, language: str) -> bool:
        """True if no first line names a generator."""
        head = b"\n".join(content[:_HEAD_BYTES].split(b"\n")[:_HEAD_LINES])
        return not any(self._speaks_for_the_file(mark, head) for mark in self._MARKS.finditer(head))

    def _speaks_for_the_file(self, mark: re.Match[bytes], head: bytes) -> bool:
        """False for "Generated by" below the includes: there it means the table that follows."""
        return mark["part"] is None or not self._INCLUDE.search(head, 0, mark.start())


def make_filters(config: FilterConfig) -> list[Filter]:
    """The content filters in the order in which they are asked; cheap and telling ones first."""
    filters: list[Filter] = [
        Binary(config),
        TooSmall(config),
        LongLines(config),
        NoCode(config),
        DataTable(config),
        Encoded(config),
        FewLetters(config),
    ]
    return filters if config.keep_generated else [*filters, Generated()]
