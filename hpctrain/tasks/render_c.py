"""Programs in C and C++: serial, with OpenMP, with MPI."""

from __future__ import annotations

from collections.abc import Iterable

from hpctrain.tasks.programs_tree import (
    Call,
    Count,
    Element,
    Expr,
    For,
    If,
    Index,
    Name,
    Number,
    Parameter,
    Program,
    Reduction,
    Set,
    Share,
    Statement,
    Update,
    statements,
)
from hpctrain.tasks.render import Language, Model, Renderer, Style, affine, is_sum

_TYPES = {"real": "double", "int": "int"}
_MPI_TYPES = {"real": "MPI_DOUBLE", "int": "MPI_INT"}
_MPI_OPS: dict[Reduction, str] = {"+": "MPI_SUM", "max": "MPI_MAX", "min": "MPI_MIN"}
_C_FUNCTIONS = {"abs": "fabs", "max": "fmax", "min": "fmin"}


class CRenderer(Renderer):
    """C, or C++."""

    loop_word = "for"

    def __init__(
        self,
        program: Program,
        style: Style,
        model: Model,
        language: Language = "c",
        bare: bool = False,
        drop: Iterable[str] = (),
    ) -> None:
        super().__init__(program, style, model, bare, drop)
        self.is_cpp = language != "c"
        self.two_subscripts = style.two_subscripts and language == "c"
        self.at_top = style.declares_at_top and not self.is_cpp
        self.scopes: list[set[str]] = []

    def text(self) -> str:
        """The whole file: includes and the function."""
        includes = self.includes()
        self.lines = [*includes, ""] if includes else []
        self.lines += [self.signature() + (" {" if not self.style.brace_below else "")]
        self.lines += ["{"] if self.style.brace_below else []
        self.depth = 1
        self.scopes = [set()]
        if self.at_top:
            self.declare_all()
        if self.model == "mpi":
            self.mpi_prologue()
        self.body(self.program.body)
        if self.model == "mpi" and self.uses_gather and not self.style.broadcast and not self.is_cpp:
            self.line("free(counts);")
            self.line("free(displs);")
        if self.program.result:
            self.line(f"return {self.program.result};")
        return "\n".join([*self.lines, "}"]) + "\n"

    def includes(self) -> list[str]:
        """The headers that the function needs."""
        calls = calls_in(self.program)
        extremes = {s.op for s in statements(self.program.body) if isinstance(s, Update)} & {"max", "min"}
        gathers = self.model == "mpi" and self.uses_gather and not self.style.broadcast
        names = []
        if self.is_cpp:
            names += ["<algorithm>"] if calls & {"max", "min"} or extremes else []
            names += ["<cmath>"] if calls - {"max", "min"} else []
            names += ["<vector>"] if gathers else []
        else:
            names += ["<math.h>"] if calls or extremes else []
            names += ["<stdlib.h>"] if gathers else []
        names += ["<mpi.h>"] if self.model == "mpi" else []
        return [f"#include {name}" for name in names]

    def signature(self) -> str:
        """Type, name and parameters."""
        returned = _TYPES[self.program.type_of(self.program.result)] if self.program.result else "void"
        return f"{returned} {self.program.name}({', '.join(map(self.declaration, self.program.parameters))})"

    def interface(self) -> list[str]:
        """How the function is called."""
        return [f"{self.signature()};"]

    def declaration(self, parameter: Parameter) -> str:
        """A parameter with its type."""
        kind = _TYPES[parameter.type]
        if not parameter.extents:
            return f"{kind} {parameter.name}"
        const = "const " if parameter.intent == "in" else ""
        if self.two_subscripts and len(parameter.extents) > 1:
            extents = "".join(f"[{self.index(extent)}]" for extent in parameter.extents)
            return f"{const}{kind} {parameter.name}{extents}"
        return f"{const}{kind} *{parameter.name}"

    def declare_all(self) -> None:
        """All variables at the head of the function."""
        reals = [name for name, kind in self.program.locals if kind == "real"]
        ints = [*self.variables, *(name for name, kind in self.program.locals if kind == "int")]
        self.line(f"int {', '.join(ints)};")
        if reals:
            self.line(f"double {', '.join(reals)};")
        self.scopes[-1].update(reals, ints)
        self.line("")

    # Expressions.

    def index(self, index: Index, shift: int = 0) -> str:
        """A whole number."""
        return affine(index.terms, index.const + shift)

    def subscript(self, index: Index | Element) -> str:
        """One subscript."""
        return self.index(index) if isinstance(index, Index) else self.atom(index)

    def atom(self, expr: Expr) -> str:
        """Any expression but a Binary."""
        if isinstance(expr, Number):
            return repr(expr.value)
        if isinstance(expr, Name):
            return expr.name
        if isinstance(expr, Count):
            text = self.index(expr.index)
            if self.is_cpp:
                return f"static_cast<double>({text})"
            return f"(double)({text})" if is_sum(text) else f"(double){text}"
        if isinstance(expr, Element):
            return self.element(expr.array, [self.subscript(index) for index in expr.index])
        assert isinstance(expr, Call)
        arguments = ", ".join(self.expr(argument) for argument in expr.arguments)
        name = f"std::{expr.function}" if self.is_cpp else _C_FUNCTIONS.get(expr.function, expr.function)
        return f"{name}({arguments})"

    def element(self, array: str, subscripts: list[str]) -> str:
        """An element of an array by the texts of its subscripts."""
        extents = self.program.parameter(array).extents
        if self.two_subscripts and len(extents) > 1:
            return array + "".join(f"[{subscript}]" for subscript in subscripts)
        flat = subscripts[0]
        for subscript, extent in zip(subscripts[1:], extents[1:], strict=True):
            size = self.index(extent)
            head = f"({flat})" if is_sum(flat) else flat
            flat = f"{head} * {f'({size})' if is_sum(size) else size}"
            flat += f" + {subscript}" if subscript != "0" else ""
        return f"{array}[{flat}]"

    # Statements.

    def assign(self, target: Name | Element, value: str) -> None:
        """target = value; a variable is declared where it is first set."""
        kind = ""
        if isinstance(target, Name) and not any(target.name in scope for scope in self.scopes):
            self.scopes[-1].add(target.name)
            kind = f"{_TYPES[self.program.type_of(target.name)]} "
        self.line(f"{kind}{self.atom(target)} = {value};")

    def update(self, statement: Update) -> None:
        """target op= value."""
        target, value = self.atom(statement.target), self.expr(statement.value)
        if statement.op == "+":
            self.line(f"{target} += {value};")
        else:
            self.line(f"{target} = {self.atom(Call(statement.op, (statement.target, statement.value)))};")

    def branch(self, statement: If) -> None:
        """if (...) ... else ..."""
        self.open(f"if ({self.expr(statement.left)} {statement.op} {self.expr(statement.right)})")
        self.block(statement.then)
        if statement.otherwise:
            self.close_open("else")
            self.block(statement.otherwise)
        self.close()

    def loop(self, loop: For, bounds: tuple[str, str] | None = None) -> None:
        """for (...) ..."""
        low, high = bounds or (self.index(loop.low), self.index(loop.high))
        kind = "" if self.at_top else "int "
        step = f"{loop.variable}++" if self.style.post_increment else f"++{loop.variable}"
        self.open(f"for ({kind}{loop.variable} = {low}; {loop.variable} < {high}; {step})")
        self.block(loop.body)
        self.close()

    def open(self, head: str) -> None:
        """Begin a block."""
        if self.style.brace_below:
            self.line(head)
            self.line("{")
        else:
            self.line(f"{head} {{")
        self.depth += 1

    def close(self) -> None:
        """End a block."""
        self.depth -= 1
        self.line("}")

    def close_open(self, head: str) -> None:
        """End a block and begin the next."""
        if self.style.brace_below:
            self.close()
            self.open(head)
        else:
            self.depth -= 1
            self.line(f"}} {head} {{")
            self.depth += 1

    def block(self, body: tuple[Statement, ...]) -> None:
        """Statements in a scope of their own."""
        self.scopes.append(set())
        self.body(body)
        self.scopes.pop()

    # OpenMP.

    def directive(self, text: str) -> None:
        """#pragma omp ..., at the margin as most people write it."""
        self.lines.append(f"#pragma omp {text}")

    def end_directive(self) -> None:
        """A directive of C has no end."""

    def private(self, loop: For, share: Share) -> list[str]:
        """Temporaries and inner loop variables, where they are declared outside the loop."""
        if not self.at_top:
            return []
        inner = [s.variable for s in statements(loop.body) if isinstance(s, For)]
        done = share.collapse - 1 if self.style.collapse else 0
        return list(dict.fromkeys([*inner[done:], *share.private]))

    def section(self, array: str) -> str:
        """A whole array in a reduction clause."""
        return f"{array}[:{self.index(self.program.parameter(array).extents[0])}]"

    # MPI.

    def mpi_prologue(self) -> None:
        """Rank, number of ranks, and room for the parts."""
        self.line(f"int {self.rank}, {self.ranks};")
        self.line(f"MPI_Comm_rank(MPI_COMM_WORLD, &{self.rank});")
        self.line(f"MPI_Comm_size(MPI_COMM_WORLD, &{self.ranks});")
        if self.uses_gather and not self.style.broadcast:
            if self.is_cpp:
                self.line(f"std::vector<int> counts({self.ranks}), displs({self.ranks});")
            else:
                self.line(f"int *counts = malloc({self.ranks} * sizeof *counts);")
                self.line(f"int *displs = malloc({self.ranks} * sizeof *displs);")
        self.line("")

    def part(self, loop: For, who: str) -> str:
        """Where the iterations of rank `who` begin."""
        count = Index(
            (*loop.high.terms, *((name, -times) for name, times in loop.low.terms)),
            loop.high.const - loop.low.const,
        )
        text = self.index(count)
        wide = (
            f"static_cast<long>({text})" if self.is_cpp else f"(long){f'({text})' if is_sum(text) else text}"
        )
        share = f"{wide} * {who} / {self.ranks}"
        share = f"static_cast<int>({share})" if self.is_cpp else f"(int)({share})"
        low = self.index(loop.low)
        return share if low == "0" else f"{low} + {share}"

    def split(self, loop: For) -> tuple[str, str]:
        """Set `first` and `last` to this rank's part of the loop."""
        for name, who in (("first", self.rank), ("last", f"({self.rank} + 1)")):
            is_new = not any(name in scope for scope in self.scopes)
            self.scopes[-1].add(name)
            self.line(f"{'int ' if is_new else ''}{name} = {self.part(loop, who)};")
        return "first", "last"

    def address(self, array: str, row: str) -> str:
        """Pointer to the beginning of a row."""
        rest = ["0"] * (len(self.program.parameter(array).extents) - 1)
        return f"&{self.element(array, [row, *rest])}"

    def stride(self, array: str) -> str:
        """Elements in a row, as a factor: empty for one."""
        extents = self.program.parameter(array).extents[1:]
        return "".join(f" * {self.index(extent)}" for extent in extents)

    def all_reduce(self, name: str, op: Reduction, is_array: bool) -> None:
        """Combine a scalar or a whole array over all ranks."""
        kind = _MPI_TYPES[self.program.type_of(name)]
        where = name if is_array else f"&{name}"
        count = self.index(self.program.parameter(name).extents[0]) if is_array else "1"
        self.line(f"MPI_Allreduce(MPI_IN_PLACE, {where}, {count}, {kind}, {_MPI_OPS[op]}, MPI_COMM_WORLD);")

    def exclusive_scan(self, name: str) -> None:
        """Set a scalar to the sum of those of all lower ranks."""
        kind = self.program.type_of(name)
        zero = "0.0" if kind == "real" else "0"
        self.line(f"{_TYPES[kind]} before = {zero};")
        self.line(f"MPI_Exscan(&{name}, &before, 1, {_MPI_TYPES[kind]}, MPI_SUM, MPI_COMM_WORLD);")
        self.line(f"{name} = {self.rank} == 0 ? {zero} : before;")

    def gather(self, array: str, loop: For) -> None:
        """Give every rank the rows that the others computed."""
        kind, stride = _MPI_TYPES[self.program.type_of(array)], self.stride(array)
        begin, end = self.part(loop, "r"), self.part(loop, "(r + 1)")
        step = "r++" if self.style.post_increment else "++r"
        self.open(f"for (int r = 0; r < {self.ranks}; {step})")
        if self.style.broadcast:
            self.line(f"int from = {begin};")
            self.line(f"int to = {end};")
            count = f"(to - from){stride}" if stride else "to - from"
            self.line(f"MPI_Bcast({self.address(array, 'from')}, {count}, {kind}, r, MPI_COMM_WORLD);")
            self.close()
            return
        scale = (lambda text: f"({text}){stride}") if stride else str
        self.line(f"displs[r] = {scale(begin)};")
        self.line(f"counts[r] = {scale(end)} - displs[r];")
        self.close()
        data = ".data()" if self.is_cpp else ""
        self.line(
            f"MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, {array}, "
            f"counts{data}, displs{data}, {kind}, MPI_COMM_WORLD);"
        )


def calls_in(program: Program) -> set[str]:
    """Names of the functions that a program calls."""
    found: set[str] = set()

    def visit(expr: object) -> None:
        if isinstance(expr, Call):
            found.add(expr.function)
            for argument in expr.arguments:
                visit(argument)
        elif hasattr(expr, "left"):
            visit(expr.left)
            visit(expr.right)  # type: ignore[attr-defined]

    for statement in statements(program.body):
        if isinstance(statement, Set | Update):
            visit(statement.value)
        elif isinstance(statement, If):
            visit(statement)
    return found
