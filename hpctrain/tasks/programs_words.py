"""What a program does, in plain English with the names of the language it is to be written in."""

from __future__ import annotations

import random
import textwrap

from hpctrain.tasks.programs_tree import For, If, Program, ScanPoint, Set, Statement, Update
from hpctrain.tasks.render import Renderer

LANGUAGE_NAMES = {
    "c": "C", "cpp": "C++", "cuda": "CUDA C++", "fortran-free": "free-form Fortran",
    "fortran-fixed": "fixed-form Fortran",
}  # fmt: skip
MODEL_NAMES = {"serial": "", "openmp": "OpenMP", "mpi": "MPI", "cuda": "CUDA"}
PROMISES = {
    "serial": "",
    "openmp": "",
    "mpi": "Every rank has all arguments and is to get the whole result.",
    "cuda": "Array pointers are device memory.",
}
"""What a caller may rely on, and does not see from the signature."""
_COMMENTS = {"fortran-free": "! ", "fortran-fixed": "C     "}
_COLUMNS = 88
_OPENERS = (
    "Write {unit} {name}: {kind}.",
    "Implement {kind} as {unit} {name}.",
    "{Unit} {name} is needed: {kind}.",
    "Please write {unit} {name} for {kind}.",
)
_PARALLEL = (
    "Make it parallel with {model}.", "Use {model}.", "It is to run in parallel, with {model}.",
    "Share out the work with {model}.",
)  # fmt: skip


def comment(text: str, language: str, wrap: bool = True) -> str:
    """Text as comment lines of a language."""
    mark = _COMMENTS.get(language, "// ")
    lines = [
        line
        for part in text.splitlines()
        for line in (textwrap.wrap(part, 66 if language == "fortran-fixed" else _COLUMNS) if wrap else [part])
    ]
    return "".join(f"{mark}{line}".rstrip() + "\n" for line in lines)


def request(
    program: Program, renderer: Renderer, language: str, model: str, rng: random.Random, interface: list[str]
) -> str:
    """A request for a program, as comment lines: what it is, how it is called, what it computes."""
    word = "function" if program.result or not language.startswith("fortran") else "subroutine"
    unit = f"a {LANGUAGE_NAMES[language]} {word}"
    opener = rng.choice(_OPENERS).format(
        unit=unit, Unit=f"A{unit[1:]}", name=program.name, kind=_article(program.kind)
    )
    parallel = rng.choice(_PARALLEL).format(model=MODEL_NAMES[model]) if model != "serial" else ""
    head = " ".join(part for part in (opener, parallel, PROMISES[model]) if part)
    fixed_margin = 6 if language == "fortran-fixed" else 0
    lines = "\n".join(f"    {line[fixed_margin:]}" for line in interface)
    return (
        comment(head, language)
        + comment(lines, language, wrap=False)
        + comment(describe(program, renderer, rng), language)
    )


def describe(program: Program, renderer: Renderer, rng: random.Random) -> str:
    """What a program computes, a sentence for each of its steps."""
    loop_phrase = rng.choice(("For each {i} from {low} to {high}: ", "For {i} = {low}, ..., {high}, ",
                              "For all {i} between {low} and {high}, "))  # fmt: skip
    sentences = [_step(statement, renderer, loop_phrase) for statement in program.body]
    if program.result:
        sentences.append(rng.choice((f"return {program.result}", f"{program.result} is the result")))
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences if text)


def _step(statement: Statement, renderer: Renderer, loop_phrase: str) -> str:
    if isinstance(statement, Set):
        return f"set {renderer.atom(statement.target)} to {renderer.expr(statement.value)}"
    if isinstance(statement, Update):
        target, value = renderer.atom(statement.target), renderer.expr(statement.value)
        if statement.op == "+":
            return f"add {value} to {target}"
        return f"set {target} to the {statement.op}imum of {target} and {value}"
    if isinstance(statement, If):
        test = f"{renderer.expr(statement.left)} {statement.op} {renderer.expr(statement.right)}"
        otherwise = _steps(statement.otherwise, renderer, loop_phrase)
        return f"if {test}, {_steps(statement.then, renderer, loop_phrase)}" + (
            f", otherwise {otherwise}" if otherwise else ""
        )
    if isinstance(statement, ScanPoint):
        return ""
    base = 1 if renderer.loop_word == "do" else 0
    low, high = renderer.index(statement.low, base), renderer.index(statement.high, base - 1)
    head = loop_phrase.format(i=statement.variable, low=low, high=high)
    return f"{head[0].lower()}{head[1:]}{_steps(statement.body, renderer, loop_phrase)}"


def _steps(body: tuple[Statement, ...], renderer: Renderer, loop_phrase: str) -> str:
    text = ""
    is_after_loop = False
    for statement in body:
        step = _step(statement, renderer, loop_phrase)
        if text and step:
            text += "; after that loop " if is_after_loop else ", then "
        text += step
        is_after_loop = isinstance(statement, For)
    return text


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
