"""Exact duplicates by partitions: the first in corpus order wins, however many partitions and ranks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.columns import ACCEPTED, Columns
from hpctrain.corpus.dedup import drop_exact, exact_pairs
from hpctrain.parallel.crew import ALONE


def _columns(place: str, digests: list[tuple[int, int]], accepted: list[bool]) -> Columns:
    columns = Columns(Path(place), len(digests))
    columns.create()
    columns.write("digest", 0, np.array(digests, np.uint64).reshape(-1, 2))
    columns.write("accepted", 0, np.array(accepted, np.uint8) * ACCEPTED)
    return columns


_DIGEST = st.tuples(st.sampled_from([0, 1, 2**33, 2**63, 2**64 - 1]), st.integers(0, 3))


@given(st.lists(st.tuples(_DIGEST, st.booleans()), max_size=40), st.integers(1, 7))
def test_the_first_accepted_of_each_content_stays(
    files: list[tuple[tuple[int, int], bool]], partitions: int
) -> None:
    first: dict[tuple[int, int], int] = {}
    expected = {}
    for number, (digest, accepted) in enumerate(files):
        if accepted and first.setdefault(digest, number) != number:
            expected[number] = first[digest]
    with TemporaryDirectory() as place:
        columns = _columns(place, [digest for digest, _ in files], [accepted for _, accepted in files])
        found = [exact_pairs(columns, part, partitions) for part in range(partitions)]
        assert dict(np.concatenate(found).tolist()) == expected
        drop_exact(columns, ALONE)
        winners = {i: int(w) - 1 for i, w in enumerate(columns.map("winner")) if w}
        assert winners == expected
        kept = [i for i, (_, accepted) in enumerate(files) if accepted and i not in expected]
        assert np.flatnonzero(columns.kept()).tolist() == kept


@given(st.integers(0, 50_000), st.integers(1, 9))
def test_every_row_has_one_owner(count: int, size: int) -> None:
    columns = Columns(Path("nowhere"), count)
    rows = np.arange(count, dtype=np.int64)
    owners = columns.owners(rows, size)
    for rank in range(size):
        assert np.array_equal(rows[columns.owned(rank, size)], rows[owners == rank])
