"""What is asked of documents only, not of every file: benchmarks, secrets, programming models, signature.

These cost more than all the rules that decide which files are kept. So they come after licences and exact
duplicates are settled. Results are kept beside the examined units, file by file.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpctrain.config import fingerprint
from hpctrain.corpus.contamination import Benchmarks
from hpctrain.corpus.examine import room_code
from hpctrain.corpus.models import programming_models
from hpctrain.corpus.nearby import DuplicatesConfig, Signer
from hpctrain.corpus.secrets import SecretsConfig, scrub
from hpctrain.corpus.units import RowFile, write_rows

Rows = npt.NDArray[np.int64]


@dataclass(slots=True)
class Analysis:
    """What is known of one document of a unit."""

    row: int
    """Its row in the unit."""
    language: str
    """As which it was analysed."""
    contamination: str
    """The benchmark that it repeats, or ""."""
    models: str
    """Programming models, sorted, with commas."""
    secrets: str
    """What was replaced, as `kind=number` with commas."""
    size: int
    """Bytes of what goes into the corpus."""
    content: bytes | None
    """What goes into the corpus, where it is not the content that was found."""
    signature: bytes | None
    """For the search for near-duplicates."""


_NAMES = tuple(field.name for field in fields(Analysis))


class Analyst:
    """Analyses documents by one config."""

    def __init__(self, secrets: SecretsConfig, duplicates: DuplicatesConfig, benchmarks: Benchmarks) -> None:
        self.secrets, self.duplicates, self.benchmarks = secrets, duplicates, benchmarks
        self._signer = Signer(duplicates)
        records = [record.model_dump(mode="json") for record in (secrets, duplicates)]
        self.fingerprint = fingerprint([records, benchmarks.fingerprint, room_code()])

    def analyse(self, row: int, content: bytes, language: str) -> Analysis:
        """Analyse one document."""
        signature = self._signer.signature_of(content, language).tobytes() if self.duplicates.near else None
        scrubbed, replaced = scrub(content, self.secrets)
        return Analysis(
            row,
            language,
            str(self.benchmarks.find(content, language) or ""),
            ",".join(sorted(programming_models(content, language))),
            ",".join(f"{kind}={number}" for kind, number in sorted(replaced.items())),
            len(scrubbed),
            scrubbed if replaced else None,
            signature,
        )

    def path_of(self, unit: Path) -> Path:
        """Where the analysis of the documents of an examined unit lies."""
        return unit.with_name(f"{unit.stem}.{self.fingerprint[:16]}.analysis")


def analyse_unit(
    analyst: Analyst, unit: RowFile, rows: Rows, languages: Sequence[str], advance: Callable[[float], None]
) -> int:
    """See to it that some rows of a unit, given in order, are analysed; returns how many were not yet.

    What was analysed before stays, also of rows that are no documents in this build. `advance` hears of the
    bytes of each document.
    """
    path = analyst.path_of(unit.path)
    wanted = dict(zip(rows.tolist(), languages, strict=True))
    with ExitStack() as stack:
        before = stack.enter_context(RowFile(path)) if path.exists() else None
        known = dict(before.tuples("row", "language")) if before else {}
        missing = [row for row, language in wanted.items() if known.get(row) != language]
        if not missing and before:
            return 0
        old = (Analysis(*values) for values in (before.tuples(*_NAMES) if before else ()))
        stays = (record for record in old if wanted.get(record.row, record.language) == record.language)
        contents = (row["content"] for row in unit.read(np.array(missing, np.int64), ["content"]))
        with write_rows(path, Analysis) as writer:
            new = (
                analyst.analyse(row, content, wanted[row])
                for row, content in zip(missing, _reported(contents, advance), strict=True)
            )
            for record in heapq.merge(stays, new, key=lambda record: record.row):
                writer.add(record)
    return len(missing)


def _reported(contents: Iterator[bytes], advance: Callable[[float], None]) -> Iterator[bytes]:
    for content in contents:
        advance(len(content))
        yield content


def places_of(analysed: RowFile, rows: Rows) -> Rows:
    """The places at which some rows of a unit stand in its analysis."""
    return np.searchsorted(analysed.columns("row")["row"].to_numpy(), rows)
