"""Random choices for one program: names that do not clash, arrays, and bounded expressions."""

from __future__ import annotations

import random

from hpctrain.tasks.programs_tree import (
    Binary,
    Call,
    Element,
    Expr,
    For,
    Index,
    Intent,
    Name,
    Number,
    Parameter,
    Program,
    Share,
    Statement,
    Type,
    at,
)

_VERBS = (
    "apply", "blend", "build", "combine", "compute", "correct", "damp", "evaluate", "fill", "filter",
    "form", "gather", "mix", "move", "project", "relax", "scale", "shift", "smooth", "transform",
    "update", "weigh",
)  # fmt: skip
_NOUNS = (
    "column", "cells", "charge", "density", "energy", "field", "flux", "force", "grid", "heat",
    "levels", "mass", "mesh", "moment", "particles", "phase", "points", "potential", "pressure",
    "profile", "residual", "rows", "samples", "signal", "source", "spectrum", "state", "strain",
    "stress", "tracer", "velocity", "wave", "weights",
)  # fmt: skip
_ARRAYS = (
    "x", "y", "z", "u", "v", "w", "p", "q", "a", "b", "c", "d", "f", "g", "rho", "temp", "phi", "psi",
    "field", "flux", "src", "dst", "data", "values", "mass", "vel", "force", "grid", "cell", "charge",
    "coef", "in", "out",
)  # fmt: skip
_SCALARS = ("alpha", "beta", "dt", "dx", "eps", "omega", "factor", "scale", "weight", "kappa", "nu", "theta")
_SUMS = ("s", "acc", "total", "partial", "tally", "energy", "norm", "sigma")
_TEMPS = ("t", "tmp", "val", "diff", "r", "left", "mid", "work")
_INDICES = (("i", "j", "k"), ("i", "j", "k"), ("i", "j", "l"), ("ii", "jj", "kk"), ("row", "col", "pos"))
_SIZES = (
    ("n", "m", "k1"),
    ("n", "m", "nk"),
    ("nx", "ny", "nz"),
    ("rows1", "cols1", "inner"),
    ("len", "wid", "dep"),
)
_CONSTANTS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0)


class Draw:
    """Random choices and fresh names for one program."""

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(seed)
        self.name = f"{self.rng.choice(_VERBS)}_{self.rng.choice(_NOUNS)}"
        self.i, self.j, self.k = self.rng.choice(_INDICES)
        self.n, self.m, self.l = self.rng.choice(_SIZES)
        self._used = {self.i, self.j, self.k, self.n, self.m, self.l, self.name, "r"}
        self.parameters: list[Parameter] = []
        self.sizes: list[str] = []
        self.locals: list[tuple[str, Type]] = []

    def fresh(self, pool: tuple[str, ...]) -> str:
        """A name that the program does not use yet."""
        free = [name for name in pool if name not in self._used]
        name = self.rng.choice(free)
        self._used.add(name)
        return name

    def array(
        self,
        *extents: str | Index,
        intent: Intent = "in",
        kind: Type = "real",
        below: str = "",
        name: str = "",
    ) -> str:
        """A new array parameter."""
        name = name or self.fresh(_ARRAYS)
        shape = tuple(at(extent) if isinstance(extent, str) else extent for extent in extents)
        for extent in shape:
            self.sizes += [size for size, _ in extent.terms if size not in self.sizes]
        self.parameters.append(Parameter(name, kind, shape, intent, below))
        return name

    def scalar(self) -> str:
        """A new real parameter."""
        name = self.fresh(_SCALARS)
        self.parameters.append(Parameter(name, "real"))
        return name

    def temp(self) -> str:
        """A new temporary of an iteration."""
        name = self.fresh(_TEMPS)
        self.locals.append((name, "real"))
        return name

    def total(self, kind: Type = "real") -> str:
        """A new scalar that iterations add to."""
        name = self.fresh(_SUMS)
        self.locals.append((name, kind))
        return name

    def constant(self) -> Number:
        """A small positive real constant."""
        return Number(self.rng.choice(_CONSTANTS))

    def choice(self, *options: str) -> str:
        """One of a few."""
        return self.rng.choice(options)

    def chance(self, share: float) -> bool:
        """True in a share of cases."""
        return self.rng.random() < share

    def expr(self, *leaves: Expr, depth: int = 2) -> Expr:
        """A bounded, smooth expression in which every leaf occurs."""
        parts = [self._dress(leaf) if depth > 1 else leaf for leaf in leaves]
        self.rng.shuffle(parts)
        while len(parts) > 1:
            left, right = parts.pop(), parts.pop()
            parts.append(Binary(self.choice("+", "-", "*", "+"), left, right))
        whole = parts[0]
        return self._wrap(whole) if depth > 1 and self.chance(0.35) else whole

    def _dress(self, leaf: Expr) -> Expr:
        pick = self.rng.randrange(7)
        if pick == 0:
            return Binary("*", self.constant(), leaf)
        if pick == 1:
            return Binary("*", leaf, leaf)
        if pick == 2:
            return Call(self.choice("sin", "cos", "abs"), (leaf,))
        if pick == 3:
            return Binary("+", leaf, self.constant())
        if pick == 4 and self.chance(0.5):
            return Binary("*", Name(self.scalar()), leaf)
        return leaf

    def _wrap(self, whole: Expr) -> Expr:
        pick = self.rng.randrange(5)
        if pick == 0:
            return Call("sqrt", (Call("abs", (whole,)),))
        if pick == 1:
            return Call(self.choice("max", "min"), (whole, self.constant()))
        if pick == 2:
            return Binary("/", whole, Binary("+", Number(1.0), Call("abs", (whole,))))
        if pick == 3:
            return Binary("*", self.constant(), whole)
        return Binary("+", whole, self.constant())

    def program(self, kind: str, *body: Statement, result: str = "", racy: str = "") -> Program:
        """The finished program; sizes come first among its parameters."""
        sizes = [Parameter(name, "int") for name in sorted(self.sizes, key=(self.n, self.m, self.l).index)]
        arrays = [p for p in self.parameters if p.extents]
        scalars = [p for p in self.parameters if not p.extents]
        ordered = [*sizes, *scalars, *arrays] if self.chance(0.7) else [*sizes, *arrays, *scalars]
        return Program(self.name, kind, tuple(ordered), body, tuple(self.locals), result, racy)


def element(array: str, *index: str | Index | Element) -> Element:
    """An element; a name alone is an index."""
    return Element(array, tuple(at(i) if isinstance(i, str) else i for i in index))


def whole(variable: str, size: str, *body: Statement, share: Share | None = None) -> For:
    """A loop over all of a size."""
    return For(variable, Index(), at(size), body, share)
