"""Small numerical programs as trees: typed parameters, loops over arrays, and how each loop may be divided.

Indices count from 0 and arrays are row-major, as in C. Fortran has the same memory with its subscripts
reversed and counted from 1; the renderers see to that, so one tree is one program in every language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Type = Literal["real", "int"]
Intent = Literal["in", "out", "inout"]
Reduction = Literal["+", "max", "min"]


@dataclass(frozen=True)
class Index:
    """A whole number that is affine in variables: the sum of coefficient times variable, and a constant."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0

    def plus(self, amount: int) -> Index:
        """The index that is `amount` further."""
        return replace(self, const=self.const + amount)


def at(variable: str, offset: int = 0, times: int = 1) -> Index:
    """`times * variable + offset`."""
    return Index(((variable, times),), offset)


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float | int


@dataclass(frozen=True)
class Name:
    """A scalar: parameter, local or result."""

    name: str


@dataclass(frozen=True)
class Count:
    """An index used as a real value."""

    index: Index


@dataclass(frozen=True)
class Element:
    """An array element; a subscript may itself be an element of an array of whole numbers."""

    array: str
    index: tuple[Index | Element, ...]


@dataclass(frozen=True)
class Binary:
    """Two operands and one of + - * /."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Call:
    """One of sqrt, abs, exp, sin, cos, max, min."""

    function: str
    arguments: tuple[Expr, ...]


Expr = Number | Name | Count | Element | Binary | Call


@dataclass(frozen=True)
class Set:
    """target = value."""

    target: Name | Element
    value: Expr


@dataclass(frozen=True)
class Update:
    """target = target op value; `shared` where several iterations may update one element."""

    target: Name | Element
    op: Reduction
    value: Expr
    shared: bool = False


@dataclass(frozen=True)
class If:
    """A comparison (<, >, <=, >=) and what is done if it holds, or if not."""

    op: str
    left: Expr
    right: Expr
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True)
class ScanPoint:
    """Between the update of a prefix scan's scalar and its use in the same iteration."""

    scalar: str


@dataclass(frozen=True)
class Share:
    """How the iterations of a loop may be divided among threads or ranks."""

    reductions: tuple[tuple[Reduction, str], ...] = ()
    """Scalars that all iterations update."""
    private: tuple[str, ...] = ()
    """Temporaries of an iteration."""
    rows: tuple[str, ...] = ()
    """Arrays of which iteration i writes row i, and no other writes that."""
    sums: tuple[str, ...] = ()
    """Arrays of whole numbers, or real ones, to any element of which an iteration adds."""
    collapse: int = 1
    """Perfectly nested loops that may be divided together."""
    is_uneven: bool = False
    """Whether iterations differ in length."""
    scan: str | None = None
    """The scalar of a prefix scan."""


@dataclass(frozen=True)
class For:
    """A loop over low <= variable < high; `share` where its iterations may be divided."""

    variable: str
    low: Index
    high: Index
    body: tuple[Statement, ...]
    share: Share | None = None


Statement = Set | Update | If | ScanPoint | For


@dataclass(frozen=True)
class Parameter:
    """An argument of the program."""

    name: str
    type: Type
    extents: tuple[Index, ...] = ()
    """Of an array, slowest first; none: a scalar."""
    intent: Intent = "in"
    below: str = ""
    """For arrays of whole numbers: the size that every element stays below."""


@dataclass(frozen=True)
class Program:
    """A function on arrays. Scalars of whole numbers among the parameters are sizes."""

    name: str
    kind: str
    """The production of the grammar."""
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    locals: tuple[tuple[str, Type], ...] = ()
    """Scalars beside loop variables."""
    result: str = ""
    """The local that is returned; none: results are left in arrays."""
    racy: str = ""
    """The variable that iterations race for where the divided loops are not in truth divisible."""

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the scalars of whole numbers."""
        return tuple(p.name for p in self.parameters if p.type == "int" and not p.extents)

    def parameter(self, name: str) -> Parameter:
        """The parameter of this name."""
        return next(p for p in self.parameters if p.name == name)

    def type_of(self, name: str) -> Type:
        """Type of a parameter or local."""
        return {**dict(self.locals), **{p.name: p.type for p in self.parameters}}[name]

    def outputs(self) -> tuple[Parameter, ...]:
        """Arrays that the program writes."""
        return tuple(p for p in self.parameters if p.intent != "in")


def statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Every statement of a body, with those inside, in order."""
    for statement in body:
        yield statement
        if isinstance(statement, For):
            yield from statements(statement.body)
        elif isinstance(statement, If):
            yield from statements(statement.then)
            yield from statements(statement.otherwise)


def loops(program: Program) -> list[For]:
    """Every loop of a program, in order."""
    return [s for s in statements(program.body) if isinstance(s, For)]


def loop_variables(program: Program) -> tuple[str, ...]:
    """The variables of all loops, each once, in order."""
    return tuple(dict.fromkeys(loop.variable for loop in loops(program)))


def divided(program: Program) -> list[For]:
    """The loops whose iterations may be divided."""
    return [loop for loop in loops(program) if loop.share is not None]


def shape(program: Program) -> str:
    """The program without its names and constants: equal for programs that differ only in these."""
    names: dict[str, str] = {}

    def name(text: str) -> str:
        return names.setdefault(text, f"v{len(names)}")

    def walk(node: object) -> str:
        if isinstance(node, Number):
            return "#"
        if isinstance(node, Name):
            return name(node.name)
        if isinstance(node, Index):
            return "+".join(f"{c}{name(v)}" for v, c in node.terms) + f"{node.const:+d}"
        if isinstance(node, Element):
            return f"{name(node.array)}[{','.join(map(walk, node.index))}]"
        if isinstance(node, Binary):
            return f"({walk(node.left)}{node.op}{walk(node.right)})"
        if isinstance(node, Call):
            return f"{node.function}({','.join(map(walk, node.arguments))})"
        if isinstance(node, Count):
            return f"real({walk(node.index)})"
        if isinstance(node, Set):
            return f"{walk(node.target)}={walk(node.value)}"
        if isinstance(node, Update):
            return f"{walk(node.target)}{node.op}={walk(node.value)}"
        if isinstance(node, If):
            branches = f"{{{';'.join(map(walk, node.then))}}}{{{';'.join(map(walk, node.otherwise))}}}"
            return f"if {walk(node.left)}{node.op}{walk(node.right)}{branches}"
        if isinstance(node, For):
            head = f"for {name(node.variable)} {walk(node.low)} {walk(node.high)}"
            return f"{head}{{{';'.join(map(walk, node.body))}}}"
        return "scan"

    return f"{program.kind}:{';'.join(map(walk, program.body))}"
