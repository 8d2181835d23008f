"""The loop: one step after another, evaluated and saved when due, stopped between steps when asked."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import xxhash

from hpctrain.checkpoint.format import RunState
from hpctrain.checkpoint.save import Saver
from hpctrain.engine.base import Engine, StepResult
from hpctrain.errors import HpctrainError, NumericalError, StoppedByHand, StoppedEarly
from hpctrain.loader.batches import StepData
from hpctrain.parallel.watch import Watch
from hpctrain.progress import Progress, progress, tell_batch_script
from hpctrain.train.brake import Brake
from hpctrain.train.config import RunConfig
from hpctrain.train.data import TrainingData
from hpctrain.train.metrics import MetricSink
from hpctrain.train.profile import WAIT, Profiler, open_profiler
from hpctrain.train.rundir import Journal
from hpctrain.train.schedule import learning_rate_at
from hpctrain.train.startup import StartClock
from hpctrain.train.throughput import Throughput, describe, measure


@dataclass
class Loop:
    """Everything a step touches. `state` is where the run stands; it moves with each step."""

    config: RunConfig
    engine: Engine
    data: TrainingData
    journal: Journal
    sinks: list[MetricSink]
    brake: Brake
    watch: Watch
    clock: StartClock
    saver: Saver
    state: RunState
    device: torch.device
    saved_step: int = -1
    record: dict[str, Any] = field(default_factory=dict)
    """The metrics of the latest step."""
    agreed_at: float = field(default_factory=time.monotonic)
    profiler: Profiler = field(default_factory=Profiler)
    throughput: Throughput = field(init=False)

    def __post_init__(self) -> None:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        ranks = self.engine.topology.world_size
        self.throughput = measure(self.config, self.data.vocab_size, ranks, name)

    def run(self) -> None:
        """Train to the last step. Raises StoppedEarly after a save, when a signal asked for it."""
        train, first = self.config.train, self.state.step
        visible = self.engine.topology.rank == 0
        rank, profile = self.engine.topology.rank, train.profile
        self.profiler = open_profiler(profile, self.config.run.dir, rank, self.device, first)
        with closing(self.profiler), progress("train", train.steps, "steps", visible) as bar:
            bar.advance(first)
            if first == 0:
                self._record(self._evaluation() | {"step": 0})
            for data, waited in self._fetch(train.steps - first):
                agreed = self._step(data, waited, bar)
                self.profiler.after(self.state.step)  # which may write for some seconds
                self.watch.beat()
                last = self.state.step == train.steps
                due = self.state.step % self.config.checkpoint.every_steps == 0
                if last or due or agreed.stop or agreed.save:
                    self.save(wait=last or agreed.stop)
                    self.brake.answer_save()
                if agreed.stop and not last:
                    self.journal.event("stop", self.state.step, reason=self.brake.reason or "asked to")
                    raise _stopped(self.state.step, train.steps, self.brake.reason, agreed.by_hand)
        self.journal.event("stop", self.state.step, reason="finished")

    def save(self, wait: bool) -> None:
        """Save the present state, unless it is saved already; with `wait`, until it is committed."""
        if self.saved_step == self.state.step:
            return
        self.saver.begin(self.state, _facts(self.record))
        self.saved_step = self.state.step
        if wait or not self.config.checkpoint.background:
            self.saver.wait()
        self.watch.beat()

    def _fetch(self, steps: int) -> Iterator[tuple[StepData, float]]:
        """The data of so many steps, each with the seconds that this rank waited for them."""
        loaded = self.data.loader.steps(self.state.samples, steps)
        for _ in range(steps):
            self.profiler.before(self.state.step + 1)
            began = time.monotonic()
            with self.profiler.span(WAIT):
                data = next(loaded)
            yield data, time.monotonic() - began

    def _step(self, data: StepData, waited: float, bar: Progress) -> _Agreed:
        """One optimizer step and its line of metrics; returns what the ranks agreed on at its end.

        `waited`: seconds for its data, which are part of the step.
        """
        began, step = time.monotonic() - waited, self.state.step + 1
        rate = learning_rate_at(
            step, self.config.train.steps, self.config.optimizer.learning_rate, self.config.schedule
        )
        self._seed_dropout(step)
        result = self.engine.train_step(data.micro_batches, rate)
        agreed = self._agree(data, waited)
        self.watch.beat()
        seconds = time.monotonic() - began
        self._check_finite(step, result)
        batch_tokens = self.config.train.global_batch_size * self.config.data.sequence_length
        self.state = RunState(
            step=step,
            samples=self.state.samples + self.config.train.global_batch_size,
            tokens=self.state.tokens + batch_tokens,
        )
        if agreed.counted:  # the mean over the tokens that are learnt
            positions = batch_tokens * self.data.counted_share
            result = result._replace(loss=result.loss * positions / agreed.counted)
        record = {
            "step": step,
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
            "tokens": self.state.tokens,
            **self.throughput.of_step(seconds, agreed.waited),
            "batch_digest": f"{agreed.digest:016x}",
        }
        interval = self.config.train.evaluate_every_steps
        if interval and (step % interval == 0 or step == self.config.train.steps):
            record |= self._evaluation()
        self._record(record)
        status = f"loss {result.loss:.3f}, {describe(record)}"
        bar.advance(1, status)
        if step % self.config.log.every_steps == 0:
            logging.getLogger("hpctrain").info("step %d: %s (this rank %.4f s)", step, status, waited)
        if agreed.save_failed:
            self.saver.wait()  # which raises
        if "first_step" not in self.clock.parts:
            self.clock.mark("first_step")
            self.journal.event("ready", step, startup_seconds=self.clock.parts)
            if self.engine.topology.rank == 0:
                tell_batch_script("ready")
        return agreed

    def _record(self, record: dict[str, Any]) -> None:
        self.record = record
        self.journal.metric(record)
        for sink in self.sinks:
            sink.log(record)

    def _seed_dropout(self, step: int) -> None:
        """Draw a step's dropout by its number, so that a restart draws the same."""
        if self.config.adapter is not None and self.config.adapter.dropout:
            key = f"{self.config.run.seed}/dropout/{step}/{self.engine.topology.rank}"
            torch.manual_seed(xxhash.xxh3_64_intdigest(key.encode()) >> 1)

    def _agree(self, data: StepData, waited: float) -> _Agreed:
        """What all ranks must know at a step boundary: one all-reduce."""
        reads = self.engine.topology.stage == 0  # all stages read the same samples
        digest, counted = (data.digest, data.counted) if reads else (0, 0)
        signed = digest - 2**64 if digest >= 2**63 else digest
        since, self.agreed_at = self.agreed_at, time.monotonic()
        flags = [self.brake.pressed(self.agreed_at - since), self.brake.by_hand, self.brake.save_asked]
        numbers = [int(self.saver.poll()), round(waited * 1e9), counted, signed]
        shared = torch.tensor([*map(int, flags), *numbers], device=self.device)
        torch.distributed.all_reduce(shared)
        stop, by_hand, save, failed, nanoseconds, learnt, total = shared.tolist()
        mean = nanoseconds / 1e9 / self.engine.topology.world_size
        return _Agreed(stop > 0, by_hand > 0, save > 0, failed > 0, mean, learnt, total % 2**64)

    def _check_finite(self, step: int, result: StepResult) -> None:
        if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
            return
        self.journal.event("fault", step, loss=str(result.loss), grad_norm=str(result.grad_norm))
        error = NumericalError(
            f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}; not saved. A restart would "
            "meet it again: lower optimizer.learning_rate, or lengthen schedule.warmup_steps"
        )
        error.everywhere = True
        raise error

    def _evaluation(self) -> dict[str, Any]:
        """Held-out loss (nats per token) and bits per byte by language."""
        losses, bits = {}, {}
        for language, heldout in self.data.heldout.items():
            mean = self.engine.eval_step(heldout.micro_batches)
            nats = mean * heldout.positions * self.data.counted_share
            self.watch.beat()
            losses[language] = nats / heldout.tokens
            bits[language] = nats / math.log(2) / heldout.content_bytes
        return {"loss_by_language": losses, "bits_per_byte_by_language": bits} if losses else {}


class _Agreed(NamedTuple):
    stop: bool
    """Whether any rank was asked to stop."""
    by_hand: bool
    """Whether by RUN/stop, so that the run is not to be started again by itself."""
    save: bool
    """Whether RUN/save asks for a save."""
    save_failed: bool
    """Whether the save in the background has failed on any rank."""
    waited: float
    """Seconds that a rank waited for the step's data, the mean over the ranks."""
    counted: int
    """Targets of the whole global batch that count, where only responses do."""
    digest: int
    """Of the whole global batch."""


def _facts(record: dict[str, Any]) -> dict[str, float]:
    """What a checkpoint's manifest tells of the step it was saved at."""
    facts = {"loss": record["loss"]} if "loss" in record else {}
    if bits := record.get("bits_per_byte_by_language"):
        facts["bits_per_byte"] = sum(bits.values()) / len(bits)
    return facts


def _stopped(step: int, steps: int, reason: str, by_hand: bool) -> HpctrainError:
    why = f" ({reason})" if reason else ""
    if by_hand:
        return StoppedByHand(f"stopped at step {step} of {steps}, saved{why}; remove the file to go on")
    error = StoppedEarly(f"stopped at step {step} of {steps}, saved{why}; run the same command to go on")
    error.everywhere = True
    return error
