"""The main program around a generated one: makes inputs from a seed, calls it, prints what it computed.

The driver holds neither expected values nor a verdict. It prints results, and whoever started it compares
them with what the serial program printed for the same sizes and seed, in a run of its own.
"""

from __future__ import annotations

import math

from hpctrain.tasks.programs_tree import Parameter, Program
from hpctrain.tasks.render_c import CRenderer

_TYPES = {"real": "double", "int": "int"}
TOLERANCE = 1e-9
"""Largest difference that passes, relative to max(1, |serial value|): sums may be made in another order."""

_HEAD = """\
#include <{stdio}>
#include <{stdlib}>
{includes}
{prototype};

static unsigned long long state;

/* splitmix64 */
static unsigned long long draw(void)
{{
    unsigned long long z = state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}}

static double draw_real(void)
{{
    return 0.25 + 1.5 * ((double)(draw() >> 11) / 9007199254740992.0);
}}

int main(int argc, char **argv)
{{
    if (argc != {arguments})
        return 2;
"""


def driver(program: Program, language: str, is_mpi: bool, renderer: CRenderer) -> str:
    """C, or C++ for C++ and CUDA. Its arguments are the seed and the sizes; it prints one number a line.

    Under MPI every rank calls with the same inputs and is to have the whole result: the last one prints.
    """
    is_cpp = language in ("cpp", "cuda")
    lines = ["    state = strtoull(argv[1], NULL, 10);"]
    lines += [f"    int {name} = atoi(argv[{i}]);" for i, name in enumerate(program.sizes, 2)]
    for parameter in program.parameters:
        if parameter.extents:
            lines += _array(parameter, renderer)
        elif parameter.type == "real":
            lines.append(f"    double {parameter.name} = draw_real();")
    if is_mpi:
        lines += ["    int last_rank_, this_rank_;", "    MPI_Init(&argc, &argv);"]
        lines += ["    MPI_Comm_size(MPI_COMM_WORLD, &last_rank_);", "    last_rank_ -= 1;"]
        lines.append("    MPI_Comm_rank(MPI_COMM_WORLD, &this_rank_);")
    lines.append(f"    {_call(program, language)}")
    prints = ['printf("%.17g\\n", (double)result_);'] if program.result else []
    for parameter in program.outputs():
        size = _size(parameter, renderer)
        prints.append(
            f'for (int e_ = 0; e_ < {size}; ++e_) printf("%.17g\\n", (double){parameter.name}[e_]);'
        )
    guard = "if (this_rank_ == last_rank_) " if is_mpi else ""
    lines += [f"    {guard}{text}" for text in prints]
    lines += ["    MPI_Finalize();"] if is_mpi else []
    head = _HEAD.format(
        stdio="cstdio" if is_cpp else "stdio.h", stdlib="cstdlib" if is_cpp else "stdlib.h",
        includes="#include <mpi.h>\n" if is_mpi else "",
        prototype=_prototype(program, language, renderer), arguments=len(program.sizes) + 2,
    )  # fmt: skip
    return head + "\n".join([*lines, "    return 0;", "}"]) + "\n"


def _size(parameter: Parameter, renderer: CRenderer) -> str:
    return " * ".join(f"({renderer.index(extent)})" for extent in parameter.extents)


def _array(parameter: Parameter, renderer: CRenderer) -> list[str]:
    """Declaration and contents; what is only written is filled with a value that no program computes."""
    kind, name, size = _TYPES[parameter.type], parameter.name, _size(parameter, renderer)
    value = "draw_real()" if parameter.type == "real" else f"(int)(draw() % (unsigned)({parameter.below}))"
    if parameter.intent == "out":
        value = "-77777"
    declaration = f"{kind} *{name} = ({kind} *)malloc(sizeof({kind}) * (size_t)({size}));"
    return [f"    {declaration}", f"    for (int e_ = 0; e_ < {size}; ++e_) {name}[e_] = {value};"]


def _prototype(program: Program, language: str, renderer: CRenderer) -> str:
    if not language.startswith("fortran"):
        return renderer.signature()
    kinds = ", ".join(f"{_TYPES[p.type]} *{p.name}" for p in program.parameters)
    returned = _TYPES[program.type_of(program.result)] if program.result else "void"
    return f"{returned} {program.name}_({kinds})"


def _call(program: Program, language: str) -> str:
    if language.startswith("fortran"):
        arguments = ", ".join(p.name if p.extents else f"&{p.name}" for p in program.parameters)
        call = f"{program.name}_({arguments});"
    else:
        call = f"{program.name}({', '.join(p.name for p in program.parameters)});"
    return f"{_TYPES[program.type_of(program.result)]} result_ = {call}" if program.result else call


def difference(expected: str, printed: str) -> str:
    """Where two runs of a driver differ, in words; empty if they agree."""
    want, got = expected.split(), printed.split()
    if len(want) != len(got):
        return f"{len(got)} numbers instead of {len(want)}"
    for number, (wanted, found) in enumerate(zip(want, got, strict=True)):
        try:
            value, other = float(wanted), float(found)
        except ValueError:
            return f"number {number}: {found[:40]!r} is no number"
        error = abs(value - other) / max(1.0, abs(value))
        if not error <= TOLERANCE and not (math.isnan(value) and math.isnan(other)):
            return f"number {number}: {found} instead of {wanted}"
    return ""
