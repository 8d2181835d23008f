"""A program as source text: what all languages and programming models have in common."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hpctrain.tasks.programs_tree import (
    Binary,
    Element,
    Expr,
    For,
    If,
    Index,
    Name,
    Program,
    Reduction,
    ScanPoint,
    Set,
    Share,
    Statement,
    Update,
    divided,
    loop_variables,
)

Language = Literal["c", "cpp", "cuda", "fortran-free", "fortran-fixed"]
Model = Literal["serial", "openmp", "mpi", "cuda"]
SUFFIXES: dict[str, str] = {
    "c": ".c", "cpp": ".cpp", "cuda": ".cu", "fortran-free": ".f90", "fortran-fixed": ".f",
}  # fmt: skip
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_RANK_NAMES = (("rank", "ranks"), ("me", "nprocs"), ("my_rank", "num_ranks"), ("rank", "nranks"))


@dataclass(frozen=True)
class Style:
    """How a person happens to write; every choice gives the same program."""

    indent: int = 4
    declares_at_top: bool = False
    """C: all variables at the head of the function, so that loops need private clauses."""
    brace_below: bool = False
    post_increment: bool = False
    two_subscripts: bool = False
    """C: a[i][j] instead of a[i * m + j]."""
    working_kind: bool = False
    """Free form: real(dp) instead of double precision."""
    lower_fixed: bool = False
    labelled_do: bool = False
    joined_end: bool = False
    """Fortran: enddo instead of end do."""
    end_directive: bool = True
    schedule: str = ""
    collapse: bool = True
    atomic: bool = False
    """Shared elements by atomic updates instead of an array reduction."""
    broadcast: bool = False
    """MPI: results by a broadcast from each rank instead of an all-gather."""
    rank_names: tuple[str, str] = ("rank", "ranks")
    block: int = 256


def draw_style(rng: random.Random) -> Style:
    """A way of writing."""
    return Style(
        indent=rng.choice((2, 3, 4, 4)),
        declares_at_top=rng.random() < 0.4,
        brace_below=rng.random() < 0.4,
        post_increment=rng.random() < 0.6,
        two_subscripts=rng.random() < 0.3,
        working_kind=rng.random() < 0.5,
        lower_fixed=rng.random() < 0.3,
        labelled_do=rng.random() < 0.4,
        joined_end=rng.random() < 0.3,
        end_directive=rng.random() < 0.6,
        schedule=rng.choice(("", "", "static")),
        collapse=rng.random() < 0.5,
        atomic=rng.random() < 0.5,
        broadcast=rng.random() < 0.4,
        rank_names=rng.choice(_RANK_NAMES),
        block=rng.choice((128, 256, 256, 512)),
    )


class Renderer(ABC):
    """Writes one program in one language and one programming model.

    `bare` puts a parallel loop directive without clauses on each outermost loop of the serial program.
    `drop` names variables that are left out of the OpenMP clauses and atomic updates that they need.
    """

    loop_word: str
    outer_depth = 1
    """Depth of the statements of the program itself."""

    def __init__(
        self, program: Program, style: Style, model: Model, bare: bool = False, drop: Iterable[str] = ()
    ) -> None:
        self.program, self.style, self.model = program, style, model
        self.bare, self.drop = bare, frozenset(drop)
        self.lines: list[str] = []
        self.depth = 0
        self.variables = loop_variables(program)
        self.rank, self.ranks = style.rank_names
        self.uses_gather = any(loop.share and loop.share.rows for loop in divided(program))

    @abstractmethod
    def text(self) -> str:
        """The whole file."""

    @abstractmethod
    def interface(self) -> list[str]:
        """Lines that say how the function is called."""

    # Words of the language.

    @abstractmethod
    def index(self, index: Index, shift: int = 0) -> str:
        """A whole number; `shift` as the language counts."""

    @abstractmethod
    def atom(self, expr: Expr) -> str:
        """Any expression but a Binary."""

    @abstractmethod
    def assign(self, target: Name | Element, value: str) -> None:
        """target = value."""

    @abstractmethod
    def update(self, statement: Update) -> None:
        """target = target op value."""

    @abstractmethod
    def branch(self, statement: If) -> None:
        """A condition with its statements."""

    @abstractmethod
    def loop(self, loop: For, bounds: tuple[str, str] | None = None) -> None:
        """A plain loop, over its own bounds or those given."""

    @abstractmethod
    def directive(self, text: str) -> None:
        """An OpenMP directive."""

    @abstractmethod
    def split(self, loop: For) -> tuple[str, str]:
        """Compute this rank's part of a loop; gives the bounds."""

    @abstractmethod
    def all_reduce(self, name: str, op: Reduction, is_array: bool) -> None:
        """Combine a scalar or a whole array over all ranks."""

    @abstractmethod
    def exclusive_scan(self, name: str) -> None:
        """Set a scalar to the sum of those of all lower ranks."""

    @abstractmethod
    def gather(self, array: str, loop: For) -> None:
        """Give every rank the rows that the others computed."""

    # What follows from them.

    def line(self, text: str) -> None:
        """Add a line at the present depth."""
        self.lines.append(f"{' ' * (self.style.indent * self.depth)}{text}" if text else "")

    def expr(self, expr: Expr, above: int = 0) -> str:
        """An expression, in parentheses where it binds less than what is above it."""
        if not isinstance(expr, Binary):
            return self.atom(expr)
        level = _PRECEDENCE[expr.op]
        right_level = level + (expr.op in "-/")
        text = f"{self.expr(expr.left, level)} {expr.op} {self.expr(expr.right, right_level)}"
        return f"({text})" if level < above else text

    def body(self, body: tuple[Statement, ...]) -> None:
        """Statements in turn."""
        for statement in body:
            self.statement(statement)

    def statement(self, statement: Statement) -> None:
        """One statement with what the programming model puts around it."""
        if isinstance(statement, Set):
            self.assign(statement.target, self.expr(statement.value))
        elif isinstance(statement, Update):
            if statement.shared and self._is_atomic(statement):
                self.directive("atomic")
            self.update(statement)
        elif isinstance(statement, If):
            self.branch(statement)
        elif isinstance(statement, ScanPoint):
            if self.model == "openmp" and not self.bare and statement.scalar not in self.drop:
                self.directive(f"scan inclusive({statement.scalar})")
        elif self.bare and self.depth == self.outer_depth:
            self.directive(f"parallel {self.loop_word}")
            self.loop(statement)
        elif statement.share is None or self.bare:
            self.loop(statement)
        else:
            self.divided_loop(statement, statement.share)

    def divided_loop(self, loop: For, share: Share) -> None:
        """A loop whose iterations may be divided, as the programming model divides them."""
        if self.model == "openmp":
            self.directive(" ".join([f"parallel {self.loop_word}", *self.clauses(loop, share)]))
            self.loop(loop)
            self.end_directive()
        elif self.model == "mpi":
            bounds = self.split(loop)
            if share.scan:
                cut = next(i for i, s in enumerate(loop.body) if isinstance(s, ScanPoint))
                self.loop(For(loop.variable, loop.low, loop.high, loop.body[:cut]), bounds)
                self.exclusive_scan(share.scan)
            self.loop(loop, bounds)
            for op, name in share.reductions:
                self.all_reduce(name, op, is_array=False)
            for array in share.sums:
                self.all_reduce(array, "+", is_array=True)
            for array in share.rows:
                self.gather(array, loop)
        else:
            self.loop(loop)

    @abstractmethod
    def end_directive(self) -> None:
        """Close a parallel loop, where the language has words for it."""

    def clauses(self, loop: For, share: Share) -> list[str]:
        """OpenMP clauses that make the divided loop right, without those to be dropped."""
        texts = []
        by_op: dict[str, list[str]] = {}
        for op, name in share.reductions:
            if name not in self.drop:
                by_op.setdefault(op, []).append(name)
        texts += [f"reduction({op}:{', '.join(names)})" for op, names in by_op.items()]
        if share.scan and share.scan not in self.drop:
            texts.append(f"reduction(inscan, +:{share.scan})")
        shared = [name for name in share.sums if name not in self.drop and not self.style.atomic]
        texts += [f"reduction(+:{self.section(name)})" for name in shared]
        if private := [name for name in self.private(loop, share) if name not in self.drop]:
            texts.append(f"private({', '.join(private)})")
        if share.collapse > 1 and self.style.collapse:
            texts.append(f"collapse({share.collapse})")
        if share.is_uneven:
            texts.append("schedule(dynamic)")
        elif self.style.schedule and not share.scan:
            texts.append(f"schedule({self.style.schedule})")
        return texts

    def private(self, loop: For, share: Share) -> list[str]:
        """Variables that need a private clause."""
        return list(share.private)

    def section(self, array: str) -> str:
        """A whole array in a reduction clause."""
        return array

    def _is_atomic(self, statement: Update) -> bool:
        dropped = isinstance(statement.target, Element) and statement.target.array in self.drop
        return self.model == "openmp" and not self.bare and self.style.atomic and not dropped


def affine(terms: Iterable[tuple[str, int]], const: int) -> str:
    """A sum of multiples of names and a constant, such as `2*i - 1`."""
    text = ""
    for name, times in terms:
        part = name if abs(times) == 1 else f"{abs(times)}*{name}"
        sign = ("-" if times < 0 else "") if not text else (" - " if times < 0 else " + ")
        text += f"{sign}{part}"
    if not text:
        return str(const)
    return text if const == 0 else f"{text} {'+' if const > 0 else '-'} {abs(const)}"


def is_sum(text: str) -> bool:
    """Whether the text of an index needs parentheses before it is multiplied."""
    return " " in text
