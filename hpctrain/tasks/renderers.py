"""Any program in any language and programming model, and how a judge calls it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hpctrain.tasks.programs_tree import For, Index, Program, Statement
from hpctrain.tasks.render import Language, Model, Renderer, Style
from hpctrain.tasks.render_c import CRenderer
from hpctrain.tasks.render_cuda import CudaRenderer, suits_cuda
from hpctrain.tasks.render_fortran import FortranRenderer

HOST_LANGUAGES: tuple[Language, ...] = ("c", "cpp", "fortran-free", "fortran-fixed")
_TYPES = {"real": "double", "int": "int"}
_CASES = ((5, 7, 6), (61, 37, 23), (128, 97, 31))
# By the depth of loops. The second size of flat programs is that of histograms: threads keep them on stacks.
_TIMED = {1: (2_000_003, 1003, 1003), 2: (2003, 1501, 701), 3: (301, 293, 283)}


def renderer(
    program: Program,
    style: Style,
    language: Language,
    model: Model = "serial",
    bare: bool = False,
    drop: Iterable[str] = (),
) -> Renderer:
    """What writes the program; see Renderer for `bare` and `drop`."""
    if model == "cuda":
        return CudaRenderer(program, style)
    if language.startswith("fortran"):
        return FortranRenderer(program, style, model, language, bare, drop)
    return CRenderer(program, style, model, language, bare, drop)


def languages_of(model: Model) -> tuple[Language, ...]:
    """Languages in which there is a programming model."""
    return ("cuda",) if model == "cuda" else HOST_LANGUAGES


def suits(program: Program, model: Model) -> bool:
    """Whether a program can be written in a programming model."""
    return model != "cuda" or suits_cuda(program)


def interface_lines(program: Program, style: Style, language: Language) -> list[str]:
    """How the program is called, in words of the language."""
    return renderer(program, replace(style, working_kind=False, two_subscripts=False), language).interface()


def entry(program: Program, language: Language) -> str:
    """The linker's name of the program; for C++ and CUDA a pattern, since compilers add to it."""
    if language.startswith("fortran"):
        return f"{program.name}_"
    return program.name if language == "c" else f"*{program.name}*"


def calling(program: Program, language: Language) -> dict[str, Any]:
    """How a driver is to call the program, as plain JSON: result, arguments with their inputs, sizes."""
    plain = CRenderer(program, Style(), "serial", "c")
    arguments = []
    for p in program.parameters:
        length = "".join(f"[{' * '.join(f'({plain.index(e)})' for e in p.extents)}]" if p.extents else "")
        value = f"pick(0, {p.below} - 1)" if p.below else "draw(0.25, 1.75)"
        if p.type == "int" and not p.extents:
            value = f"case_{p.name}"
        given = "" if p.intent == "out" else f" = {value}"
        arguments.append(f"{p.intent} {_TYPES[p.type]} {p.name}{length}{given}")
    return {
        "entry": entry(program, language),
        "returns": _TYPES[program.type_of(program.result)] if program.result else "void",
        "arguments": arguments,
        "cases": [_sizes(program, case) for case in _CASES],
        "timed": _sizes(program, _TIMED[min(3, _depth(program.body))]),
        "by_reference": language.startswith("fortran"),
    }


def _sizes(program: Program, values: tuple[int, ...]) -> dict[str, int]:
    return {f"case_{name}": value for name, value in zip(program.sizes, values, strict=False)}


def _depth(body: tuple[Statement, ...]) -> int:
    """How deep loops over sizes are nested."""
    inner = [(_depth(s.body) + (s.high != Index((), s.high.const))) for s in body if isinstance(s, For)]
    return max(inner, default=0)
