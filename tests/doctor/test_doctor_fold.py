"""Findings of many ranks in few lines: nothing is lost, what differs is named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpctrain.doctor.finding import Finding, amount, brief
from hpctrain.doctor.fold import Line, Report, fold, spans


def report(rank: int, *findings: Finding, host: str | None = None) -> Report:
    return Report(rank, host or f"n{rank // 2 + 1}", findings)


@given(st.sets(st.integers(0, 200)))
def test_spans_name_each_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, spans(numbers).split(",")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)


def test_what_is_the_same_is_one_line() -> None:
    same = Finding("stack", "8 MB")
    assert fold([report(rank, same) for rank in range(4)], 4) == [
        Line("stack", "all 4 ranks", "8 MB", "ok", "")
    ]


def test_what_differs_names_ranks_and_hosts() -> None:
    reports = [report(rank, Finding("stack", "1 MB" if rank > 1 else "8 MB")) for rank in range(4)]
    assert [(line.where, line.found) for line in fold(reports, 4)] == [
        ("ranks 0-1 on n1", "8 MB"),
        ("ranks 2-3 on n2", "1 MB"),
    ]


def test_a_rank_that_reports_nothing_is_not_among_all() -> None:
    assert fold([report(0, Finding("stack", "8 MB"))], 2)[0].where == "rank 0 on n1"


def test_versions_that_differ_are_wrong_wherever_they_are() -> None:
    reports = [report(rank, Finding("torch", f"2.{rank // 2}", scope="uniform")) for rank in range(4)]
    lines = fold(reports, 4)
    assert [line.verdict for line in lines] == ["wrong", "wrong"]
    assert "same" in lines[0].remedy
    assert fold(reports[:2], 2)[0].verdict == "ok"


def test_one_speaks_for_the_world() -> None:
    assert fold([report(0, Finding("clocks", "agree", scope="world")), report(1)], 2)[0].where == "world"


@given(st.lists(st.sampled_from(["ok", "warning", "wrong", "skipped"]), min_size=1, max_size=40))
def test_many_different_lines_are_few_and_the_worst_is_kept(verdicts: list[str]) -> None:
    reports = [
        report(rank, Finding("disk", f"state of {rank}", verdict, "do"))  # type: ignore[arg-type]
        for rank, verdict in enumerate(verdicts)
    ]
    lines = fold(reports, len(verdicts))
    assert len(lines) <= 9
    assert ("wrong" in verdicts) == any(line.verdict == "wrong" for line in lines)
    hidden = [int(line.found.split()[0]) for line in lines if line.where == "others"]
    assert len(lines) - len(hidden) + sum(hidden) == len(verdicts)


@given(st.floats(0, 1e15))
def test_amounts_and_times_keep_their_size(value: float) -> None:
    number, unit = amount(value).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(float(number) * factor - value) <= 0.051 * factor + 0.5 * (unit == "B")
    number, unit = brief(value).split()
    factor = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    assert abs(float(number) * factor - value) <= 0.51 * factor
