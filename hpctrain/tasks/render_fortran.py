"""Programs in Fortran, free and fixed form: serial, with OpenMP, with MPI."""

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
    Share,
    Statement,
    Update,
    divided,
)
from hpctrain.tasks.render import Language, Model, Renderer, Style, affine, is_sum

_MPI_TYPES = {"real": "MPI_DOUBLE_PRECISION", "int": "MPI_INTEGER"}
_MPI_OPS: dict[Reduction, str] = {"+": "MPI_SUM", "max": "MPI_MAX", "min": "MPI_MIN"}
_FIXED_COMPARISONS = {"<": ".lt.", ">": ".gt.", "<=": ".le.", ">=": ".ge."}
_FIXED_COLUMNS = 72
_FREE_COLUMNS = 100


class FortranRenderer(Renderer):
    """Free or fixed form; arrays have their subscripts reversed, so that the memory is the same as in C."""

    loop_word = "do"

    def __init__(
        self,
        program: Program,
        style: Style,
        model: Model,
        language: Language = "fortran-free",
        bare: bool = False,
        drop: Iterable[str] = (),
    ) -> None:
        super().__init__(program, style, model, bare, drop)
        self.is_fixed = language == "fortran-fixed"
        self.kind = style.working_kind and not self.is_fixed
        self.label = 0
        self.outer_depth = 0 if self.is_fixed else 1

    def text(self) -> str:
        """The whole file: one external procedure."""
        program = self.program
        word = "function" if program.result else "subroutine"
        self.head()
        self.declarations()
        if self.model == "mpi":
            self.mpi_prologue()
        self.body(program.body)
        if program.result and self.is_fixed:
            self.line(f"{program.name} = {program.result}")
        self.depth = 0
        self.line("end" if self.is_fixed else f"end {word} {program.name}")
        text = "\n".join(self.lines) + "\n"
        if self.is_fixed and not self.style.lower_fixed:
            return text.upper().replace("'MPIF.H'", "'mpif.h'")
        return text

    def head(self) -> None:
        """The first statement."""
        program = self.program
        arguments = ", ".join(p.name for p in program.parameters)
        if not program.result:
            self.line(f"subroutine {program.name}({arguments})")
        elif self.is_fixed:
            kind = self.type_word(program.type_of(program.result))
            self.line(f"{kind} function {program.name}({arguments})")
        else:
            self.line(f"function {program.name}({arguments}) result({program.result})")
        self.depth = self.outer_depth

    def interface(self) -> list[str]:
        """How the procedure is called: its head, and the types of its arguments and result."""
        self.head()
        for parameter in self.program.parameters:
            self.declare(parameter)
        if self.program.result and not self.is_fixed:
            self.line(f"{self.type_word(self.program.type_of(self.program.result))} :: {self.program.result}")
        return self.lines

    def declarations(self) -> None:
        """Everything up to the first statement that acts."""
        program, mpi = self.program, self.model == "mpi"
        includes = mpi and self.is_fixed and not self.mixes_types()
        if mpi and not includes:
            self.line("use mpi")
        self.line("implicit none")
        if includes:
            self.line("include 'mpif.h'")
        if self.kind:
            self.line("integer, parameter :: dp = kind(1.0d0)")
        for parameter in program.parameters:
            self.declare(parameter)
        for kind in ("real", "int"):
            names = [name for name, its in program.locals if its == kind]
            names += list(self.variables) if kind == "int" else []
            if names:
                self.line(f"{self.type_word(kind)}{self.colons}{', '.join(names)}")
        if mpi:
            ints = [self.rank, self.ranks, "ierr", "first", "last", *(["r"] if self.uses_gather else [])]
            ints += ["from", "upto"] if self.uses_gather and self.style.broadcast else []
            self.line(f"integer{self.colons}{', '.join(ints)}")
            if self.uses_gather and not self.style.broadcast:
                self.line("integer, allocatable :: counts(:), displs(:)")
            for loop in divided(program):
                if loop.share and loop.share.scan:
                    self.line(f"{self.type_word(program.type_of(loop.share.scan))}{self.colons}before")
        if not self.is_fixed:
            self.line("")

    def mixes_types(self) -> bool:
        """Whether MPI calls take buffers of several types or ranks: mpif.h has no interfaces to allow it."""
        kinds = set()
        for loop in divided(self.program):
            share = loop.share or Share()
            kinds |= {(self.program.type_of(name), False) for _, name in share.reductions}
            kinds |= {(self.program.type_of(name), True) for name in (*share.rows, *share.sums)}
            kinds |= {("real", False)} if share.scan else set()
        return len(kinds) > 1

    @property
    def colons(self) -> str:
        """What stands between type and names."""
        return " " if self.is_fixed else " :: "

    def type_word(self, kind: str) -> str:
        """A type as it is declared."""
        return "integer" if kind == "int" else "real(dp)" if self.kind else "double precision"

    def declare(self, parameter: Parameter) -> None:
        """One argument."""
        shape = ", ".join(self.index(extent) for extent in reversed(parameter.extents))
        name = f"{parameter.name}({shape})" if shape else parameter.name
        if self.is_fixed:
            self.line(f"{self.type_word(parameter.type)} {name}")
        else:
            self.line(f"{self.type_word(parameter.type)}, intent({parameter.intent}) :: {name}")

    def line(self, text: str) -> None:
        """Add a statement, continued over as many lines as the form needs."""
        if not text:
            self.lines.append("")
            return
        if self.is_fixed:
            number, _, rest = text.partition(" ") if text[0].isdigit() else ("", "", text)
            blanks = " " * (self.style.indent * self.depth)
            self.lines += _wrapped(rest, f" {number:<5}{blanks}", f"     &{blanks}   ", _FIXED_COLUMNS)
            return
        head = " " * (self.style.indent * self.depth)
        self.lines += _wrapped(text, head, head + "   ", _FREE_COLUMNS, " &")

    def directive(self, text: str) -> None:
        """!$omp ..., continued where it is too long."""
        if self.is_fixed:
            self.lines += _wrapped(text, "c$omp ", "c$omp&", _FIXED_COLUMNS)
        else:
            head = " " * (self.style.indent * self.depth) + "!$omp "
            self.lines += _wrapped(text, head, head, _FREE_COLUMNS, " &")

    def end_directive(self) -> None:
        """!$omp end parallel do."""
        if self.style.end_directive:
            self.directive("end parallel do")

    # Expressions.

    def index(self, index: Index, shift: int = 0) -> str:
        """A whole number; loop variables are one more than in the tree."""
        loops = sum(times for name, times in index.terms if name in self.variables)
        return affine(index.terms, index.const - loops + shift)

    def subscript(self, index: Index | Element) -> str:
        """One subscript, counted from 1."""
        return self.index(index, 1) if isinstance(index, Index) else f"{self.atom(index)} + 1"

    def number(self, value: float | int) -> str:
        """A constant of full precision."""
        if isinstance(value, int):
            return str(value)
        text = repr(value)
        if self.kind:
            return f"{text}_dp"
        return text.replace("e+", "d") if "e" in text else f"{text}d0"

    def atom(self, expr: Expr) -> str:
        """Any expression but a Binary."""
        if isinstance(expr, Number):
            return self.number(expr.value)
        if isinstance(expr, Name):
            return expr.name
        if isinstance(expr, Count):
            text = self.index(expr.index)
            return f"real({text}, dp)" if self.kind else f"dble({text})"
        if isinstance(expr, Element):
            return f"{expr.array}({', '.join(self.subscript(index) for index in reversed(expr.index))})"
        assert isinstance(expr, Call)
        return f"{expr.function}({', '.join(self.expr(argument) for argument in expr.arguments)})"

    # Statements.

    def assign(self, target: Name | Element, value: str) -> None:
        """target = value."""
        self.line(f"{self.atom(target)} = {value}")

    def update(self, statement: Update) -> None:
        """target = target op value."""
        target = statement.target
        if statement.op == "+":
            self.line(f"{self.atom(target)} = {self.atom(target)} + {self.expr(statement.value, 1)}")
        else:
            self.line(f"{self.atom(target)} = {self.atom(Call(statement.op, (target, statement.value)))}")

    def branch(self, statement: If) -> None:
        """if (...) then ... else ... end if."""
        op = _FIXED_COMPARISONS[statement.op] if self.is_fixed else statement.op
        self.line(f"if ({self.expr(statement.left)} {op} {self.expr(statement.right)}) then")
        self.block(statement.then)
        if statement.otherwise:
            self.line("else")
            self.block(statement.otherwise)
        self.line("endif" if self.style.joined_end else "end if")

    def loop(self, loop: For, bounds: tuple[str, str] | None = None) -> None:
        """do ... end do, or a labelled do in fixed form."""
        low, high = bounds or (self.index(loop.low, 1), self.index(loop.high))
        label = ""
        # A scan divides the body in two: a closing continue would be a third part.
        if self.is_fixed and self.style.labelled_do and not (loop.share and loop.share.scan):
            self.label += 10
            label = f"{self.label} "
        self.line(f"do {label}{loop.variable} = {low}, {high}")
        self.block(loop.body)
        self.line(f"{label}continue" if label else "enddo" if self.style.joined_end else "end do")

    def block(self, body: tuple[Statement, ...]) -> None:
        """Statements one level deeper."""
        self.depth += 1
        self.body(body)
        self.depth -= 1

    # MPI.

    def mpi_prologue(self) -> None:
        """Rank, number of ranks, and room for the parts."""
        self.line(f"call MPI_Comm_rank(MPI_COMM_WORLD, {self.rank}, ierr)")
        self.line(f"call MPI_Comm_size(MPI_COMM_WORLD, {self.ranks}, ierr)")
        if self.uses_gather and not self.style.broadcast:
            self.line(f"allocate(counts({self.ranks}), displs({self.ranks}))")

    def part(self, loop: For, who: str) -> str:
        """How many places from 0 the iterations of rank `who` begin."""
        inclusive = any(name in self.variables for name, _ in (*loop.low.terms, *loop.high.terms))
        assert not inclusive, "only loops over sizes are divided"
        count = Index(
            (*loop.high.terms, *((name, -times) for name, times in loop.low.terms)),
            loop.high.const - loop.low.const,
        )
        text = self.index(count)
        share = f"({text})*{who}/{self.ranks}" if is_sum(text) else f"{text}*{who}/{self.ranks}"
        low = self.index(loop.low)
        return share if low == "0" else f"{low} + {share}"

    def split(self, loop: For) -> tuple[str, str]:
        """Set `first` and `last` to this rank's part of the loop."""
        self.line(f"first = {self.part(loop, self.rank)} + 1")
        self.line(f"last = {self.part(loop, f'({self.rank} + 1)')}")
        return "first", "last"

    def row(self, array: str, begin: str) -> str:
        """First element of a row."""
        rest = ["1"] * (len(self.program.parameter(array).extents) - 1)
        return f"{array}({', '.join([*rest, begin])})"

    def stride(self, array: str) -> str:
        """Elements in a row, as a factor: empty for one."""
        extents = self.program.parameter(array).extents[1:]
        return "".join(f"*{self.index(extent)}" for extent in extents)

    def all_reduce(self, name: str, op: Reduction, is_array: bool) -> None:
        """Combine a scalar or a whole array over all ranks."""
        kind = _MPI_TYPES[self.program.type_of(name)]
        count = self.index(self.program.parameter(name).extents[0]) if is_array else "1"
        self.line(
            f"call MPI_Allreduce(MPI_IN_PLACE, {name}, {count}, {kind}, {_MPI_OPS[op]}, MPI_COMM_WORLD, ierr)"
        )

    def exclusive_scan(self, name: str) -> None:
        """Set a scalar to the sum of those of all lower ranks."""
        kind = self.program.type_of(name)
        self.line(f"call MPI_Exscan({name}, before, 1, {_MPI_TYPES[kind]}, MPI_SUM, MPI_COMM_WORLD, ierr)")
        self.line(f"{name} = {self.number(0.0)}")
        self.line(f"if ({self.rank} {'.gt.' if self.is_fixed else '>'} 0) {name} = before")

    def gather(self, array: str, loop: For) -> None:
        """Give every rank the rows that the others computed."""
        kind, stride = _MPI_TYPES[self.program.type_of(array)], self.stride(array)
        begin, end = self.part(loop, "r"), self.part(loop, "(r + 1)")
        self.line(f"do r = 0, {self.ranks} - 1")
        self.depth += 1
        if self.style.broadcast:
            self.line(f"from = {begin}")
            self.line(f"upto = {end}")
            count = f"(upto - from){stride}" if stride else "upto - from"
            row = self.row(array, "from + 1")
            self.line(f"call MPI_Bcast({row}, {count}, {kind}, r, MPI_COMM_WORLD, ierr)")
        else:
            scale = (lambda text: f"({text}){stride}") if stride else str
            self.line(f"displs(r + 1) = {scale(begin)}")
            self.line(f"counts(r + 1) = {scale(end)} - displs(r + 1)")
        self.depth -= 1
        self.line("enddo" if self.style.joined_end else "end do")
        if not self.style.broadcast:
            self.line(
                f"call MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, {array}, counts, displs, {kind}, "
                "MPI_COMM_WORLD, ierr)"
            )


def _wrapped(text: str, head: str, next_head: str, columns: int, mark: str = "") -> list[str]:
    """A statement in lines of at most `columns`, broken where a blank stands."""
    lines, current = [], head
    words = text.split(" ")
    for number, word in enumerate(words):
        room = columns - (len(mark) if number < len(words) - 1 else 0)
        glue = "" if current in (head, next_head) else " "
        if glue and len(current) + 1 + len(word) > room:
            lines.append(current + mark)
            current, glue = next_head, ""
        current += glue + word
    return [*lines, current]
