"""A floor: the token that most often followed the longest context that was seen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpctrain.evaluate.candidate import Answer, Sampling
from hpctrain.evaluate.models import as_text, text_prompt
from hpctrain.generation.sampling import uniform
from hpctrain.generation.stops import find_end, make_stop
from hpctrain.generation.text import TextPrompt, prompt_ids
from hpctrain.loader.order import derive_key, keyed_hash
from hpctrain.progress import say
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams
from hpctrain.tasks.problem import Problem
from hpctrain.tokenizer.codec import Tokenizer

ORDER = 6
"""Longest n-gram: five tokens and the one that follows."""
TOKENS = 8_000_000
"""Training tokens of a language that are counted at most, from its start."""

_TOKEN_BITS = 20  # of a key, the low bits are the token and the others the hash of its context
_Keys = npt.NDArray[np.uint64]


class NgramTable:
    """How often each token followed each context of 0 to `order` - 1 tokens."""

    def __init__(self, ids: npt.NDArray[Any], order: int = ORDER) -> None:
        """Count a stream of token ids below 2^20. Takes 16 bytes for each different n-gram."""
        following = ids.astype(np.uint64)
        hashes = np.zeros(len(following), np.uint64)
        self._tables: list[tuple[_Keys, npt.NDArray[np.int64]]] = []
        for length in range(order):
            if length:
                hashes = _extend(hashes[1:], following[: len(following) - length])
            keys = _keys(hashes, following[length:])
            self._tables.append(np.unique(keys, return_counts=True))

    def following(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens, with their counts, that followed the longest known end of `ids`."""
        hashes = [np.uint64(0)]
        for token in list(reversed(ids))[: len(self._tables) - 1]:
            hashes.append(_extend(np.array([hashes[-1]]), np.array([token], np.uint64))[0])
        for length in range(len(hashes) - 1, -1, -1):
            keys, counts = self._tables[length]
            context = _keys(np.array([hashes[length]]), np.zeros(1, np.uint64))[0]
            first = int(np.searchsorted(keys, context))
            last = int(np.searchsorted(keys, context + np.uint64((1 << _TOKEN_BITS) - 1), side="right"))
            if last > first:
                tokens = keys[first:last] & np.uint64((1 << _TOKEN_BITS) - 1)
                return tokens.astype(np.int64), counts[first:last]
        raise AssertionError("the table of no context holds every token")


class NgramModel:
    """Continues text by n-grams of the train split of shards, those of the same language."""

    name = "floor:ngram"

    def __init__(self, shards: Path) -> None:
        """Raises DataError if the shards are missing or damaged."""
        self.tokenizer = Tokenizer.load(shards / TOKENIZER_DIRECTORY)
        self._shards = shards
        self._streams = open_streams(shards, "train", verify=False)
        self._tables: dict[str, NgramTable] = {}

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        """See Candidate. What stands behind a gap is not looked at."""
        prompts = [replace(text_prompt(problem), suffix=None) for problem in problems]
        samples = sampling.samples if sampling.temperature > 0 else 1
        return [
            [self._continue(prompt, sampling, derive_key(sampling.seed, "ngram", number, sample))
             for sample in range(samples)] * (sampling.samples // samples)
            for number, prompt in enumerate(prompts)
        ]  # fmt: skip

    def table(self, language: str) -> NgramTable:
        """The counts of a language; if the shards have none of it, of that with the most text, and said."""
        if language not in self._tables:
            stream = self._streams.get(language)
            if stream is None or not len(stream):
                largest = max(self._streams, key=lambda name: len(self._streams[name]))
                say(f"{self.name}: {self._shards} has no {language} to train on; {largest} stands in for it")
                self._tables[language] = self.table(largest)
            else:
                self._tables[language] = NgramTable(stream.read(0, min(TOKENS, len(stream))))
        return self._tables[language]

    def _continue(self, prompt: TextPrompt, sampling: Sampling, key: int) -> Answer:
        table, ids = self.table(prompt.language), prompt_ids(self.tokenizer, prompt)
        stop = make_stop(prompt.stop, prompt.language, prompt.text, self.tokenizer)
        end, start, is_cut = self.tokenizer.special.end, len(ids), True
        for step in range(sampling.max_tokens):
            token = _choose(*table.following(ids), sampling, uniform([key], step)[0])
            if token == end:
                is_cut = False
                break
            ids.append(token)
            if stop and stop(ids[start:]):
                is_cut = False
                break
        text = self.tokenizer.decode(ids[start:])
        length = find_end(prompt.stop, prompt.language, prompt.text, text)
        return Answer(as_text(text[:length]), is_cut, len(ids) - start)


def _extend(hashes: _Keys, before: _Keys) -> _Keys:
    """The hashes of contexts with one more token before each."""
    with np.errstate(over="ignore"):
        return keyed_hash(hashes * np.uint64(0x9E3779B97F4A7C15) + before + np.uint64(1), 0)


def _keys(hashes: _Keys, tokens: _Keys) -> _Keys:
    keys: _Keys = (hashes >> np.uint64(_TOKEN_BITS) << np.uint64(_TOKEN_BITS)) | tokens
    return keys


def _choose(
    tokens: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], sampling: Sampling, draw: float
) -> int:
    """The most frequent token, or one drawn as often as it occurred, sharpened by the temperature."""
    if sampling.temperature <= 0:
        return int(tokens[counts.argmax()])
    order = np.argsort(-counts, kind="stable")
    chances = (counts[order] / counts.max()) ** (1 / sampling.temperature)
    chances /= chances.sum()
    chances[np.cumsum(chances) - chances >= max(sampling.top_p, 1e-9)] = 0
    heights = np.cumsum(chances)
    return int(tokens[order[int(np.searchsorted(heights, draw * heights[-1], side="right"))]])
