"""Whether an answer builds, is parallel, gives what the known serial code gives, and without a race.

The serial code and the answer are two programs, built and run apart with the same driver and the same seed,
which was not known when the answer was written. Each prints what it computed; the comparison is made here. So
the answer never has the expected values in its reach, and to print them it must compute them.
"""

from __future__ import annotations

import math
import re
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpctrain.corpus.lexer import code_tokens
from hpctrain.errors import DataError
from hpctrain.evaluate import objects
from hpctrain.evaluate.races import SANITIZE, look_for_races
from hpctrain.sandbox.run import Limits, Outcome, Sandbox
from hpctrain.sandbox.toolchain import SUFFIXES, build, cuda_devices, execute, why_missing
from hpctrain.tasks.result import Verdict

RUN_LIMITS = Limits(seconds=30, cpu_seconds=60, output_bytes=4 << 20)
_DETAIL_BYTES = 4000
_WORK_SHARED = 0.05
"""Least part of the processor time that threads other than the first must have had in the timed call."""
_LINKER_ORDER = ("cuda", "hip", "cpp", "fortran-free", "fortran-fixed", "c")


@dataclass(frozen=True)
class Unit:
    """Source code under a name of its own."""

    text: str
    language: str
    entry: str = ""
    """The linker's name of the function that the driver calls; empty for a whole program."""
    file: str = ""
    """File name, where its suffix matters (`unit.F`)."""

    @property
    def name(self) -> str:
        """The file name."""
        return self.file or f"unit{SUFFIXES[self.language]}"


@dataclass(frozen=True)
class Job:
    """What answers to one problem are judged by."""

    serial: Unit
    model: str
    """Programming model that the answer must use: openmp, mpi, openacc, cuda, mpi+openmp; empty: any."""
    driver: Unit | None = None
    """Calls ENTRY; None where the units are whole programs, which print their results themselves."""
    counts: tuple[int, ...] = (1, 2, 4)
    """Threads or ranks to run with."""
    tolerance: float = 0.0
    """Largest difference that passes, relative to max(1, |serial value|)."""
    repeats: int = 0
    """Timed calls of the driver's timed case; 0: nothing is timed."""
    arguments: tuple[str, ...] = ()
    """Of a whole program; a driver gets the seed and the repeats."""


@dataclass(frozen=True)
class Expected:
    """What the serial code gave."""

    seed: int
    output: str
    seconds: float | None


@dataclass(frozen=True)
class Judgement:
    """The verdict on one answer."""

    verdict: Verdict
    detail: str = ""
    seconds: float = 0.0
    """Of the timed case at the largest count."""
    figures: dict[str, float] = field(default_factory=dict)
    """Such as {"speedup 4 threads": 2.9, "races looked for": 1}."""

    @property
    def is_built(self) -> bool:
        """Whether it compiled and linked."""
        return self.verdict not in ("not built", "no answer")


class _Rejected(Exception):  # noqa: N818 - carries a verdict
    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.verdict: Verdict = verdict
        self.detail = detail[-_DETAIL_BYTES:]


class Judge:
    """Judges answers in a sandbox."""

    def __init__(self, sandbox: Sandbox, limits: Limits = RUN_LIMITS, races: bool = True) -> None:
        self.sandbox, self.limits, self.races = sandbox, limits, races
        self._drivers: dict[tuple[str, ...], bytes] = {}

    def missing(self, job: Job) -> str:
        """Which tool that the job needs is not here; empty if all are."""
        if job.model and job.driver and not objects.is_checkable(job.model):
            return f"it is not known what the calls of {job.model} look like"
        tools = next((f"no {tool} on PATH" for tool in ("nm", "objcopy") if shutil.which(tool) is None), "")
        return why_missing(job.serial.language) or why_missing(job.serial.language, job.model) or tools

    def can_run(self, job: Job) -> bool:
        """Whether the answers can be run here, or only built."""
        return job.model != "cuda" or bool(cuda_devices())

    def expect(self, job: Job) -> Expected:
        """Build and run the serial code; nothing where answers are only built.

        Raises DataError if it does not build or run: then the problem is wrong, not the answer.
        """
        seed = secrets.randbelow(1 << 31)
        if not self.can_run(job):
            return Expected(seed, "", None)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            try:
                self._build(place, job.serial, job, "", frozenset())
                ran = self._run(place, job, "", 1, seed)
            except _Rejected as reason:
                raise DataError(
                    f"the problem's own serial code is {reason.verdict}: {reason.detail}"
                ) from None
        if ran.status != "ok":
            raise DataError(f"the problem's own serial code does not run: {ran.message}")
        output, measured = _split(ran.stdout)
        return Expected(seed, output, measured.get("time"))

    def judge(self, job: Job, answer: Unit, expected: Expected) -> Judgement:
        """Build the answer, run it at each count, compare, and look for races."""
        if not answer.text.strip():
            return Judgement("no answer")
        figures: dict[str, float] = {}
        try:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                called = self._build(place, answer, job, job.model, None)
                if not self.can_run(job):
                    return Judgement("built", "not run: no CUDA device here", figures=figures)
                seconds = self._check(place, job, expected, figures)
            if job.model and job.driver:
                _check_parallel(job.model, called, figures)
            if self.races and "openmp" in job.model and "mpi" not in job.model:
                self._look_for_races(answer, job, expected.seed, figures)
        except _Rejected as reason:
            return Judgement(reason.verdict, reason.detail, figures=figures)
        return Judgement("passed", _note(job, figures), seconds, figures)

    def _build(
        self,
        place: Path,
        unit: Unit,
        job: Job,
        model: str,
        counted: frozenset[str] | None,
        options: Sequence[str] = (),
    ) -> frozenset[str]:
        """Build `program` in `place`; returns the unit's parallel calls, which are counted unless told."""
        self._compile(place, unit, model, "unit.o", options)
        symbols = objects.read_symbols(self.sandbox, place, "unit.o")
        calls = symbols.parallel(model) if model else frozenset()
        if model and not symbols.uses_each(model):
            raise _Rejected("not parallel", f"the built code calls nothing of {model} that shares out work")
        parts = ["unit.o"]
        if job.driver:
            if model:
                _refuse_tricks(unit, symbols)
            counted = calls if counted is None else counted
            objects.close_off(self.sandbox, place, "unit.o", unit.entry, counted)
            (place / "counters.s").write_text(objects.counters(counted), encoding="utf-8")
            entry = [f"-DENTRY={_c_name(unit)}", *(["-DWITH_MPI"] if "mpi" in model else [])]
            device = ["-DON_DEVICE"] if model == "cuda" else []
            self._compile_driver(place, job.driver, model, [*entry, *device, *options])
            parts = ["driver.o", "unit.o", "counters.s"]
        linker = _linker(unit.language, job.driver.language if job.driver else unit.language)
        linked = build(self.sandbox, place, parts, "program", linker, model, options)
        if linked.status != "ok":
            raise _Rejected("not built", linked.message)
        return calls

    def _compile(self, place: Path, unit: Unit, model: str, output: str, options: Sequence[str]) -> None:
        (place / unit.name).write_text(unit.text, encoding="utf-8")
        done = build(self.sandbox, place, [unit.name], output, unit.language, model, ["-c", *options])
        if done.status != "ok":
            raise _Rejected("not built", done.message)

    def _compile_driver(self, place: Path, driver: Unit, model: str, options: Sequence[str]) -> None:
        """As `_compile`, once for all answers to a problem."""
        key = (driver.text, driver.language, model, *options)
        if key not in self._drivers:
            named = replace(driver, file=f"driver{SUFFIXES[driver.language]}")
            self._compile(place, named, model, "driver.o", options)
            self._drivers[key] = (place / "driver.o").read_bytes()
        (place / "driver.o").write_bytes(self._drivers[key])

    def _run(
        self, place: Path, job: Job, model: str, count: int, seed: int, repeats: int | None = None
    ) -> Outcome:
        arguments = job.arguments
        if job.driver:
            arguments = (str(seed), str(job.repeats if repeats is None else repeats))
        return execute(self.sandbox, place, "program", model, count, arguments, self.limits.times(count))

    def _check(self, place: Path, job: Job, expected: Expected, figures: dict[str, float]) -> float:
        """Run at each count and compare; returns the seconds of the timed case at the last."""
        seconds = 0.0
        noun = "ranks" if "mpi" in job.model else "threads"
        counts = job.counts if job.model in ("openmp", "mpi", "mpi+openmp") else (1,)
        for count in counts:
            ran = self._run(place, job, job.model, count, expected.seed)
            output, measured = _split(ran.stdout)
            where = f"with {count} {noun}: "
            if ran.status != "ok":
                verdict: Verdict = "crashed" if ran.status == "failed" else ran.status
                raise _Rejected(verdict, where + ran.message)
            if difference := compare(expected.output, output, job.tolerance):
                raise _Rejected("wrong", where + difference)
            seconds = measured.get("time", 0.0)
            if seconds and expected.seconds:
                figures[f"speedup {count} {noun}"] = expected.seconds / seconds
            for name in ("calls", "threads", "ranks", "shared"):
                if name in measured and (count > 1 or name != "shared"):
                    figures[name] = max(figures.get(name, 0.0), measured[name])
        return seconds

    def _look_for_races(self, answer: Unit, job: Job, seed: int, figures: dict[str, float]) -> None:
        """`races looked for` tells whether it could be done."""
        figures["races looked for"] = 0.0
        if job.driver is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            try:
                self._compile(place, answer, job.model, "unit.o", SANITIZE)
                objects.close_off(self.sandbox, place, "unit.o", answer.entry, frozenset())
                (place / "counters.s").write_text(objects.counters(frozenset()), encoding="utf-8")
                self._compile_driver(place, job.driver, "", [*SANITIZE, f"-DENTRY={_c_name(answer)}"])
            except _Rejected:
                return
            parts = ["driver.o", "unit.o", "counters.s"]
            linker = _linker(answer.language, job.driver.language)
            arguments = (str(seed), "-1")
            finding = look_for_races(self.sandbox, place, parts, linker, arguments, self.limits)
        figures["races looked for"] = float(finding.looked)
        if finding.report:
            raise _Rejected("race", finding.report)


def compare(expected: str, output: str, tolerance: float) -> str:
    """The first difference between two outputs, word by word; empty if they agree.

    Numbers may differ by `tolerance` relative to max(1, |expected|); not-a-number equals nothing but itself.
    """
    want, got = _words(expected), _words(output)
    for (label, a), (_, b) in zip(want, got, strict=False):
        x, y = _number(a), _number(b)
        if a != b and (x is None or y is None or not _near(x, y, tolerance)):
            return f"{label}: expected {a}, got {b}"
    if len(want) != len(got):
        return f"expected {len(want)} words of output, got {len(got)}"
    return ""


def _words(output: str) -> list[tuple[str, str]]:
    """Each word, after the first word of its line, by which a difference is named."""
    return [(line.split()[0], word) for line in output.splitlines() for word in line.split()]


def _near(x: float, y: float, tolerance: float) -> bool:
    if not (math.isfinite(x) and math.isfinite(y)):
        return x == y or (math.isnan(x) and math.isnan(y))
    return abs(x - y) <= tolerance * max(1.0, abs(x))


def _number(word: str) -> float | None:
    try:
        return float(re.sub(r"(?<=\d)[dD](?=[+-]?\d)", "e", word))
    except ValueError:
        return None


def _split(output: str) -> tuple[str, dict[str, float]]:
    """The results, and the driver's measurements, which stand in lines with `#`."""
    results, measured = [], {}
    for line in output.splitlines():
        if line.startswith("#"):
            name, _, value = line[1:].partition(" ")
            number = _number(value)
            if number is not None:
                measured[name] = number
        else:
            results.append(line)
    return "\n".join(results), measured


def _refuse_tricks(unit: Unit, symbols: objects.Symbols) -> None:
    if names := symbols.forbidden():
        raise _Rejected("wrong", f"a unit that only computes has no use for {', '.join(names[:5])}")
    if unit.language in ("c", "cpp", "cuda", "hip"):
        tokens = set(code_tokens(unit.text.encode(), unit.language))
        if tokens & {b"asm", b"__asm", b"__asm__"}:
            raise _Rejected("wrong", "assembly is not judged: it could speak in the driver's place")


def _check_parallel(model: str, called: frozenset[str], figures: dict[str, float]) -> None:
    """What was counted while it ran, against what the model promises."""
    if objects.counters_known() and figures.get("calls") == 0:
        raise _Rejected(
            "not parallel", f"{', '.join(sorted(called)[:5])}: in the built code, but never called"
        )
    if "openmp" in model and figures.get("threads", 2) < 2:
        raise _Rejected("not parallel", "one thread alone was ever alive")
    if model == "openmp" and figures.get("shared", 1.0) < _WORK_SHARED:
        share = f"{100 * figures['shared']:.1f}%"
        raise _Rejected("not parallel", f"threads other than the first did {share} of the work")


def _note(job: Job, figures: dict[str, float]) -> str:
    if job.model == "openmp" and figures.get("races looked for") == 0.0:
        return "races were not looked for: it uses what the checking runtime lacks"
    return ""


def _linker(*languages: str) -> str:
    """The language whose compiler links the objects of these."""
    return next(language for language in _LINKER_ORDER if language in languages)


def _c_name(unit: Unit) -> str:
    """How C names the entry. C++ and CUDA mangle the plain name alike on both sides."""
    return unit.entry.strip("*")
