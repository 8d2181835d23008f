"""The text a tokenizer is trained on: bounded, balanced over languages, the same for equal documents."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import xxhash

from hpctrain.tokenizer.runs import SPACE_SIGN

_HELD_OUT_ONE_IN = 64
_HELD_OUT_BYTES = 1 << 20
_UNKNOWN_SIGN = "\u2585"  # SentencePiece would skip the whole text that holds it


@dataclass(frozen=True)
class Sample:
    """What was drawn, by language."""

    training: dict[str, list[bytes]]
    """UTF-8 texts to train on. What a model cannot learn (invalid UTF-8, U+2581, U+2585) is left out."""
    held_out: dict[str, list[bytes]]
    """Whole documents to measure on, at most 1 MiB or one document a language; never trained on."""


def draw_sample(
    documents: Iterable[tuple[str, bytes]],
    sample_bytes: int,
    balance: float | Mapping[str, float],
    seed: int,
    sizes: Mapping[str, int] | None = None,
) -> Sample:
    """Draw at most `sample_bytes` to train on from (language, content) pairs, which are read once.

    `balance` is that of `language_shares`. Documents are drawn by a seeded hash of their content, so their
    order does not matter; the last of a language is cut at its share, and one in 64 is held out. `sizes` are
    the bytes of each language among the documents. With them, about `sample_bytes` are held in memory;
    without, as much of each language, since they are only known at the end.
    """
    limits = None if sizes is None else language_shares(sizes, sample_bytes, balance)
    training: dict[str, _Reservoir] = {}
    held_out: dict[str, _Reservoir] = {}
    for language, content in documents:
        key = xxhash.xxh3_64_intdigest(content, seed)
        if key % _HELD_OUT_ONE_IN == 0:
            held_out.setdefault(language, _Reservoir(_HELD_OUT_BYTES)).add(key, content)
        else:
            limit = sample_bytes if limits is None else limits.get(language, 0)
            training.setdefault(language, _Reservoir(limit)).add(key, content)
    seen = {name: reservoir.seen_bytes for name, reservoir in training.items()}
    shares = language_shares(seen, sample_bytes, balance) if limits is None else limits
    return Sample(
        training={
            language: _texts(training.pop(language).contents(), share)  # not twice in memory at once
            for language, share in shares.items()
            if language in training
        },
        held_out={language: held_out[language].contents() for language in sorted(held_out)},
    )


def language_shares(
    sizes: Mapping[str, int], budget: int, balance: float | Mapping[str, float]
) -> dict[str, int]:
    """Split `budget` bytes over languages; no share exceeds its language's size. Sorted by name.

    `balance` is an exponent, and shares go with size ** exponent: 1 keeps the sizes' own balance, 0 gives all
    the same. Or it is the weight of each language; one without a weight gets nothing. What a small language
    cannot fill goes to the others.
    """
    shares: dict[str, int] = {}
    weights = (
        {name: balance.get(name, 0.0) for name in sizes}
        if isinstance(balance, Mapping)
        else {name: float(size) ** balance for name, size in sizes.items()}
    )
    unfilled = {name: size for name, size in sizes.items() if size > 0 and weights[name] > 0}
    while unfilled:
        left = max(0, budget - sum(shares.values()))
        total = sum(weights[name] for name in unfilled)
        wanted = {name: int(left * (weights[name] / total)) for name in unfilled}
        filled = {name: size for name, size in unfilled.items() if size <= wanted[name]}
        shares |= filled or wanted
        unfilled = {name: size for name, size in unfilled.items() if filled and name not in filled}
    return dict(sorted(shares.items()))


class _Reservoir:
    """Keeps the contents of smallest key, up to a number of bytes (and the one that goes over it)."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.seen_bytes = self.kept_bytes = 0
        self.heap: list[tuple[int, bytes]] = []  # (negated key, content): the largest key on top

    def add(self, key: int, content: bytes) -> None:
        self.seen_bytes += len(content)
        self.kept_bytes += len(content)
        heapq.heappush(self.heap, (-key, content))
        while self.heap and self.kept_bytes - len(self.heap[0][1]) >= self.limit_bytes:
            self.kept_bytes -= len(heapq.heappop(self.heap)[1])

    def contents(self) -> list[bytes]:
        """By ascending key."""
        return [content for _, content in sorted(self.heap, reverse=True)]


def _texts(contents: Iterable[bytes], limit_bytes: int) -> list[bytes]:
    texts = []
    for content in contents:
        if limit_bytes <= 0:
            break
        text = content[:limit_bytes].decode("utf-8", "ignore")
        texts.append(text.replace(SPACE_SIGN, "").replace(_UNKNOWN_SIGN, "").encode())
        limit_bytes -= len(content)
    return texts
