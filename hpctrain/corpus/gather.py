"""From a unit of a source to its rows: every entry is judged, and what is kept goes to the unit's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from hpctrain.config import fingerprint
from hpctrain.corpus.entry import Entry, Unit
from hpctrain.corpus.examine import Drop, Finding, Rules, examine
from hpctrain.corpus.languages import may_be_kept
from hpctrain.corpus.licences import is_licence_file
from hpctrain.corpus.secrets import scrub
from hpctrain.corpus.surroundings import read_statement
from hpctrain.corpus.units import Row, write_rows

UNIT_FORMAT = 1
OVER_CAP = "over max_bytes"
_CAP_BINS = 1 << 18
_SAMPLES = 4
_SAMPLE_BYTES = 1500
_HEAD_BYTES = 1 << 14  # scrubbed before it is cut, so that no secret is cut in two and missed

Advance = Callable[[float, str], None]


def file_name(unit: Unit, rules: Rules, cap: int) -> str:
    """The name of a unit's file: another where another result could come out."""
    return fingerprint([UNIT_FORMAT, unit.key, unit.fingerprint(), rules.fingerprint, cap]) + ".parquet"


def examine_unit(unit: Unit, path: Path, rules: Rules, cap: int, advance: Callable[[float], None]) -> None:
    """Judge every entry of a unit and publish the rows at `path`; `cap` as from `choose_cap`.

    Raises DataError where the unit is damaged, OSError where the disk is full.
    """
    samples: Counter[str] = Counter()
    with write_rows(path, Row) as writer:
        for entry in unit.entries():
            advance(entry.work_bytes)
            row = _judge(entry, rules, cap)
            if row.sample is not None:
                samples[row.reason] += 1
                row.sample = _shown(row.sample) if samples[row.reason] <= _SAMPLES else None
            writer.add(row)


def _shown(head: bytes) -> bytes:
    """How a dropped file begins, as it may be shown to people."""
    return scrub(head)[0][:_SAMPLE_BYTES]


def _judge(entry: Entry, rules: Rules, cap: int) -> Row:
    row = Row(entry.path, entry.size, detail=entry.detail, declared=entry.licence)
    is_notice = is_licence_file(entry.path)
    row.reason = entry.problem or _unread_reason(entry, rules, is_notice)
    if not row.reason and not is_notice and path_hash(entry.path) > cap:
        row.reason = OVER_CAP
    if row.reason:
        return row
    try:
        content = entry.read()
    except OSError:
        row.reason = "unreadable"
        return row
    if is_notice:
        row.reason, row.licence = "language", read_statement(entry.path, content, rules.licences)
        return row
    _fill(row, examine(entry.path, content, rules), content)
    return row


def _fill(row: Row, verdict: Finding | Drop, content: bytes) -> None:
    if isinstance(verdict, Drop):
        row.reason, row.detail, row.sample = verdict.reason, verdict.detail, content[:_HEAD_BYTES]
    else:
        row.language, row.licence, row.sha256 = verdict.language, verdict.licence, verdict.sha256
        row.content, row.size = content, len(content)


def _unread_reason(entry: Entry, rules: Rules, is_notice: bool) -> str:
    """The drop reason of what need not be read, or ""."""
    if not (is_notice or may_be_kept(entry.path) or rules.companion(entry.path)):
        return "language"
    return "too large" if entry.size > rules.max_bytes else ""


def path_hash(path: str) -> int:
    """A number that decides whether a file is in the sample of a bounded source."""
    return xxhash.xxh3_64_intdigest(path.encode()) >> 46


NO_CAP = _CAP_BINS
"""The cap of a source without bound."""


def weigh(entries: Iterable[Entry], rules: Rules, advance: Callable[[float], None]) -> npt.NDArray[np.int64]:
    """Bytes of what could be kept by name and size, by `path_hash`; nothing is read."""
    weights = np.zeros(_CAP_BINS, np.int64)
    for entry in entries:
        advance(entry.work_bytes)
        if not entry.problem and not is_licence_file(entry.path) and not _unread_reason(entry, rules, False):
            weights[path_hash(entry.path)] += entry.size
    return weights


def choose_cap(weights: npt.NDArray[np.int64], max_bytes: int) -> int:
    """The largest `path_hash` that may be read so that a source stays within its bound; -1 if none may."""
    return int(np.searchsorted(np.cumsum(weights), max_bytes, side="right")) - 1
