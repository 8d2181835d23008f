"""Held-out files as problems: text cut to fit a small context, a fair share of each language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

from hpctrain.errors import ConfigError
from hpctrain.evaluate.heldout_files import HeldOutFile, heldout_files
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams
from hpctrain.tokenizer.codec import Tokenizer

BYTES_PER_TOKEN = 2
"""What is sure to fit: most code takes three bytes or more to a token."""
WINDOW_BYTES = 4096
"""Text of a problem, answer included, at most, whatever the context."""

T = TypeVar("T")


def require_shards(options: SuiteOptions, suite: str) -> Path:
    """The shards to take held-out text from. Raises ConfigError where none are known."""
    if options.shards is None:
        raise ConfigError(f"--suite {suite}: takes its problems from held-out text; name shards by --shards")
    return options.shards


def window_bytes(options: SuiteOptions) -> int:
    """Bytes that a problem may have, so that the model that is evaluated can read it."""
    if options.context_tokens is None:
        return WINDOW_BYTES
    return min(WINDOW_BYTES, BYTES_PER_TOKEN * options.context_tokens)


def collect(shards: Path, find: Callable[[HeldOutFile], Iterable[T]], limit: int) -> list[T]:
    """At most `limit` of what `find` makes of held-out files, as many of each language as there are.

    Each file gives one before any gives a second. Raises DataError if the shards are missing or damaged.
    """
    tokenizer = Tokenizer.load(shards / TOKENIZER_DIRECTORY)
    by_language = []
    for language, stream in open_streams(shards, "validation").items():
        files = heldout_files(stream, language, tokenizer)
        by_language.append(list(_in_turn((find(file) for file in files), limit)))
    every = chain.from_iterable(zip_longest(*by_language))
    return [each for each in every if each is not None][:limit]


def _in_turn(groups: Iterable[Iterable[T]], limit: int) -> Iterator[T]:
    """The first of each group, then the second of each, up to `limit`."""
    rounds: list[Iterator[T]] = []
    found = 0
    for group in groups:  # files are many: stop as soon as the first of each will do
        turn = iter(group)
        for each in turn:
            yield each
            found += 1
            rounds.append(turn)
            break
        if found >= limit:
            return
    while rounds and found < limit:
        going = []
        for turn in rounds:
            for each in turn:
                yield each
                found += 1
                going.append(turn)
                break
            if found >= limit:
                return
        rounds = going


def tail(text: bytes, size: int) -> bytes:
    """The last whole lines of a text, of `size` bytes at most; the end of its last line if that is longer."""
    if len(text) <= size:
        return text
    part = text[len(text) - size :]
    start = part.find(b"\n") + 1
    return part[start:] if 0 < start < len(part) else _whole_characters(part)


def head(text: bytes, size: int) -> bytes:
    """The first whole lines of a text, of `size` bytes at most; the start of the first if that is longer."""
    if len(text) <= size:
        return text
    part = text[:size]
    stop = part.rfind(b"\n") + 1
    return part[:stop] if stop else part.decode("utf-8", "ignore").encode()


def _whole_characters(part: bytes) -> bytes:
    return part.decode("utf-8", "ignore").encode()


def is_text(content: bytes) -> bool:
    """Whether bytes are UTF-8, as problems must be."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
