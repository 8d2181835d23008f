"""Near-duplicates: the answer of comparing all with all, from any number of ranks, in bounded memory."""

import math
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.minhash import NOT_COMPARED, Hashes, Sketcher, choose_bands, estimate, jaccard, mix
from hpctrain.corpus.nearby import DuplicatesConfig, Signer, find_near_duplicates
from hpctrain.errors import DataError
from hpctrain.parallel.crew import ALONE, Crew

CONFIG = DuplicatesConfig(threshold=0.6, permutations=64)


class _Threads:
    """What `Crew` needs of a communicator, between threads of this process."""

    def __init__(self, rank: int, size: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier

    def allgather(self, value: Any) -> list[Any]:
        self._board[self.rank] = value
        self._barrier.wait(timeout=60)
        found = list(self._board)
        self._barrier.wait(timeout=60)
        return found


def on_ranks(size: int, work: Callable[[Crew], Any]) -> list[Any]:
    """What each of `size` ranks answers, or raises."""
    board, barrier = [None] * size, threading.Barrier(size)

    def run(rank: int) -> Any:
        try:
            return work(Crew(_Threads(rank, size, board, barrier)))
        except DataError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def corpus(seed: int, groups: int) -> list[Hashes]:
    """Groups of more or less edited copies in a random order, some too short to be compared."""
    rng = np.random.default_rng(seed)
    documents = []
    for group in range(groups):
        base = mix(np.arange(60, dtype=np.uint64) + np.uint64(group << 20))
        for _ in range(rng.integers(1, 6)):
            edits = rng.choice(60, rng.integers(0, 30), replace=False)
            copy = base.copy()
            copy[edits] = mix(rng.integers(1 << 40, 1 << 60, len(edits), dtype=np.uint64))
            documents.append(np.unique(copy))
    documents += [np.empty(0, np.uint64)] * int(rng.integers(0, 3))
    return [documents[place] for place in rng.permutation(len(documents))]


def signatures_of(documents: Sequence[Hashes], permutations: int = 64) -> npt.NDArray[np.uint32]:
    sketcher = Sketcher(permutations)
    return np.array([sketcher.signature(shingles) for shingles in documents])


def by_definition(documents: Sequence[Hashes], config: DuplicatesConfig) -> dict[int, set[int]]:
    """Who is dropped, with those that may be named for it: every pair compared, in corpus order."""
    signatures = signatures_of(documents, config.permutations)
    bands, rows = choose_bands(config.threshold, config.permutations, config.recall)
    least = config.threshold - 3 * math.sqrt(config.threshold * (1 - config.threshold) / config.permutations)
    dropped: dict[int, set[int]] = {}
    for later, one in enumerate(documents):
        close = set()
        for earlier in set(range(later)) - set(dropped):
            equal = (signatures[later] == signatures[earlier])[: bands * rows].reshape(bands, rows)
            near = estimate(signatures[later], signatures[earlier]) >= least
            if equal.all(axis=1).any() and near and jaccard(one, documents[earlier]) >= config.threshold:
                close.add(earlier)
        if close and (signatures[later] != NOT_COMPARED).all():
            dropped[later] = close
    return dropped


@settings(max_examples=25)
@given(st.integers(0, 1 << 30), st.integers(1, 40), st.integers(1, 5), st.sampled_from([1, 7, 1 << 20]))
def test_the_answer_is_that_of_comparing_all(seed: int, groups: int, ranks: int, table_rows: int) -> None:
    documents = corpus(seed, groups)
    signatures = np.asfortranarray(signatures_of(documents))
    answers = on_ranks(
        ranks,
        lambda crew: find_near_duplicates(signatures, documents.__getitem__, CONFIG, crew, table_rows),
    )
    alone = find_near_duplicates(signatures, documents.__getitem__, CONFIG, ALONE)
    assert all(answer.tobytes() == alone.tobytes() for answer in answers)
    expected = by_definition(documents, CONFIG)
    assert alone["dropped"].tolist() == sorted(expected)
    for dropped, kept, similarity in alone.tolist():
        assert kept in expected[dropped]
        assert similarity == jaccard(documents[dropped], documents[kept])


def test_a_large_group_is_not_compared_with_itself() -> None:
    base = mix(np.arange(2000, dtype=np.uint64))
    documents = [np.sort(np.delete(base, place)) for place in range(1000)]
    reads: list[int] = []

    def read(place: int) -> Hashes:
        reads.append(place)
        return documents[place]

    answer = find_near_duplicates(signatures_of(documents), read, CONFIG, ALONE)
    assert answer["dropped"].tolist() == list(range(1, 1000))
    assert set(answer["kept"].tolist()) == {0}
    assert len(reads) < 4000


def test_members_of_a_bucket_are_compared_past_its_first() -> None:
    bands, rows = choose_bands(CONFIG.threshold, 64, CONFIG.recall)
    signatures = np.arange(3 * 64, dtype=np.uint32).reshape(3, 64)
    signatures[:, :rows] = 7  # the only band that they share
    signatures[2] = signatures[1]
    signatures[2, rows : bands * rows : rows] += 1000
    documents = [np.arange(start, 100, dtype=np.uint64) for start in (90, 0, 1)]
    answer = find_near_duplicates(signatures, documents.__getitem__, CONFIG, ALONE)
    assert answer[["dropped", "kept"]].tolist() == [(2, 1)]


def test_who_resembled_a_dropped_one_only_stays() -> None:
    steps = [mix(np.arange(start, start + 1000, dtype=np.uint64)) for start in (0, 200, 400)]
    documents = [np.sort(one) for one in steps]  # neighbours 2/3 alike, the ends 3/7
    answer = find_near_duplicates(signatures_of(documents), documents.__getitem__, CONFIG, ALONE)
    assert answer[["dropped", "kept"]].tolist() == [(1, 0)]


def test_without_near_nothing_is_compared() -> None:
    signatures = np.ones((5, 64), np.uint32)
    config = DuplicatesConfig(near=False)
    assert not len(find_near_duplicates(signatures, _refuse, config, ALONE))


def test_no_documents_no_duplicates() -> None:
    assert not len(find_near_duplicates(np.empty((0, 64), np.uint32), _refuse, CONFIG, ALONE))


def _refuse(place: int) -> Hashes:
    raise DataError(f"document {place} cannot be read")


def test_an_error_of_one_rank_is_raised_on_all() -> None:
    documents = [np.arange(100, dtype=np.uint64)] * 8
    signatures = signatures_of(documents)
    found = on_ranks(
        3,
        lambda crew: find_near_duplicates(
            signatures, _refuse if crew.rank == 1 else documents.__getitem__, CONFIG, crew
        ),
    )
    assert all(isinstance(error, DataError) and "cannot be read" in str(error) for error in found)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """But for 2 bytes a document, and what the docstring of the module says of pairs."""

    def peak(documents: int) -> int:
        rng = np.random.default_rng(1)
        path = tmp_path / f"{documents}"
        signatures = np.memmap(path, np.uint32, "w+", shape=(documents, 16))
        for start in range(0, documents, 1 << 14):
            signatures[start : start + (1 << 14)] = rng.integers(0, 1 << 31, (1 << 14, 16))
        signatures[::1000] = signatures[0]
        shingles = np.arange(50, dtype=np.uint64)
        config = DuplicatesConfig(permutations=16)
        tracemalloc.start()
        try:
            answer = find_near_duplicates(signatures, lambda place: shingles, config, ALONE, 1 << 14)
            used = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(answer) == documents // 1000
        return used

    small, large = 1 << 16, 1 << 18
    growth = peak(large) - peak(small)
    assert growth < 3 * (large - small) + 500 * (large - small) // 1000


_AXPY = """\
      SUBROUTINE {p}AXPY(N,{p}A,{p}X,INCX,{p}Y,INCY)
*  -- A comment that every copy words in its own way: {p} --
      {t} {p}A
      INTEGER INCX,INCY,N
      {t} {p}X(*),{p}Y(*)
      INTEGER I,IX,IY
      IF (N.LE.0) RETURN
      IF ({p}A.EQ.0.0{e}0) RETURN
      IX = 1
      IY = 1
      IF (INCX.LT.0) IX = (-N+1)*INCX + 1
      IF (INCY.LT.0) IY = (-N+1)*INCY + 1
      DO I = 1,N
         {p}Y(IY) = {p}Y(IY) +
     $              {p}A*{p}X(IX)
         IX = IX + INCX
         IY = IY + INCY
      END DO
      RETURN
      END
"""
_FREE_AXPY = """\
! by another hand, for another machine
subroutine daxpy(n, da, dx, incx, dy, incy)
  real(kind=8) :: da
  integer :: incx, incy, n
  real(kind=8) :: dx(*), dy(*)
  integer :: i, ix, iy   ! indices
  if (n <= 0) return
  if (da == 0.0_8) return
  ix = 1
  iy = 1
  if (incx < 0) ix = (-n + 1)*incx + 1
  if (incy < 0) iy = (-n + 1)*incy + 1
  do i = 1, n
    dy(iy) = dy(iy) + &
      da*dx(ix)
    ix = ix + incx
    iy = iy + incy
  enddo
  return
end
"""


def test_copies_in_other_precision_and_form_are_found() -> None:
    kinds = {
        "S": ("REAL", "E"),
        "D": ("DOUBLE PRECISION", "D"),
        "C": ("COMPLEX", "E"),
        "Z": ("COMPLEX*16", "D"),
    }
    files = [(_AXPY.format(p=p, t=t, e=e), "fortran-fixed") for p, (t, e) in kinds.items()]
    files += [(_FREE_AXPY, "fortran-free"), (_AXPY.replace("IX", "JUMP").replace("+", "*"), "fortran-fixed")]
    signer = Signer(DuplicatesConfig())
    documents = [signer.shingles_of(text.encode(), language) for text, language in files]
    signatures = np.array([signer.signature_of(text.encode(), language) for text, language in files])
    answer = find_near_duplicates(signatures, documents.__getitem__, signer.config, ALONE)
    assert answer.tolist() == [(place, 0, 1.0) for place in (1, 2, 3, 4)]


def test_what_is_too_short_has_no_shingles() -> None:
    signer = Signer(DuplicatesConfig(min_shingles=4))
    assert not len(signer.shingles_of(b"int a; int b;", "c"))
    assert (signer.signature_of(b"int a; int b;", "c") == NOT_COMPARED).all()
    assert len(signer.shingles_of(b"int a; int b; int c;", "c")) == 5


@pytest.mark.parametrize("threshold", [0, 1, 1.5])
def test_thresholds_that_mean_nothing_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        DuplicatesConfig(threshold=threshold)
