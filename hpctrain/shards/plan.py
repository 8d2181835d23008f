"""Which documents go to which shard file, from their numbers of tokens, and the writing of one such file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hpctrain.shards.encode import Key, UnitFile
from hpctrain.shards.layout import SPAN_DTYPE, ShardTables, shard_name, write_shard

Counts = dict[str, dict[str, Any]]
"""By split, then language."""


class Piece(NamedTuple):
    """Documents `first` to `last` - 1 of a shard's split and language in one encoded unit."""

    unit: int
    first: int
    last: int


@dataclass
class ShardPlan:
    """One shard file: where its documents are."""

    key: Key
    number: int
    pieces: list[Piece] = field(default_factory=list)
    tokens: int = 0

    @property
    def name(self) -> str:
        """Path relative to the shards directory."""
        return shard_name(*self.key, self.number)


@dataclass
class Plan:
    """All shard files, and what they hold."""

    shards: list[ShardPlan]
    counts: dict[str, Counts]
    """documents, bytes, tokens, spans; and `sources`, tokens by source."""
    bases: list[int]
    """Place in the corpus of each unit's first document."""


def plan_shards(units: Sequence[Path], shard_tokens: int, on_unit: Callable[[], None]) -> Plan:
    """Cut the encoded units into shards: one ends before the document that would take it over `shard_tokens`.

    Reads the units' tables one after the other; the plan grows with the number of units, not of documents.
    """
    series: dict[Key, list[ShardPlan]] = {}
    counts: dict[str, Counts] = {name: {} for name in ("documents", "bytes", "tokens", "spans", "sources")}
    bases = [0]
    for number, path in enumerate(units):
        with UnitFile(path) as unit:
            documents = 0
            for key in unit.parts():
                lengths = unit.column(key, "lengths").astype(np.int64)
                _cut(series.setdefault(key, [ShardPlan(key, 0)]), number, lengths, shard_tokens)
                _count(counts, key, unit, lengths)
                documents += len(lengths)
        bases.append(bases[-1] + documents)
        on_unit()
    return Plan([shard for key in sorted(series) for shard in series[key]], counts, bases)


def _cut(shards: list[ShardPlan], unit: int, lengths: npt.NDArray[np.int64], shard_tokens: int) -> None:
    """Append documents to the last shard of a series, and to new ones where it is full."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        shard, before = shards[-1], int(ends[first - 1]) if first else 0
        room = before + shard_tokens - shard.tokens
        last = int(np.searchsorted(ends, room, side="right"))
        if not shard.tokens:
            last = max(last, first + 1)  # a document that is larger than a shard has one to itself
        if last > first:
            shard.pieces.append(Piece(unit, first, last))
            shard.tokens += int(ends[last - 1]) - before
        if last < len(lengths):
            shards.append(ShardPlan(shard.key, shard.number + 1))
        first = last


def _count(counts: dict[str, Counts], key: Key, unit: UnitFile, lengths: npt.NDArray[np.int64]) -> None:
    split, language = key
    amounts = {
        "documents": len(lengths),
        "bytes": int(unit.column(key, "bytes")),
        "tokens": int(lengths.sum()),
        "spans": len(unit.column(key, "spans")),
    }
    for name, amount in amounts.items():
        by_language = counts[name].setdefault(split, {})
        by_language[language] = by_language.get(language, 0) + amount
    names, places = np.unique(unit.column(key, "sources"), return_inverse=True)
    by_source = counts["sources"].setdefault(split, {}).setdefault(language, {})
    for name, tokens in zip(names.tolist(), np.bincount(places, lengths).tolist(), strict=True):
        by_source[name] = by_source.get(name, 0) + int(tokens)


def assemble_shard(
    path: Path,
    plan: ShardPlan,
    units: Sequence[Path],
    bases: Sequence[int],
    dtype: np.dtype[Any],
    spans: bool,
) -> None:
    """Write the shard file of a plan from the encoded units; holds one unit's tokens and its own tables."""
    lengths, index, sources, found = [], [], [], [np.empty(0, SPAN_DTYPE)]
    start = 0
    for piece in plan.pieces:
        with UnitFile(units[piece.unit]) as unit:
            columns = {name: unit.column(plan.key, name) for name in ("lengths", "numbers", "sources")}
            rows, begins, ends = _extent(columns["lengths"], piece)
            if spans:
                found.append(_spans_of(unit.column(plan.key, "spans"), begins, ends, start))
        lengths.append(columns["lengths"][rows])
        index.append(columns["numbers"][rows].astype(np.uint64) + np.uint64(bases[piece.unit]))
        sources.append(columns["sources"][rows])
        start += ends - begins
    starts, names = _runs(np.concatenate(sources))
    tables = ShardTables(
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.uint64)]).astype(np.uint64),
        index=np.concatenate(index),
        source_starts=starts,
        source_names=names,
        spans=np.concatenate(found) if spans else None,
    )
    write_shard(path, dtype, _tokens(plan, units), tables)


def _extent(lengths: npt.NDArray[np.uint32], piece: Piece) -> tuple[slice, int, int]:
    """The rows of a piece, and where its tokens begin and end in its unit."""
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return slice(piece.first, piece.last), int(ends[piece.first]), int(ends[piece.last])


def _spans_of(spans: npt.NDArray[Any], begins: int, ends: int, start: int) -> npt.NDArray[Any]:
    """The spans in a range of a unit's tokens, moved to where the range lies in the shard."""
    inside = spans[(spans["start"] >= begins) & (spans["start"] < ends)]
    for name in ("start", "stop"):
        inside[name] += np.uint64(start)
        inside[name] -= np.uint64(begins)
    return inside


def _runs(sources: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.uint64], list[str]]:
    """Where each run of equal names begins, with the end, and the names."""
    changes = np.flatnonzero(sources[1:] != sources[:-1]) + 1
    starts = np.concatenate([[0], changes]).astype(np.int64)
    return np.append(starts, len(sources)).astype(np.uint64), sources[starts].tolist()


def _tokens(plan: ShardPlan, units: Sequence[Path]) -> Iterator[npt.NDArray[Any]]:
    for piece in plan.pieces:
        with UnitFile(units[piece.unit]) as unit:
            _, begins, ends = _extent(unit.column(plan.key, "lengths"), piece)
            yield unit.column(plan.key, "tokens")[begins:ends]
