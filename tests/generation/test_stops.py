"""An answer ends with its line or its function, in every form of every language."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.function_end import find_function_end
from hpctrain.generation.stops import find_end, make_stop
from hpctrain.tokenizer.codec import Tokenizer

MORE = {
    "c": b"\nint next(void) { return 1; }\n",
    "fortran-free": b"subroutine next\nend subroutine\n",
    "fortran-fixed": b"      SUBROUTINE NEXT\n      END\n",
}
CASES = [
    ("c", b"void f(int n) {\n", b'  if (n) { g("}"); } /* } */\n}'),
    ("c", b"// twice\nint twice(int n)\n", b"{\n  return 2 * n; // }\n}"),
    ("c", b"static int t[] = {1, 2};\nint f(void) {", b"\n  struct s { int a; } x = {3};\n  return x.a; }"),
    ("c", b"", b"#include <a.h>\nint t[] = {1};\nstruct s { int a; };\nint f(void) { return 0; }"),
    ("c", b"int f(int a) {\n", b"#ifdef A\n if (a) {\n#else\n if (!a) {\n#endif\n }\n return 1;\n}"),
    ("cpp", b"namespace n {\nclass C {\n int f() {", b" auto g = [&](int i) { return i; }; return g(1);}"),
    ("cpp", b'extern "C" {\nvoid f(double *x)\n{\n', b'  const char *c = R"x(})x";\n}'),
    ("cuda", b"__global__ void k(float *x) {\n", b"  if (threadIdx.x) { x[0] = 1; }\n}"),
    ("c", b"    sum += a[i];\n  }\n", b"  return sum;\n}"),  # its beginning was cut away
    ("fortran-free", b"subroutine s(n)\n", b"  integer :: n\n  do i = 1, n\n  end do\nend subroutine s\n"),
    ("fortran-free", b"module m\ncontains\nfunction f(x)\n", b" f = x\ncontains\n subroutine g\n end\nend\n"),
    ("fortran-free", b"! the program\n", b"program p\n  if (a) then\n  end if\nend program\n"),
    ("fortran-free", b"subroutine s\n", b"interface\n subroutine t\n end subroutine\nend interface\nEND\n"),
    ("fortran-fixed", b"      SUBROUTINE S(N)\n", b"C     END\n      DO 1 I=1,N\n    1 X = 1\n      END\n"),
    ("fortran-fixed", b"", b"      INTEGER FUNCTION F(N)\n      F =\n     &END\n      RETURN\n      END\n"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "prompt", "answer"), CASES)
def test_the_end_of_the_function(language: str, prompt: bytes, answer: bytes) -> None:
    more = MORE.get(language, MORE["c"])
    assert find_end("function", language, prompt, answer + more) == len(answer)
    for length in range(len(answer)):
        assert find_end("function", language, prompt, answer[:length]) is None, answer[:length]


def test_the_end_of_the_line() -> None:
    assert find_end("line", "c", b"#pragma omp ", b"parallel for\nfor (;;)\n") == 13
    assert find_end("line", "c", b"#pragma omp ", b"parallel for") is None


def test_nothing_else_ends_by_its_text() -> None:
    assert find_end("end", "c", b"", b"int f() {\n}\n") is None
    assert find_end("file", "c", b"", b"int f() {\n}\n") is None


@pytest.fixture(scope="module")
def codec(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


@given(st.binary(max_size=300), st.sampled_from(LANGUAGES), st.integers(0, 300))
@settings(max_examples=200)
def test_any_bytes_have_an_end_behind_the_prompt_or_none(content: bytes, language: str, after: int) -> None:
    stop = find_function_end(content, language, min(after, len(content)))
    assert stop is None or min(after, len(content)) < stop <= len(content)


@pytest.mark.parametrize(("language", "prompt", "answer"), CASES[:2] + CASES[-2:])
def test_a_stop_is_reached_token_by_token(
    language: str, prompt: bytes, answer: bytes, codec: Tokenizer
) -> None:
    ids = codec.encode(answer + MORE[language])
    stop = make_stop("function", language, prompt, codec)
    assert stop is not None
    ended = [count for count in range(1, len(ids) + 1) if stop(ids[:count])]
    assert codec.decode(ids[: ended[0]]).startswith(answer)
    assert not codec.decode(ids[: ended[0] - 1]).startswith(answer)
