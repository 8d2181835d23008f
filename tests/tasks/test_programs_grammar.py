"""Programs of the grammar: the same in every language and model, and written as each form demands."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.models import programming_models
from hpctrain.sandbox.run import Sandbox
from hpctrain.tasks.programs_check import Code, can_check, check, draw_sizes
from hpctrain.tasks.programs_draw import Draw
from hpctrain.tasks.programs_driver import driver
from hpctrain.tasks.programs_grammar import PRODUCTIONS, draw_program
from hpctrain.tasks.programs_tree import Program, shape
from hpctrain.tasks.render import Style, draw_style
from hpctrain.tasks.render_c import CRenderer
from hpctrain.tasks.renderers import HOST_LANGUAGES, calling, renderer, suits

TARGETS = [(language, model) for language in HOST_LANGUAGES for model in ("serial", "openmp", "mpi")]
PLAIN = Style()
seeds = st.integers(0, 10**6)


def code(program: Program, style: Style, language: str, model: str) -> Code:
    head = CRenderer(program, style, "serial", "c" if language.startswith("fortran") else language)
    text = renderer(program, style, language, model).text()
    return Code(
        language, "" if model == "serial" else model, text, driver(program, language, model == "mpi", head)
    )


def wrong(program: Program, style: Style, other: Code, count: int = 3) -> str:
    inputs = [draw_sizes(random.Random(1), len(program.sizes))]
    return check(Sandbox(), code(program, style, "c", "serial"), other, inputs, (count,))


@pytest.mark.parametrize("number", range(len(PRODUCTIONS)))
def test_a_production_computes_the_same_in_another_language_and_model(number: int) -> None:
    language, model = TARGETS[(5 * number + 1) % len(TARGETS)]
    if not can_check(language, model):
        pytest.skip(f"no compiler for {language} with {model}")
    program = PRODUCTIONS[number](Draw(f"test {number}"))
    style = draw_style(random.Random(number))
    assert wrong(program, style, code(program, style, language, model)) == ""


def test_a_wrong_rendering_is_found() -> None:
    program = PRODUCTIONS[0](Draw(3))
    right = code(program, PLAIN, "c", "openmp")
    broken = re.sub(r"(\w+\[\w+\]) = (.*);", r"\1 = 1.5 + (\2);", right.text)
    assert broken != right.text
    assert "instead of" in wrong(program, PLAIN, replace(right, text=broken))
    assert wrong(program, PLAIN, replace(right, text="int nothing;\n")).startswith("not built")


@pytest.mark.skipif(not can_check("cuda", "cuda"), reason="no nvcc")
def test_cuda_builds() -> None:
    program = next(p for p in map(draw_program, range(50)) if p.kind == "histogram")
    assert wrong(program, PLAIN, code(program, PLAIN, "cuda", "cuda")) == ""


@settings(max_examples=60, deadline=None)
@given(seeds, seeds)
def test_every_rendering_keeps_to_its_form(seed: int, other: int) -> None:
    program, style = draw_program(seed), draw_style(random.Random(other))
    for language, model in TARGETS:
        text = renderer(program, style, language, model).text()
        assert text.isascii()
        assert text.endswith("\n")
        lines = text.splitlines()
        if language == "fortran-fixed":
            assert all(len(line) <= 72 for line in lines)
            assert all(re.match(r"C\$OMP|c\$omp|     &| [ \d]{5}", line) for line in lines), text
        elif language == "fortran-free":
            assert all(len(line) <= 132 for line in lines)
        used = programming_models(text.encode(), language)
        assert used == (set() if model == "serial" else {model})
        names = [p.name for p in program.parameters] + [name for name, _ in program.locals]
        assert len({name.lower() for name in names}) == len(names)
    if suits(program, "cuda"):
        text = renderer(program, style, "cuda", "cuda").text()
        assert "cuda" in programming_models(text.encode(), "cuda")


@given(seeds)
@settings(deadline=None)
def test_a_program_is_the_same_for_the_same_seed_and_its_shape_knows_no_names(seed: int) -> None:
    program = draw_program(seed)
    assert draw_program(seed) == program
    assert program.name not in shape(program)
    assert not set(re.findall(r"[a-z]{3,}\d?", shape(program).partition(":")[2])) & {
        p.name for p in program.parameters if len(p.name) > 4
    }


def test_shapes_tell_programs_apart() -> None:
    shapes = {shape(draw_program(seed)) for seed in range(300)}
    assert len(shapes) > 150


def test_what_a_driver_is_told() -> None:
    program = next(p for p in map(draw_program, range(50)) if p.kind == "gather")
    told = calling(program, "fortran-free")
    assert told["entry"] == f"{program.name}_"
    assert told["by_reference"]
    n, m = program.sizes
    assert f"in int {n} = case_{n}" in told["arguments"]
    assert any(f"pick(0, {m} - 1)" in argument for argument in told["arguments"])
    assert set(told["timed"]) == {f"case_{n}", f"case_{m}"}


def test_bare_and_dropped_directives() -> None:
    program = next(p for p in map(draw_program, range(50)) if p.kind == "pair of reductions")
    bare = renderer(program, PLAIN, "c", bare=True).text()
    assert "#pragma omp parallel for\n" in bare
    dropped = renderer(program, PLAIN, "c", "openmp", drop=(program.result,)).text()
    whole = renderer(program, PLAIN, "c", "openmp").text()
    assert re.search(rf"reduction\(\+:.*\b{program.result}\b", whole)
    assert not re.search(rf"reduction\(\+:.*\b{program.result}\b", dropped)
