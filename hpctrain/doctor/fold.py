"""From the findings of all ranks to a few lines: the same is said once, what differs names its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpctrain.doctor.finding import Finding, Verdict

_HOSTS_NAMED = 3
_LINES_A_CHECK = 8
_WORST_FIRST = ("wrong", "warning", "skipped", "ok")


@dataclass(frozen=True)
class Report:
    """All that one rank has found."""

    rank: int
    host: str
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Line:
    """One line of the answer."""

    check: str
    where: str
    """Which ranks on which hosts, or `world`."""
    found: str
    verdict: Verdict
    remedy: str


def fold(reports: Sequence[Report], world_size: int) -> list[Line]:
    """Lines in the order in which the checks were made; findings that must agree and do not are wrong."""
    by_check: dict[str, dict[Finding, list[Report]]] = {}
    for report in reports:
        for finding in dict.fromkeys(report.findings):
            by_check.setdefault(finding.check, {}).setdefault(finding, []).append(report)
    lines = []
    for groups in by_check.values():
        each = [_line(finding, who, world_size, len(groups) == 1) for finding, who in groups.items()]
        each.sort(key=lambda line: _WORST_FIRST.index(line.verdict))
        lines += each[:_LINES_A_CHECK]
        if len(each) > _LINES_A_CHECK:
            lines.append(_rest(each[_LINES_A_CHECK:]))
    return lines


def _line(finding: Finding, who: Sequence[Report], world_size: int, agree: bool) -> Line:
    verdict, remedy = finding.verdict, finding.remedy
    if finding.scope == "uniform" and not agree and verdict != "wrong":
        verdict, remedy = "wrong", "make it the same on all nodes: the same modules, environment and files"
    where = "world" if finding.scope == "world" else _place(who, world_size)
    return Line(finding.check, where, finding.found, verdict, remedy)


def _rest(lines: Sequence[Line]) -> Line:
    """Many different lines of one check in one; the first is the worst."""
    worst = lines[0]
    return Line(
        worst.check, "others", f"{len(lines)} lines more, such as: {worst.found}", worst.verdict, worst.remedy
    )


def _place(who: Sequence[Report], world_size: int) -> str:
    if len(who) == world_size > 1:
        return f"all {world_size} ranks"
    hosts = list(dict.fromkeys(report.host for report in who))
    more = f" and {len(hosts) - _HOSTS_NAMED} more" if len(hosts) > _HOSTS_NAMED else ""
    ranks = "ranks" if len(who) > 1 else "rank"
    return f"{ranks} {spans(report.rank for report in who)} on {', '.join(hosts[:_HOSTS_NAMED])}{more}"


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers as ranges: 0, 1, 2, 5 becomes `0-2,5`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
