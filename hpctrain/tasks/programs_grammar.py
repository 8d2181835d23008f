"""The grammar of small numerical programs: maps, stencils, reductions, scans, products, gathers and more."""

from __future__ import annotations

from collections.abc import Callable

from hpctrain.tasks.programs_draw import Draw, element, whole
from hpctrain.tasks.programs_tree import (
    Binary,
    Call,
    Count,
    Expr,
    For,
    If,
    Index,
    Name,
    Number,
    Program,
    Reduction,
    ScanPoint,
    Set,
    Share,
    Statement,
    Update,
    at,
)


def _map(d: Draw) -> Program:
    x, out = d.array(d.n), d.array(d.n, intent="out")
    leaves: list[Expr] = [element(x, d.i)]
    if d.chance(0.6):
        leaves.append(element(d.array(d.n), d.i))
    if d.chance(0.2):
        leaves.append(Binary("*", d.constant(), Call("sin", (Count(at(d.i)),))))
    if d.chance(0.4):
        t = d.temp()
        first, then = Set(Name(t), d.expr(*leaves)), Set(element(out, d.i), d.expr(Name(t), element(x, d.i)))
        return d.program("map", whole(d.i, d.n, first, then, share=Share(private=(t,), rows=(out,))))
    return d.program(
        "map", whole(d.i, d.n, Set(element(out, d.i), d.expr(*leaves)), share=Share(rows=(out,)))
    )


def _in_place(d: Draw) -> Program:
    x, y = d.array(d.n), d.array(d.n, intent="inout")
    value = d.expr(element(x, d.i), element(y, d.i))
    return d.program("in-place map", whole(d.i, d.n, Set(element(y, d.i), value), share=Share(rows=(y,))))


def _choose(d: Draw) -> Program:
    x, out = d.array(d.n), d.array(d.n, intent="out")
    leaf = element(x, d.i)
    test = If(d.choice("<", ">"), leaf, d.constant(), (Set(element(out, d.i), d.expr(leaf)),),
              (Set(element(out, d.i), d.expr(leaf)),))  # fmt: skip
    return d.program("conditional map", whole(d.i, d.n, test, share=Share(rows=(out,))))


def _map2(d: Draw) -> Program:
    x, out = d.array(d.n, d.m), d.array(d.n, d.m, intent="out")
    leaves: list[Expr] = [element(x, d.i, d.j)]
    if d.chance(0.5):
        leaves.append(element(d.array(d.n), d.i))
    if d.chance(0.5):
        leaves.append(element(d.array(d.m), d.j))
    inner = whole(d.j, d.m, Set(element(out, d.i, d.j), d.expr(*leaves)))
    return d.program("two-dimensional map", whole(d.i, d.n, inner, share=Share(rows=(out,), collapse=2)))


def _transpose(d: Draw) -> Program:
    x, out = d.array(d.n, d.m), d.array(d.m, d.n, intent="out")
    inner = whole(d.j, d.n, Set(element(out, d.i, d.j), d.expr(element(x, d.j, d.i))))
    return d.program("transpose", whole(d.i, d.m, inner, share=Share(rows=(out,), collapse=2)))


def _stencil(d: Draw) -> Program:
    radius = d.rng.choice((1, 1, 2))
    x, out = d.array(d.n), d.array(d.n, intent="inout")
    offsets = d.rng.choice(((-1, 0, 1), (-1, 1), (0, 1), (-1, 0))) if radius == 1 else (-2, -1, 0, 1, 2)
    value = d.expr(*(element(x, at(d.i, o)) for o in offsets), depth=2 if radius == 1 else 1)
    body = Set(element(out, d.i), value)
    return d.program("stencil", For(d.i, Index((), radius), at(d.n, -radius), (body,), Share(rows=(out,))))


def _stencil2(d: Draw) -> Program:
    x, out = d.array(d.n, d.m), d.array(d.n, d.m, intent="inout")
    points = d.rng.choice((((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)), ((-1, 0), (1, 0), (0, -1), (0, 1)),
                           ((0, 0), (1, 1), (-1, -1)), ((1, 0), (0, 1), (0, 0))))  # fmt: skip
    value = d.expr(*(element(x, at(d.i, a), at(d.j, b)) for a, b in points), depth=d.rng.choice((1, 2)))
    inner = For(d.j, Index((), 1), at(d.m, -1), (Set(element(out, d.i, d.j), value),))
    share = Share(rows=(out,), collapse=2)
    return d.program("two-dimensional stencil", For(d.i, Index((), 1), at(d.n, -1), (inner,), share))


def _steps(d: Draw) -> Program:
    u, work = d.array(d.n, intent="inout"), d.array(d.n, intent="inout")
    c = d.constant()
    near = [element(u, at(d.i, o)) for o in d.rng.choice(((-1, 1), (-1, 0, 1), (0, 1), (-1, 0)))]
    total: Expr = near[0]
    for leaf in near[1:]:
        total = Binary("+", total, leaf)
    value = Binary("/", Binary("*", c, total), Number(float(len(near)) + 1.0))
    if d.chance(0.5):
        value = Binary(
            "+", value, Binary("*", d.constant(), Call(d.choice("sin", "cos"), (element(u, d.i),)))
        )
    middle = (Index((), 1), at(d.n, -1))
    sweep = For(d.i, *middle, (Set(element(work, d.i), value),), Share(rows=(work,)))
    back = For(d.i, *middle, (Set(element(u, d.i), element(work, d.i)),), Share(rows=(u,)))
    steps = d.rng.choice((5, 10, 20))
    return d.program("time-stepping loop", For(d.k, Index(), Index((), steps), (sweep, back)))


def _reduce(d: Draw) -> Program:
    s, x = d.total(), d.array(d.n)
    leaves: list[Expr] = [element(x, d.i)]
    if d.chance(0.6):
        leaves.append(element(d.array(d.n), d.i))
    op: Reduction = d.rng.choice(("+", "+", "max", "min"))
    value = d.expr(*leaves)
    start: Expr = Number(0.0) if op == "+" else Number(1.0e30 if op == "min" else -1.0e30)
    add: Statement = Update(Name(s), op, value)
    if op == "+" and d.chance(0.4):
        add = If(d.choice("<", ">"), leaves[-1], d.constant(), (add,))
    loop = whole(d.i, d.n, add, share=Share(reductions=((op, s),)))
    body: list[Statement] = [Set(Name(s), start), loop]
    if op == "+" and d.chance(0.5):
        end = (
            Call("sqrt", (Call("abs", (Name(s),)),))
            if d.chance(0.5)
            else Binary("/", Name(s), Count(at(d.n)))
        )
        body.append(Set(Name(s), end))
    return d.program("reduction", *body, result=s)


def _reduce2(d: Draw) -> Program:
    s, x = d.total(), d.array(d.n, d.m)
    leaves: list[Expr] = [element(x, d.i, d.j)]
    if d.chance(0.5):
        leaves.append(element(d.array(d.m), d.j))
    if d.chance(0.3):
        leaves.append(element(d.array(d.n), d.i))
    inner = whole(d.j, d.m, Update(Name(s), "+", d.expr(*leaves)))
    loop = whole(d.i, d.n, inner, share=Share(reductions=(("+", s),), collapse=2))
    return d.program("two-dimensional reduction", Set(Name(s), Number(0.0)), loop, result=s)


def _moments(d: Draw) -> Program:
    s, q, x = d.total(), d.total(), d.array(d.n)
    leaf = element(x, d.i)
    value = d.expr(leaf, element(d.array(d.n), d.i)) if d.chance(0.5) else Binary("*", leaf, leaf)
    loop = whole(d.i, d.n, Update(Name(s), "+", leaf), Update(Name(q), "+", value),
                 share=Share(reductions=(("+", s), ("+", q))))  # fmt: skip
    mean = Binary(
        "/", Binary(d.choice("+", "-"), Name(q), Binary("*", Name(s), d.constant())), Count(at(d.n))
    )
    start = [Set(Name(s), Number(0.0)), Set(Name(q), Number(0.0))]
    return d.program("pair of reductions", *start, loop, Set(Name(s), mean), result=s)


def _normalise(d: Draw) -> Program:
    s, x, out = d.total(), d.array(d.n), d.array(d.n, intent="out")
    leaf = element(x, d.i)
    first = whole(d.i, d.n, Update(Name(s), "+", d.expr(leaf)), share=Share(reductions=(("+", s),)))
    scaled = Binary("/", d.expr(leaf), Binary("+", Number(1.0), Call("abs", (Name(s),))))
    then = whole(d.i, d.n, Set(element(out, d.i), scaled), share=Share(rows=(out,)))
    return d.program("reduction and map", Set(Name(s), Number(0.0)), first, then)


def _rows(d: Draw) -> Program:
    a, s, out = d.array(d.n, d.m), d.total(), d.array(d.n, intent="out")
    leaves: list[Expr] = [element(a, d.i, d.j)]
    if d.chance(0.7):
        leaves.append(element(d.array(d.m), d.j))
    inner = whole(d.j, d.m, Update(Name(s), "+", d.expr(*leaves)))
    end = Set(element(out, d.i), Name(s) if d.chance(0.6) else d.expr(Name(s)))
    loop = whole(d.i, d.n, Set(Name(s), Number(0.0)), inner, end, share=Share(private=(s,), rows=(out,)))
    return d.program("sum along each row", loop)


def _columns(d: Draw) -> Program:
    a, s, out = d.array(d.n, d.m), d.total(), d.array(d.m, intent="out")
    leaves: list[Expr] = [element(a, d.j, d.i)]
    if d.chance(0.5):
        leaves.append(element(d.array(d.n), d.j))
    inner = whole(d.j, d.n, Update(Name(s), "+", d.expr(*leaves)))
    body = (Set(Name(s), Number(0.0)), inner, Set(element(out, d.i), d.expr(Name(s), depth=1)))
    return d.program("sum down each column", whole(d.i, d.m, *body, share=Share(private=(s,), rows=(out,))))


def _product(d: Draw) -> Program:
    a, b, c, s = d.array(d.n, d.l), d.array(d.l, d.m), d.array(d.n, d.m, intent="out"), d.total()
    left, right = element(a, d.i, d.k), element(b, d.k, d.j)
    value = Binary("*", left, right) if d.chance(0.5) else d.expr(left, right)
    inner = whole(d.k, d.l, Update(Name(s), "+", value))
    end = Set(element(c, d.i, d.j), Name(s) if d.chance(0.5) else d.expr(Name(s)))
    rows = whole(d.j, d.m, Set(Name(s), Number(0.0)), inner, end)
    return d.program(
        "matrix product", whole(d.i, d.n, rows, share=Share(private=(s,), rows=(c,), collapse=2))
    )


def _histogram(d: Draw) -> Program:
    key, bins = d.array(d.n, kind="int", below=d.m), d.array(d.m, intent="out", kind="int")
    add: Statement = Update(element(bins, element(key, d.i)), "+", Number(1), shared=True)
    if d.chance(0.5):
        test = d.expr(element(d.array(d.n), d.i))
        add = If(d.choice("<", ">"), test, d.constant(), (add,))
    zero = whole(d.j, d.m, Set(element(bins, d.j), Number(0)))
    return d.program("histogram", zero, whole(d.i, d.n, add, share=Share(sums=(bins,))))


def _scatter(d: Draw) -> Program:
    target, x, out = d.array(d.n, kind="int", below=d.m), d.array(d.n), d.array(d.m, intent="out")
    add = Update(element(out, element(target, d.i)), "+", d.expr(element(x, d.i)), shared=True)
    zero = whole(d.j, d.m, Set(element(out, d.j), Number(0.0)))
    return d.program("scatter", zero, whole(d.i, d.n, add, share=Share(sums=(out,))))


def _gather(d: Draw) -> Program:
    source, x, out = d.array(d.n, kind="int", below=d.m), d.array(d.m), d.array(d.n, intent="out")
    leaves: list[Expr] = [element(x, element(source, d.i))]
    if d.chance(0.5):
        leaves.append(element(d.array(d.n), d.i))
    return d.program(
        "gather", whole(d.i, d.n, Set(element(out, d.i), d.expr(*leaves)), share=Share(rows=(out,)))
    )


def _sparse(d: Draw) -> Program:
    col, val = d.array(d.n, d.m, kind="int", below=d.n), d.array(d.n, d.m)
    x, s, out = d.array(d.n), d.total(), d.array(d.n, intent="out")
    value = d.expr(element(val, d.i, d.j), element(x, element(col, d.i, d.j)))
    inner = whole(d.j, d.m, Update(Name(s), "+", value))
    body = (Set(Name(s), Number(0.0)), inner, Set(element(out, d.i), Name(s)))
    return d.program("sparse product", whole(d.i, d.n, *body, share=Share(private=(s,), rows=(out,))))


def _triangle(d: Draw) -> Program:
    x, s, out = d.array(d.n), d.total(), d.array(d.n, intent="out")
    value = d.expr(element(x, d.i), element(x, d.j))
    low, high = (Index(), at(d.i, 1)) if d.chance(0.5) else (at(d.i), at(d.n))
    inner = For(d.j, low, high, (Update(Name(s), "+", value),))
    body = (Set(Name(s), Number(0.0)), inner, Set(element(out, d.i), Name(s)))
    share = Share(private=(s,), rows=(out,), is_uneven=True)
    return d.program("triangular loop", whole(d.i, d.n, *body, share=share))


def _pairs(d: Draw) -> Program:
    x, s = d.array(d.n), d.total()
    value = d.expr(element(x, d.i), element(x, d.j), element(d.array(d.n), d.j))
    inner = For(d.j, at(d.i, 1), at(d.n), (Update(Name(s), "+", value),))
    share = Share(reductions=(("+", s),), is_uneven=True)
    return d.program(
        "sum over pairs", Set(Name(s), Number(0.0)), whole(d.i, d.n, inner, share=share), result=s
    )


def _scan(d: Draw) -> Program:
    s, x, out = d.total(), d.array(d.n), d.array(d.n, intent="out")
    leaves: list[Expr] = [element(x, d.i)]
    if d.chance(0.4):
        leaves.append(element(d.array(d.n), d.i))
    body = (
        Update(Name(s), "+", d.expr(*leaves)),
        ScanPoint(s),
        Set(element(out, d.i), d.expr(Name(s), depth=1)),
    )
    loop = whole(d.i, d.n, *body, share=Share(scan=s, rows=(out,)))
    return d.program("prefix sum", Set(Name(s), Number(0.0)), loop)


def _line_recurrence(d: Draw) -> Program:
    a, x = d.array(d.n, d.m, intent="inout"), d.array(d.n, d.m)
    old = element(a, d.i, at(d.j, -1))
    value = Binary(
        "+", Binary("*", Number(d.rng.choice((0.2, 0.4, 0.5, 0.75))), old), d.expr(element(x, d.i, d.j))
    )
    inner = For(d.j, Index((), 1), at(d.m), (Set(element(a, d.i, d.j), value),))
    return d.program("recurrence along rows", whole(d.i, d.n, inner, share=Share(rows=(a,))))


def _coarsen(d: Draw) -> Program:
    x, out = d.array(at(d.n, 0, 2)), d.array(d.n, intent="out")
    value = d.expr(element(x, at(d.i, 0, 2)), element(x, at(d.i, 1, 2)))
    return d.program("coarsening", whole(d.i, d.n, Set(element(out, d.i), value), share=Share(rows=(out,))))


def _reverse(d: Draw) -> Program:
    x, out = d.array(d.n), d.array(d.n, intent="out")
    back = element(x, Index(((d.n, 1), (d.i, -1)), -1))
    value = d.expr(back, element(d.array(d.n), d.i)) if d.chance(0.6) else d.expr(back)
    return d.program("reversal", whole(d.i, d.n, Set(element(out, d.i), value), share=Share(rows=(out,))))


def _two_phases(d: Draw) -> Program:
    x, flux, out = d.array(d.n), d.array(d.n, intent="inout"), d.array(d.n, intent="inout")
    first = For(d.i, Index(), at(d.n, -1),
                (Set(element(flux, d.i), d.expr(element(x, d.i), element(x, at(d.i, 1)))),),
                Share(rows=(flux,)))  # fmt: skip
    value = Binary("-", element(x, d.i), Binary("*", d.constant(), Binary(
        "-", element(flux, d.i), element(flux, at(d.i, -1)))))  # fmt: skip
    then = For(d.i, Index((), 1), at(d.n, -1), (Set(element(out, d.i), value),), Share(rows=(out,)))
    return d.program("flux difference", first, then)


PRODUCTIONS: tuple[Callable[[Draw], Program], ...] = (
    _map, _in_place, _choose, _map2, _transpose, _stencil, _stencil2, _steps, _reduce, _reduce2, _moments,
    _normalise, _rows, _columns, _product, _histogram, _scatter, _gather, _sparse, _triangle, _pairs, _scan,
    _line_recurrence, _coarsen, _reverse, _two_phases,
)  # fmt: skip
"""Every production gives a program whose marked loops may be divided."""


def draw_program(seed: int | str) -> Program:
    """A program of a random production, with random expressions and names; the same for the same seed."""
    draw = Draw(seed)
    return draw.rng.choice(PRODUCTIONS)(draw)
