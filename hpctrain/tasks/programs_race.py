"""Loops with a data race and without, in pairs that differ in little else; the truth is known from the tree.

A race is planted by leaving a variable out of the clauses that it needs, or by an index of another iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

from hpctrain.tasks.programs_draw import Draw, element, whole
from hpctrain.tasks.programs_grammar import draw_program
from hpctrain.tasks.programs_tree import (
    Binary,
    Call,
    Element,
    Expr,
    For,
    Index,
    Number,
    Program,
    Set,
    Share,
    Statement,
    at,
    divided,
)
from hpctrain.tasks.render import Language, Style
from hpctrain.tasks.renderers import renderer

_DEPENDENCE_SHARE = 0.35
"""Pairs that differ in an index; the others in a clause."""


@dataclass(frozen=True)
class RaceCase:
    """A loop shared among threads."""

    program: Program
    drop: str = ""
    """The variable that is left out of the directive."""
    variable: str = ""
    """What threads race for; empty: there is no race."""


def race_pair(seed: int | str, style: Style, language: Language) -> tuple[RaceCase, RaceCase]:
    """A case with a race and one without, of one program or of two that differ in an index."""
    draw = Draw(f"{seed}-race")
    if draw.chance(_DEPENDENCE_SHARE):
        return draw.rng.choice(DEPENDENCES)(draw)
    for attempt in count():
        program = draw_program(f"{seed}-{attempt}")
        if planted := list(_planted(program, style, language)):
            break
    variable = draw.rng.choice(planted)
    return RaceCase(program, variable, variable), RaceCase(program)


def _planted(program: Program, style: Style, language: Language) -> Iterator[str]:
    """Variables that the directives of a program cannot do without."""
    write = renderer(program, style, language, "openmp")
    for loop in divided(program):
        share = loop.share or Share()
        yield from (name for _, name in share.reductions)
        yield from share.sums
        yield from write.private(loop, share)
        yield from [share.scan] if share.scan else []


def _without(program: Program, kind: str, *body: Statement) -> Program:
    """The same head with another body."""
    return replace(program, kind=kind, body=body)


def _shift(d: Draw) -> tuple[RaceCase, RaceCase]:
    """x[i] from x[i + 1]: in place, or from another array."""
    x, y = d.array(d.n, intent="inout"), d.array(d.n, intent="inout")
    offset = d.rng.choice((1, 1, 2, -1, -2))
    low, high = (Index(), at(d.n, -offset)) if offset > 0 else (Index((), -offset), at(d.n))
    value = d.expr(element(x, at(d.i, offset)))
    mixed = Binary("+", value, element(y, d.i)) if d.chance(0.5) else value

    def loop(target: str) -> For:
        return For(d.i, low, high, (Set(element(target, d.i), mixed),), Share(rows=(target,)))

    racy = d.program("shift in place", loop(x))
    return RaceCase(racy, variable=x), RaceCase(_without(racy, "shift", loop(y)))


def _recurrence(d: Draw) -> tuple[RaceCase, RaceCase]:
    """a[i][j] from the row before, or from the column before: rows are shared out."""
    a, b = d.array(d.n, d.m, intent="inout"), d.array(d.n, d.m)
    here = d.expr(element(b, d.i, d.j))
    decay = Number(d.rng.choice((0.25, 0.5, 0.75)))

    def nest(old: Element, low_i: int, low_j: int) -> For:
        value: Expr = Binary("+", Binary("*", decay, old), here)
        inner = For(d.j, Index((), low_j), at(d.m), (Set(element(a, d.i, d.j), value),))
        return For(d.i, Index((), low_i), at(d.n), (inner,), Share(rows=(a,)))

    racy = d.program("recurrence down columns", nest(element(a, at(d.i, -1), d.j), 1, 0))
    safe = _without(racy, "recurrence along rows", nest(element(a, d.i, at(d.j, -1)), 0, 1))
    return RaceCase(racy, variable=a), RaceCase(safe)


def _halves(d: Draw) -> tuple[RaceCase, RaceCase]:
    """x[i] from the other half of x, or from a neighbour in the same half."""
    x = d.array(at(d.n, 0, 2), intent="inout")
    form = d.expr(element(x, Index(((d.i, 1), (d.n, 1)))))

    def loop(value: Expr) -> For:
        return whole(d.i, d.n, Set(element(x, d.i), value), share=Share(rows=()))

    near = _replaced(form, Index(((d.i, 1), (d.n, 1))), at(d.i, 1))
    racy = d.program("neighbour in place", loop(near))
    return RaceCase(racy, variable=x), RaceCase(_without(racy, "halves", loop(form)))


def _strides(d: Draw) -> tuple[RaceCase, RaceCase]:
    """Even elements from the odd ones, or from the first half of all."""
    x = d.array(at(d.n, 0, 2), intent="inout")
    odd = at(d.i, 1, 2)
    form = d.expr(element(x, odd))

    def loop(value: Expr) -> For:
        return whole(d.i, d.n, Set(element(x, at(d.i, 0, 2)), value), share=Share(rows=()))

    racy = d.program("even from all", loop(_replaced(form, odd, at(d.i))))
    return RaceCase(racy, variable=x), RaceCase(_without(racy, "even from odd", loop(form)))


def _mirror(d: Draw) -> tuple[RaceCase, RaceCase]:
    """x[i] from x[n - 1 - i]: in place, or into another array."""
    x, y = d.array(d.n, intent="inout"), d.array(d.n, intent="inout")
    value = d.expr(element(x, Index(((d.n, 1), (d.i, -1)), -1)), element(y, d.i))

    def loop(target: str) -> For:
        return whole(d.i, d.n, Set(element(target, d.i), value), share=Share(rows=(target,)))

    racy = d.program("reversal in place", loop(x))
    return RaceCase(racy, variable=x), RaceCase(_without(racy, "reversal", loop(y)))


def _columns(d: Draw) -> tuple[RaceCase, RaceCase]:
    """Sums into an array by the inner loop's index, or by the outer one's."""
    a = d.array(d.n, d.n)
    out = d.array(d.n, intent="inout")
    value = d.expr(element(a, d.i, d.j))

    def nest(target: str) -> For:
        add = Set(element(out, target), Binary("+", element(out, target), value))
        return whole(d.i, d.n, whole(d.j, d.n, add), share=Share(rows=()))

    racy = d.program("sums by inner index", nest(d.j))
    return RaceCase(racy, variable=out), RaceCase(_without(racy, "sums by outer index", nest(d.i)))


DEPENDENCES: tuple[Callable[[Draw], tuple[RaceCase, RaceCase]], ...] = (
    _shift, _recurrence, _halves, _strides, _mirror, _columns,
)  # fmt: skip
"""Pairs that differ in an index, or in the array that is written."""


def _replaced(expr: Expr, old: Index, new: Index) -> Expr:
    """An expression with one subscript exchanged for another."""
    if isinstance(expr, Element):
        return Element(expr.array, tuple(new if index == old else index for index in expr.index))
    if isinstance(expr, Binary):
        return Binary(expr.op, _replaced(expr.left, old, new), _replaced(expr.right, old, new))
    if isinstance(expr, Call):
        return replace(expr, arguments=tuple(_replaced(part, old, new) for part in expr.arguments))
    return expr
