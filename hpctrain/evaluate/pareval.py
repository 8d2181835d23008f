"""The suite `pareval`: benchmarks in ParEval's format, a file of prompts and a directory of drivers.

ParEval's drivers check answers in the answer's own process. So an answer may not print, end the program or
call the driver's own solution, which is looked for in an object of the answer alone.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from hpctrain.corpus.lexer import code_tokens
from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate import objects
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.executed import Judged, ask, machine, sample, scores, without_fence
from hpctrain.evaluate.judge import Judge, Judgement
from hpctrain.evaluate.races import SANITIZE, THREADS, look_for_races
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.progress import progress
from hpctrain.sandbox.run import Outcome, Sandbox
from hpctrain.sandbox.toolchain import build, cuda_devices, execute, why_missing
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Verdict

_MODELS = {"serial": "", "omp": "openmp", "mpi": "mpi", "mpi+omp": "mpi+openmp", "cuda": "cuda"}
_PROMPTS = ("prompts/generation-prompts.json", "generation-prompts.json", "prompts.json")
_COUNTS = (1, 2, 4)
_RACE_SIZE = "(1<<10)"
_SEEN = Path(__file__).with_name("pareval_seen.c")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b.*$", re.MULTILINE)
_FIGURE = re.compile(r"^(Time|BestSequential): *([\d.eE+-]+)$", re.MULTILINE)


class Prompt(BaseModel):
    """An entry of the file of prompts. `reference` is this project's: a known answer, where there is one."""

    model_config = ConfigDict(frozen=True)
    problem_type: str
    name: str
    language: str = "cpp"
    parallelism_model: str
    prompt: str
    reference: str = ""


@dataclass(frozen=True)
class Benchmark:
    """One prompt with its drivers."""

    prompt: Prompt
    drivers: Path
    size: str
    """The macro DRIVER_PROBLEM_SIZE."""

    @property
    def model(self) -> str:
        """As this project calls it."""
        return _MODELS[self.prompt.parallelism_model]

    @property
    def is_cuda(self) -> bool:
        """Whether nvcc builds it."""
        return self.model == "cuda"

    @property
    def source(self) -> Path:
        """The benchmark's driver."""
        name = "gpu.cu" if self.is_cuda else "cpu.cc"
        return self.drivers / "cpp" / "benchmarks" / self.prompt.problem_type / self.prompt.name / name

    @property
    def main(self) -> Path:
        """The driver of the programming model."""
        name = self.prompt.parallelism_model.replace("+", "-")
        return self.drivers / "cpp" / "models" / f"{name}-driver.{'cu' if self.is_cuda else 'cc'}"

    def problem(self) -> Problem:
        """What is asked."""
        prompt = self.prompt
        return Problem(
            id=f"{prompt.name}/{prompt.parallelism_model}", task="pareval", stop="function",
            language="cuda" if self.is_cuda else "cpp", programming_model=self.model or "serial",
            path=f"{prompt.name}.{'cu' if self.is_cuda else 'cpp'}", prompt=prompt.prompt,
            reference=prompt.reference,
        )  # fmt: skip


def run_pareval(candidate: Candidate, options: SuiteOptions) -> Result:
    """Ask for each prompt, build the answer with its drivers, run, and score.

    Raises DataError where `--problems` is no such directory or a driver does not build with its own
    reference, LaunchError without a sandbox.
    """
    if options.problems is None:
        raise ConfigError("--suite pareval takes --problems DIR, which holds the prompts and drivers/")
    judge = Judge(Sandbox(options.unsafe))
    benchmarks, skipped = read_benchmarks(options.problems)
    if candidate.name == "reference":
        unknown = {b.problem().id for b in benchmarks if not b.prompt.reference}
        skipped |= dict.fromkeys(unknown, "the prompts give no known solution")
        benchmarks = [b for b in benchmarks if b.prompt.reference]
    asked = {benchmark.problem().id: benchmark for benchmark in benchmarks[: options.limit]}
    problems = [benchmark.problem() for benchmark in asked.values()]
    answers = ask(candidate, problems, options, skipped) if problems else {}
    counts = options.counts or _COUNTS
    judged, samples = [], []
    with progress("pareval", sum(map(len, answers.values())), "answers") as bar:
        for name, given in answers.items():
            court = _Court(judge, asked[name], counts)
            if candidate.name != "reference":
                court.check_drivers()
            found = []
            for answer in given:
                found.append(court.judge(without_fence(answer.text)))
                bar.advance()
            problem = asked[name].problem()
            judged.append(Judged(problem, found, court.can_run, court.timings))
            samples += [sample(problem, answer, one) for answer, one in zip(given, found, strict=True)]
    return Result(
        suite="pareval", candidate=candidate.name, scores=scores(judged), samples=samples,
        settings={**machine(judge), "counts": list(counts)}, skipped=skipped,
    )  # fmt: skip


def read_benchmarks(root: Path) -> tuple[list[Benchmark], dict[str, str]]:
    """The benchmarks of a directory, and what is left out with the reason. Raises DataError."""
    file = next((root / name for name in _PROMPTS if (root / name).is_file()), None)
    drivers = root / "drivers"
    if file is None or not (drivers / "cpp" / "models").is_dir():
        missing = f"none of {', '.join(_PROMPTS)}" if file is None else "no drivers/cpp/models"
        raise DataError(f"{root}: not in ParEval's format: {missing}")
    try:
        prompts = TypeAdapter(list[Prompt]).validate_json(file.read_bytes())
        sizes = json.loads(path.read_text()) if (path := drivers / "problem-sizes.json").is_file() else {}
    except (ValidationError, ValueError) as error:
        raise DataError(f"{file}: not in ParEval's format: {str(error).splitlines()[0]}") from None
    found, skipped = [], {}
    for prompt in prompts:
        name = f"{prompt.name}/{prompt.parallelism_model}"
        if prompt.parallelism_model not in _MODELS or prompt.language != "cpp":
            skipped[name] = f"{prompt.parallelism_model} in {prompt.language} is not judged here"
            continue
        size = str(sizes.get(prompt.name, {}).get(prompt.parallelism_model, "(1<<18)"))
        benchmark = Benchmark(prompt, drivers, size)
        lacking = [path for path in (benchmark.source, benchmark.main) if not path.is_file()]
        if lacking:
            raise DataError(f"{lacking[0]}: no such driver, for the prompt {name}")
        if reason := why_missing("cuda" if benchmark.is_cuda else "cpp", benchmark.model):
            skipped[name] = reason
        else:
            found.append(benchmark)
    return found, skipped


class _NotBuilt(Exception):  # noqa: N818
    pass


@dataclass
class _Court:
    """Judges answers to one benchmark."""

    judging: Judge
    benchmark: Benchmark
    counts: Sequence[int]
    known: dict[str, Judgement] = field(default_factory=dict)

    @property
    def can_run(self) -> bool:
        return not self.benchmark.is_cuda or bool(cuda_devices())

    @property
    def timings(self) -> tuple[str, ...]:
        model = self.benchmark.model
        noun = "ranks" if "mpi" in model else "threads"
        return tuple(f"speedup {count} {noun}" for count in self.counts) if model in _COUNTED else ()

    def check_drivers(self) -> None:
        """Raise DataError if the drivers do not build with the known solution."""
        if reference := self.benchmark.prompt.reference:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    self._build(Path(folder), reference)
                except _NotBuilt as reason:
                    name = self.benchmark.problem().id
                    raise DataError(
                        f"{name}: the driver does not build with its own reference: {reason}"
                    ) from None

    def judge(self, answer: str) -> Judgement:
        """The verdict on one answer."""
        if not answer.strip():
            return Judgement("no answer")
        if answer not in self.known:
            self.known[answer] = self._judge(answer)
        return self.known[answer]

    def _judge(self, answer: str) -> Judgement:
        figures: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            try:
                self._build(place, answer)
            except _NotBuilt as reason:
                return Judgement("not built", str(reason))
            if refused := self._refused(place, answer):
                return refused
            if not self.can_run:
                return Judgement("built", "not run: no CUDA device here")
            seconds = 0.0
            for count in self.counts if self.benchmark.model in _COUNTED else (1,):
                verdict, detail, seconds = self._run(place, count, figures)
                if verdict != "passed":
                    return Judgement(verdict, detail, seconds, figures)
            if self.benchmark.model == "openmp":
                if figures.get("calls") == 0 or (max(self.counts) > 1 and figures.get("threads", 2) < 2):
                    return Judgement("not parallel", "no second thread ever worked", seconds, figures)
                if race := self._race(answer, figures):
                    return Judgement("race", race, seconds, figures)
        return Judgement("passed", "", seconds, figures)

    def _run(self, place: Path, count: int, figures: dict[str, float]) -> tuple[Verdict, str, float]:
        model = self.benchmark.model
        arguments = [str(count)] if model == "openmp" else []
        ran = execute(
            self.judging.sandbox, place, "program", model, count, arguments, self.judging.limits.times(count)
        )
        verdict, detail = _verdict(ran)
        found = {name: float(value) for name, value in _FIGURE.findall(ran.stdout)}
        for line in ran.stderr.splitlines():
            if (words := line.split()) and words[0] in ("#calls", "#threads") and len(words) == 2:
                figures[words[0][1:]] = max(figures.get(words[0][1:], 0.0), float(words[1]))
        if model in _COUNTED and found.get("Time") and "BestSequential" in found:
            noun = "ranks" if "mpi" in model else "threads"
            figures[f"speedup {count} {noun}"] = found["BestSequential"] / found["Time"]
        return verdict, detail, found.get("Time", 0.0)

    def _lay_out(self, place: Path, answer: str) -> list[str]:
        """Copy the drivers, write the answer; the options that find them."""
        source = self.benchmark.source
        cpp = self.benchmark.drivers / "cpp"
        for path in cpp.iterdir():
            if path.is_file():
                shutil.copy(path, place)
        shutil.copytree(cpp / "models", place / "models", dirs_exist_ok=True)
        shutil.copytree(source.parent, place / "benchmark", dirs_exist_ok=True)
        suffix = "cuh" if self.benchmark.is_cuda else "hpp"
        (place / f"generated-code.{suffix}").write_text(
            f"{_no_inline(self.benchmark.prompt.prompt)}\n{answer}\n"
        )
        macro = self.benchmark.prompt.parallelism_model.upper().replace("+", "_")
        return ["-I.", "-Imodels", "-Ibenchmark", f"-DUSE_{macro}"]

    def _compile(self, place: Path, source: str, output: str, options: Sequence[str], size: str) -> None:
        language, model = ("cuda" if self.benchmark.is_cuda else "cpp"), self.benchmark.model
        every = ["-c", "-O3", f"-DDRIVER_PROBLEM_SIZE={size}", *options]
        done = build(self.judging.sandbox, place, [source], output, language, model, every)
        if done.status != "ok":
            raise _NotBuilt(done.message)

    def _build(self, place: Path, answer: str) -> None:
        """Build the program, with its parallel calls counted where that tells anything."""
        options = self._lay_out(place, answer)
        sandbox, model = self.judging.sandbox, self.benchmark.model
        language = "cuda" if self.benchmark.is_cuda else "cpp"
        self._compile(
            place, f"benchmark/{self.benchmark.source.name}", "benchmark.o", options, self.benchmark.size
        )
        self._compile(place, f"models/{self.benchmark.main.name}", "main.o", options, self.benchmark.size)
        parts = ["benchmark.o", "main.o"]
        if model == "openmp":
            calls = objects.read_symbols(sandbox, place, "benchmark.o").parallel(model)
            objects.close_off(sandbox, place, "benchmark.o", "*", calls)
            (place / "counters.s").write_text(objects.counters(calls), encoding="utf-8")
            shutil.copy(_SEEN, place / "seen.c")
            seen = build(sandbox, place, ["seen.c"], "seen.o", "c", "", ["-c"])
            if seen.status != "ok":
                raise _NotBuilt(seen.message)
            parts += ["counters.s", "seen.o"]
        linked = build(sandbox, place, parts, "program", language, model)
        if linked.status != "ok":
            raise _NotBuilt(linked.message)

    def _refused(self, place: Path, answer: str) -> Judgement | None:
        """Look at an object of the answer alone: what it calls is the answer's doing, not the driver's."""
        source = self.benchmark.source.read_text(encoding="utf-8", errors="replace")
        alone = f"benchmark/alone{self.benchmark.source.suffix}"
        (place / alone).write_text("\n".join([*_INCLUDE.findall(source), ""]), encoding="utf-8")
        try:
            self._compile(place, alone, "alone.o", self._lay_out(place, answer), self.benchmark.size)
        except _NotBuilt as reason:
            return Judgement("not built", f"it does not build apart from the driver: {reason}")
        symbols = objects.read_symbols(self.judging.sandbox, place, "alone.o")
        if names := symbols.forbidden():
            return Judgement("wrong", f"an answer that only computes has no use for {', '.join(names[:5])}")
        tokens = {token.decode("ascii", "replace") for token in code_tokens(answer.encode(), "cpp")}
        if tokens & {"asm", "__asm", "__asm__"}:
            return Judgement("wrong", "assembly is not judged: it could speak in the driver's place")
        if names := sorted(tokens & self._own_names()):
            return Judgement("wrong", f"calls the driver's own {', '.join(names[:3])}")
        if self.benchmark.model and not symbols.uses_each(self.benchmark.model):
            return Judgement("not parallel", f"the built code calls nothing of {self.benchmark.model}")
        return None

    def _own_names(self) -> set[str]:
        """Functions of the driver's own solution, those of the prompt apart."""
        baseline = self.benchmark.source.with_name("baseline.hpp")
        text = baseline.read_text(encoding="utf-8", errors="replace") if baseline.is_file() else ""
        names = re.findall(r"^[\w:<>,&* \t]*?\b(\w+)\s*\([^;{]*\)\s*\{", text, re.MULTILINE)
        drivers = {"validate", "compute", "best", "reset", "init", "destroy"}
        return ({*names} | drivers) - set(re.findall(r"\w+", self.benchmark.prompt.prompt))

    def _race(self, answer: str, figures: dict[str, float]) -> str:
        """The first data race at a small size; `races looked for` tells whether it could be done."""
        figures["races looked for"] = 0.0
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            options = [*self._lay_out(place, answer), *SANITIZE]
            try:
                source = f"benchmark/{self.benchmark.source.name}"
                self._compile(place, source, "benchmark.o", options, _RACE_SIZE)
                self._compile(place, f"models/{self.benchmark.main.name}", "main.o", options, _RACE_SIZE)
            except _NotBuilt:
                return ""
            parts, arguments = ["benchmark.o", "main.o"], [str(THREADS)]
            finding = look_for_races(
                self.judging.sandbox, place, parts, "cpp", arguments, self.judging.limits
            )
        figures["races looked for"] = float(finding.looked)
        return finding.report


_COUNTED = ("openmp", "mpi", "mpi+openmp")


def _verdict(ran: Outcome) -> tuple[Verdict, str]:
    said = re.findall(r"^Validation: *(\w+) *$", ran.stdout, re.MULTILINE)
    if ran.status in ("too slow", "over limit"):
        return ran.status, ran.message
    if said == ["FAIL"]:
        return "wrong", "the driver's validation failed"
    if ran.status != "ok":
        return "crashed", ran.message
    if said != ["PASS"]:
        return "wrong", f"the driver gave no single verdict: {ran.stdout[-500:]}"
    return "passed", ""


def _no_inline(prompt: str) -> str:
    """The prompt with NO_INLINE after the first word of its last line, as ParEval's own drivers want it."""
    head, newline, last = prompt.rpartition("\n")
    kind, space, rest = last.partition(" ")
    return f"{head}{newline}{kind} NO_INLINE {rest}" if space else prompt
