"""Run one check: whatever it does, it leaves findings and takes no longer than it may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hpctrain.doctor.finding import Finding, Scope, reason_of
from hpctrain.doctor.subject import Subject


@dataclass(frozen=True)
class Check:
    """A named look at something; it yields what it finds."""

    name: str
    look: Callable[[Subject], Iterator[Finding]]
    scope: Scope = "rank"
    """For whom its findings hold; that it failed or hung is said of the rank alone."""
    share: float = 1 / 3
    """The longest it may take, as a part of the time for all."""
    if_hung: str = "something that it uses does not answer; more time: --seconds"
    """What to do if it takes longer."""


def examine(check: Check, subject: Subject, seconds: float) -> tuple[list[Finding], bool]:
    """What a check finds within `seconds`, and whether it ended.

    A check that fails or hangs is itself a finding. A hung one is left behind in its thread: nothing can end
    a system call, but the others go on and the process may leave.
    """
    findings: list[Finding] = []

    def look() -> None:
        try:
            for finding in check.look(subject):
                findings.append(replace(finding, scope=check.scope))
        except BaseException as reason:  # noqa: BLE001 - it is told, and must not end the other checks
            findings.append(_failed(check, reason))

    thread = threading.Thread(target=look, name=f"check {check.name}", daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if not thread.is_alive():
        return findings, True
    hung = f"did not end within {seconds:.0f} s"
    return [*findings, Finding(check.name, hung, "wrong", check.if_hung)], False


def _failed(check: Check, reason: BaseException) -> Finding:
    text = f"the check failed: {type(reason).__name__}: {reason_of(reason)}"
    return Finding(check.name, text, "wrong", "this could not be examined, so nothing is known of it")
