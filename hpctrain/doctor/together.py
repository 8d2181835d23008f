"""The ranks as a whole: do they meet, have they cores enough, do their clocks agree."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

from hpctrain.doctor.exchange import Exchange
from hpctrain.doctor.finding import Finding, brief, count
from hpctrain.doctor.subject import Neighbour, Subject, oneself
from hpctrain.errors import LaunchError
from hpctrain.parallel.meeting import meet
from hpctrain.parallel.world import discover_world

_PINGS = 8
MEETING_SHARE = 0.5
"""The longest wait for the others, as a part of the time for all."""
# Logs of several nodes can be put in order to about a step; the job's end is compared with rank 0's clock.
_WORST_SKEW_SECONDS = 1.0
_POOR_SKEW_SECONDS = 0.1  # a node that NTP or PTP looks after is within a few milliseconds


def meeting(subject: Subject) -> Iterator[Finding]:
    """Find this rank's place and the others, over the same way that training takes."""
    start = time.monotonic()
    try:
        world = discover_world(subject.environment)
        # Until they have met, it is alone, but in its place on the node.
        subject.exchange.meeting.world = replace(world, rank=0, size=1)
        met = subject.stack.enter_context(meet(world, 0.9 * MEETING_SHARE * subject.request.seconds))
    except LaunchError as reason:
        yield Finding("meeting", str(reason), "wrong", "what else is said here is of each rank alone")
        return
    subject.exchange, subject.met = Exchange(met, subject.request.patience_seconds), True
    subject.neighbours = _roster(subject)
    if world.rank == 0:
        job = f", job {world.job_id}" if world.job_id else ""
        text = f"{count(world.size, 'rank')} on {count(len(subject.hosts), 'node')}{job}"
        yield Finding("meeting", f"{text}, met in {brief(time.monotonic() - start)}")


def _roster(subject: Subject) -> list[Neighbour]:
    """Who is where. Of a rank that did not answer only its host is known."""
    answers = subject.exchange.gather("roster", asdict(oneself(subject.environment)))
    peers = subject.exchange.meeting.peers
    if subject.world.rank == 0:
        unknown = {rank: asdict(Neighbour(peer.host, 0, 0, 0)) for rank, peer in peers.items()}
        answers = dict(sorted({**unknown, **answers}.items()))
    everyone = subject.exchange.tell("everyone", list(answers.values()))
    return [Neighbour(**each) for each in everyone]


def cores(subject: Subject) -> Iterator[Finding]:
    """Whether the ranks of this node have the cores that were promised, and no more threads than those."""
    here = subject.here
    union = 0
    for each in here:
        union |= each.cores
    usable, threads = union.bit_count(), sum(each.threads for each in here)
    promised = subject.environment.get("SLURM_CPUS_ON_NODE", "")
    whole = int(promised) if promised.isdigit() else os.cpu_count() or 1
    of = f" of {whole}" if usable <= whole else f", though {whole} were given"
    text = f"{count(len(here), 'rank')}, {count(threads, 'thread')}, {count(usable, 'core')}{of}"
    remedy = "free the ranks or give them more: srun --cpus-per-task, mpiexec --bind-to none"
    if usable < min(len(here), whole):
        yield Finding("cores", f"{text}: ranks share a core", "wrong", remedy)
    elif threads > usable:
        yield Finding("cores", text, "warning", "more threads than cores: set OMP_NUM_THREADS lower")
    elif 2 * usable <= whole:
        yield Finding("cores", f"{text}: the rest is idle", "warning", remedy)
    else:
        yield Finding("cores", text)


def clocks(subject: Subject) -> Iterator[Finding]:
    """How far the nodes' clocks are apart: eight exchanges with each, of which the quickest counts."""
    if len(subject.hosts) == 1:
        if subject.world.rank == 0:
            yield Finding("clocks", "one node, one clock")
        return
    if subject.world.rank != 0:
        if subject.is_first_here:
            _answer_pings(subject.exchange)
        return
    hosts = [each.host for each in subject.neighbours]
    skews = {host: _skew(subject.exchange, hosts.index(host)) for host in subject.hosts[1:]}
    worst = max(skews, key=lambda host: abs(skews[host][0]))
    offset, error = skews[worst]
    text = f"{len(skews) + 1} nodes within {brief(abs(offset))} (± {brief(error)}); furthest: {worst}"
    remedy = f"let NTP or PTP set the clock of {worst}; rank 0's says when the job must end"
    if abs(offset) - error > _WORST_SKEW_SECONDS:
        yield Finding("clocks", text, "wrong", remedy)
    elif abs(offset) - error > _POOR_SKEW_SECONDS:
        yield Finding("clocks", text, "warning", remedy)
    else:
        yield Finding("clocks", text)


def _skew(exchange: Exchange, rank: int) -> tuple[float, float]:
    """Seconds by which a rank's clock is ahead of ours, and the error: half of the way there and back."""
    best = (0.0, float("inf"))
    for number in range(_PINGS):
        sent = time.time()
        exchange.send(rank, f"ping {number}", None)
        theirs = exchange.receive(rank, f"pong {number}")
        received = time.time()
        error = (received - sent) / 2
        if error < best[1]:
            best = (theirs - (sent + received) / 2, error)
    return best


def _answer_pings(exchange: Exchange) -> None:
    for number in range(_PINGS):
        exchange.receive(0, f"ping {number}", 2 * exchange.patience_seconds)
        exchange.send(0, f"pong {number}", time.time())


def silence(subject: Subject) -> Iterator[Finding]:
    """The ranks that did not answer when they were asked."""
    for rank, name in sorted(subject.exchange.silent.items()):
        host = subject.exchange.meeting.peers[rank].host
        text = f"rank {rank} on {host} gave no answer from {name!r} on"
        remedy = f"look at node {host}: is the process alive, does its file system answer?"
        yield Finding("ranks", text, "wrong", remedy, "world")
