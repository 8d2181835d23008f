"""The text a tokenizer is trained on: bounded, balanced over languages, the same for equal documents."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import xxhash

from hpctrain.tokenizer.codec import SPACE_SIGN

_HELD_OUT_ONE_IN = 64
_HELD_OUT_BYTES = 1 << 20


@dataclass(frozen=True)
class Sample:
    """What was drawn, by language."""

    training: dict[str, list[str]]
    """Texts to train on. What a SentencePiece model cannot learn (invalid UTF-8, U+2581) is left out."""
    held_out: dict[str, list[bytes]]
    """Whole documents to measure on, at most 1 MiB or one document a language; never trained on."""


def draw_sample(
    documents: Iterable[tuple[str, bytes]], sample_bytes: int, exponent: float, seed: int
) -> Sample:
    """Draw at most `sample_bytes` to train on from (language, content) pairs.

    A language's share is proportional to its bytes raised to `exponent`: 1 keeps the corpus's own balance,
    0 gives all the same, and what a small language cannot fill goes to the others. Documents are drawn by a
    seeded hash of their content, so their order does not matter; the last of a language is cut at its share,
    and one in 64 is held out. One pass; keeps at most about `sample_bytes` of each language in memory.
    """
    training: dict[str, _Reservoir] = {}
    held_out: dict[str, _Reservoir] = {}
    for language, content in documents:
        key = xxhash.xxh3_64_intdigest(content, seed)
        group, limit = (training, sample_bytes) if key % _HELD_OUT_ONE_IN else (held_out, _HELD_OUT_BYTES)
        group.setdefault(language, _Reservoir(limit)).add(key, content)
    shares = language_shares({name: r.seen_bytes for name, r in training.items()}, sample_bytes, exponent)
    return Sample(
        training={
            language: _texts(training[language].contents(), share) for language, share in shares.items()
        },
        held_out={language: held_out[language].contents() for language in sorted(held_out)},
    )


def language_shares(sizes: Mapping[str, int], budget: int, exponent: float) -> dict[str, int]:
    """Split `budget` bytes in proportion to size ** exponent; no share exceeds its size. Sorted by name."""
    shares: dict[str, int] = {}
    unfilled = {name: size for name, size in sizes.items() if size > 0}
    while unfilled:
        left = max(0, budget - sum(shares.values()))
        weights = {name: float(size) ** exponent for name, size in unfilled.items()}
        wanted = {name: int(left * weight / sum(weights.values())) for name, weight in weights.items()}
        filled = {name: size for name, size in unfilled.items() if size <= wanted[name]}
        shares |= filled or wanted
        unfilled = {name: size for name, size in unfilled.items() if filled and name not in filled}
    return dict(sorted(shares.items()))


class _Reservoir:
    """Keeps the contents of smallest key, up to a number of bytes (and at least one)."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.seen_bytes = self.kept_bytes = 0
        self.heap: list[tuple[int, bytes]] = []  # (negated key, content): the largest key on top

    def add(self, key: int, content: bytes) -> None:
        self.seen_bytes += len(content)
        self.kept_bytes += len(content)
        heapq.heappush(self.heap, (-key, content))
        while self.kept_bytes - len(self.heap[0][1]) >= self.limit_bytes:
            self.kept_bytes -= len(heapq.heappop(self.heap)[1])

    def contents(self) -> list[bytes]:
        """By ascending key."""
        return [content for _, content in sorted(self.heap, reverse=True)]


def _texts(contents: Iterable[bytes], limit_bytes: int) -> list[str]:
    texts = []
    for content in contents:
        if limit_bytes <= 0:
            break
        texts.append(content[:limit_bytes].decode("utf-8", "ignore").replace(SPACE_SIGN, ""))
        limit_bytes -= len(content)
    return texts
