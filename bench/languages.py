"""Languages and Fortran forms of real files: agreement with compilers; speed of the lexer."""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.table import Row, row
from hpctrain.corpus.fortran import find_fortran_form
from hpctrain.corpus.headers import HeaderVotes
from hpctrain.corpus.languages import find_language, may_be_kept
from hpctrain.corpus.lexer import code_tokens, regions
from hpctrain.corpus.models import programming_models
from hpctrain.corpus.structure import spans

Label = Callable[[Path], "str | None"]
FORTRAN = {".f", ".for", ".ftn", ".f77", ".f90", ".f95", ".f03", ".f08"}
EXTENSIONS = {".c": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".cu": "cuda", ".cuf": "fortran-free"}
ABSENT = re.compile(
    r"(?:Cannot|Can't) (?:open|read) (?:module|included)|No such file|(?:Error|error): #error"
)
SECONDS = 60
LARGEST_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    installed = [Path("/usr/include"), Path(sysconfig.get_path("purelib"))]
    parser.add_argument(
        "--trees", type=Path, nargs="+", default=installed, help="directories of real sources"
    )
    parser.add_argument("--files", type=int, default=400, help="sample of each tree and kind of label")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--wrong", action="store_true", help="list the files that were misjudged")


def measure(options: argparse.Namespace) -> list[Row]:
    """Label a sample by compilers, ask the corpus, and time the lexer on the same files."""
    tallies: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    kept: list[tuple[str, bytes]] = []
    asked: Counter[str] = Counter()
    for tree in options.trees:
        files = [path for path in sorted(tree.rglob("*")) if may_be_kept(path.name) and _is_plain(path)]
        settled = _settled(tree, files)
        for path, label, how in _labelled(tree, files, options, asked):
            content = path.read_bytes()
            found = {"name and content": settled[path]}
            if label.startswith("fortran"):
                opposite = {"fortran-fixed": "fortran-free", "fortran-free": "fortran-fixed"}[label]
                found["form, name says the other"] = find_fortran_form(content, opposite)
            for variant, answer in found.items():
                tallies[f"{label} by {how}", variant][answer == label] += 1
                if options.wrong and answer != label:
                    print(f"{path}: {label} by {how}, {answer} by {variant}", file=sys.stderr)
            kept.append((label, content))
    return [*_accuracy(tallies), *_undecided(tallies, asked), *_speed(kept)]


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST_BYTES


def _settled(tree: Path, files: Iterable[Path]) -> dict[Path, str | None]:
    """What the corpus calls each file; headers that say nothing follow their neighbours."""
    votes = HeaderVotes()
    answers = {path: find_language(path.name, path.read_bytes()) for path in files}
    for path, answer in answers.items():
        votes.add(str(path.relative_to(tree)), answer or "")
    votes.close()
    return {
        path: answer and votes.settle(str(path.relative_to(tree)), answer) for path, answer in answers.items()
    }


def _labelled(
    tree: Path, files: list[Path], options: argparse.Namespace, asked: Counter[str]
) -> Iterator[tuple[Path, str, str]]:
    """Files with a label from elsewhere than the corpus; those that two labels fit are left out."""
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        kinds: list[tuple[str, set[str], Label]] = [
            ("gfortran", FORTRAN, partial(_form_by_gfortran, scratch)),
            ("gcc and g++", {".h"}, partial(_language_by_gcc, tree)),
            ("extension", set(EXTENSIONS), lambda path: EXTENSIONS[path.suffix.lower()]),
        ]
        for how, suffixes, label in kinds:
            chosen = [path for path in files if path.suffix.lower() in suffixes and path.suffix != ".C"]
            chosen = sorted(draw.sample(chosen, min(options.files, len(chosen))))
            asked[how] += len(chosen)
            for path, one in zip(chosen, pool.map(label, chosen), strict=True):
                if one:
                    yield path, one, how


def _compile(command: list[str], cwd: str | None = None) -> tuple[bool, str, str]:
    """Whether a compiler accepts a file, what it prints, and its complaints."""
    try:
        done = subprocess.run(command, capture_output=True, cwd=cwd, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False, "", "took too long"
    return done.returncode == 0, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def _form_by_gfortran(scratch: str, path: Path) -> str | None:
    """The one form in which gfortran finds nothing wrong but what is absent: modules, included files."""
    fits = []
    for form in ("fixed", "free"):
        accepts, _, complaints = _compile(
            ["gfortran", "-fsyntax-only", "-cpp", "-w", f"-f{form}-form", f"-I{path.parent}", str(path)],
            scratch,
        )
        errors = [line for line in complaints.splitlines() if "rror" in line]
        if accepts or (errors and all(ABSENT.search(line) for line in errors)):
            fits.append(f"fortran-{form}")
    return fits[0] if len(fits) == 1 else None


def _language_by_gcc(tree: Path, path: Path) -> str | None:
    """C++ if only g++ accepts a header; C if only gcc does, or if the header tells C++ that it is C."""
    places = [f"-I{folder}" for folder in path.parents if folder.is_relative_to(tree)]
    as_c = _compile(["gcc", "-fsyntax-only", "-w", "-xc", *places, str(path)])[0]
    as_cpp = _compile(["g++", "-fsyntax-only", "-w", "-xc++", "-std=c++17", *places, str(path)])[0]
    if as_c == as_cpp:
        return "c" if as_c and _says_extern_c(places, path) else None
    return "c" if as_c else "cpp"


def _says_extern_c(places: list[str], path: Path) -> bool:
    """True if the header itself, as preprocessed for C++, holds an `extern "C"` block."""
    _, text, _ = _compile(["g++", "-E", "-w", "-xc++", *places, str(path)])
    own, kept = False, []
    for line in text.splitlines():
        if marker := re.match(r'# \d+ "(.*?)"', line):
            own = marker[1] == str(path)
        elif own:
            kept.append(line)
    return re.search(r'extern\s+"C"\s*\{', "\n".join(kept)) is not None


def _accuracy(tallies: dict[tuple[str, str], Counter[bool]]) -> list[Row]:
    rows = []
    total: Counter[bool] = Counter()
    for (case, variant), tally in sorted(tallies.items()):
        rows.append(row(case, variant, f"share right of {tally.total():,}", [tally[True] / tally.total()]))
        if variant == "name and content" and not case.endswith("by extension"):
            total += tally  # the corpus reads the extension too: agreement with it alone proves little
    if total:
        share = [total[True] / total.total()]
        rows.append(row("all by compilers", "name and content", f"share right of {total.total():,}", share))
    return rows


def _undecided(tallies: dict[tuple[str, str], Counter[bool]], asked: Counter[str]) -> list[Row]:
    """The share of the sample that each judge gave no single label: on these nothing was measured."""
    labelled: Counter[str] = Counter()
    for (case, variant), tally in tallies.items():
        if variant == "name and content":
            labelled[case.partition(" by ")[2]] += tally.total()
    return [
        row(f"no label by {how}", "left out", f"share of {count:,} asked", [1 - labelled[how] / count])
        for how, count in asked.items()
        if count
    ]


def _speed(files: list[tuple[str, bytes]]) -> list[Row]:
    """MB a second of processor time, so that other work on the machine does not enter; comments counted."""
    rows = []
    steps: dict[str, Callable[[bytes, str], object]] = {
        "regions": lambda content, language: list(regions(content, language)),
        "code tokens": lambda content, language: list(code_tokens(content, language)),
        "programming models": programming_models,
        "spans": spans,
    }
    for label in sorted({label for label, _ in files}):
        mine = [content for language, content in files if language == label]
        size = sum(map(len, mine)) / 1e6
        for name, step in steps.items():
            seconds = []
            for _ in range(3):
                start = time.process_time()
                for content in mine:
                    step(content, label)
                seconds.append(time.process_time() - start)
            rows.append(row(label, name, f"MB a second on {size:.1f} MB", [size / each for each in seconds]))
    return rows
