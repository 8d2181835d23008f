"""Which language a file is written in, and for Fortran in which source form: by name, then by content.

The rules are those of compilers and build systems: an extension decides where it is unambiguous, and content
decides for `.h`, `.inc`, names without extension, and wherever GPU code hides behind a C++ extension.
Lexers are not asked: general ones reject more than half of real fixed-form Fortran.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import PurePosixPath

from hpctrain.corpus.fortran import find_fortran_form, is_forth, is_fortran
from hpctrain.corpus.lexer import LIVE, Kind, regions

_CPP_BY_CASE = {".C", ".H"}  # the old Unix convention: the capital letter means C++
_C_LIKE = {
    ".c": "c",
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".c++", ".cp", ".cppm", ".ixx", ".hh", ".hpp", ".hxx"), "cpp"),
    **dict.fromkeys((".h++", ".inl", ".ipp", ".tpp", ".tcc", ".txx"), "cpp"),
    ".cu": "cuda",
    ".cuh": "cuda",
    ".hip": "hip",
    **dict.fromkeys((".cl", ".clh", ".ocl"), "opencl"),
}
_FORTRAN = {
    **dict.fromkeys((".f", ".for", ".ftn", ".f77", ".fpp"), "fortran-fixed"),
    **dict.fromkeys((".f90", ".f95", ".f03", ".f08", ".f18", ".cuf"), "fortran-free"),
}
_FORTRAN_HEADERS = {".fh", ".fi", ".finc"}
_AMBIGUOUS = {".h", ".inc", ""}

UNDECIDED = "undecided"
"""Stands for the language of a header until its neighbours are known."""

_INSPECTED_BYTES = 1 << 16
_BYTES_PER_EVIDENCE = 1 << 13
_EVIDENCE_AGAINST_EXTERN_C = 3


def may_be_kept(path: str) -> bool:
    """True if a file of this name could hold a language of the corpus, so that it is worth reading."""
    suffix = PurePosixPath(path).suffix
    folded = suffix.lower()
    return (
        suffix in _CPP_BY_CASE
        or folded in _C_LIKE
        or folded in _FORTRAN
        or folded in _FORTRAN_HEADERS
        or folded in _AMBIGUOUS
    )


def find_language(path: str, content: bytes) -> str | None:
    """The label of a file (one of LANGUAGES), or None if it holds none of them.

    A `.h` that would be the same in C and C++ (macros, includes) is UNDECIDED: see `headers.py`. SYCL,
    Kokkos and RAJA are C++: what they add is a programming model, not a language, see `models.py`.
    """
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")  # line ends of old Macs
    suffix = PurePosixPath(path).suffix
    if suffix in _CPP_BY_CASE and suffix != ".H":
        return _refine_c_like("cpp", content)
    folded = suffix.lower()
    if folded in _FORTRAN:
        return None if is_forth(content) else find_fortran_form(content, _FORTRAN[folded])
    if folded in _FORTRAN_HEADERS:
        return find_fortran_form(content, "fortran-free")
    if folded in _C_LIKE:
        return _refine_c_like(_C_LIKE[folded], content)
    if folded == ".h":
        if is_fortran(content):
            return find_fortran_form(content, "fortran-fixed")
        return _header_language(_code_of(content))
    if folded == ".inc":
        return _include_language(content)
    return _extensionless_language(content) if not suffix else None


_BLANK_LINES = re.compile(rb"(?<![ \t\r\f\v])[ \t\r\f\v]*\n\s*")  # begins where the blanks do: linear
_CPLUSPLUS_GUARD = re.compile(rb"^[ \t]*#[ \t]*if(?:def)?\b[^\n]*\b__cplusplus\b", re.MULTILINE)
_EXTERN_C = re.compile(rb'\bextern\s*""\s*\{')
_REFUSAL = re.compile(rb"[^\n]*\n[ \t]*#[ \t]*error\b")
_CONDITIONAL = re.compile(rb"^[ \t]*#[ \t]*(if|else|elif|endif)", re.MULTILINE)
_CPP_EVIDENCE = re.compile(
    rb"""\b\w+\s*::\s*~?\w | \btemplate\s*< | \bnamespace\b(?:\s+[\w:]+)?\s*\{
    | \busing\s+\w+(?:\s*=|::|\s+\w)
    | ^[ \t]*(?:class|struct|enum\s+class)\s+(?:\w+\s+){0,3}\w+\s*(?:final\s*)?:\s*\w
    | ^[ \t]*class\s+\w+[^{;()*=]{0,200}[{;]
    | ^[ \t]*(?:public|private|protected)\s*: | \b(?:static|const|dynamic|reinterpret)_cast\s*<
    | \boperator\s*(?:[-+*/%^&|~!=<>]+|\(\)|\[\]|new|delete|bool)\s*\( | \bvirtual\s+~?\w | \btypename\s+\w
    | \b(?:constexpr|decltype|noexcept|nullptr|static_assert\s*\([^,;]*<|friend\s+class|explicit\s+\w+\()\b
    | \bconst\s+\w+(?:\s*<[^<>;]{0,100}>)?\s*&\s*\w*\s*[,)=] | \b(?:extern|using)\s+template\b
    | ^[ \t]*\#[ \t]*include[ \t]*<(?:[\w/+-]+|[\w/.+-]+\.(?:hpp|hh|hxx|cuh))>""",
    re.MULTILINE | re.VERBOSE,
)
_CUDA_EVIDENCE = re.compile(
    rb"^(?![ \t]*#)[^\n]*\b__global__\s+\w|<<<[^;]{1,500}?>>>\s*\(|\b__shared__\s+\w"
    rb"|^[ \t]*(?:\w+[ \t]+)*__device__\s",
    re.MULTILINE,
)
_CUDA_WORDS = (b"__global__", b"__device__", b"__shared__", b"<<<")
"""One of these is in all evidence, and quickly found."""
_HIP_INCLUDE = re.compile(rb"^[ \t]*#[ \t]*include[ \t]*<hip/hip_", re.MULTILINE)
_CUDA_INCLUDE = re.compile(
    rb"^[ \t]*#[ \t]*include[ \t]*[<\"]cuda(?:_runtime(?:_api)?|_fp16)?\.h", re.MULTILINE
)
_OPENCL_EVIDENCE = re.compile(
    rb"\b__kernel\b|\bkernel\s+void\b|\bget_global_id\s*\(|\b__(?:global|local)\s+\w"
)
_C_EVIDENCE = re.compile(
    rb"^[ \t]*#[ \t]*(?:include\s*[<\"]|define\s+\w|if(?:n?def)?\b|pragma\s+once)|^[^\n#]*[;{}][ \t]*$",
    re.MULTILINE,
)
_C_DECLARATION = re.compile(
    rb"""\btypedef\s+(?:struct|union|enum)\b | \bextern\s+\"\" | \(\s*void\s*\)\s*;
    | \bstruct\s+\w+\s*\*\s*\w+\s*[,);] | \bstatic\s+(?:__)?inline\b""",
    re.VERBOSE,
)
_EMACS_CPP_MODE = re.compile(rb"\A[^\n]*-\*-[^\n]*\bC\+\+[^\n]*-\*-")
_INCLUDE_GUARD = re.compile(
    rb"^[ \t]*#[ \t]*(?:pragma[ \t]+once|ifndef[ \t]+(\w+)\s+#[ \t]*define[ \t]+\1\b)", re.MULTILINE
)


def _code_of(content: bytes) -> bytes:
    """The start of a C-like file without comments; string literals are blanked, include names are kept."""
    start = content[:_INSPECTED_BYTES]
    replaced = {Kind.STRING: b'""', Kind.COMMENT: b" "}
    parts = (
        start[begin:end] if kind in LIVE else replaced.get(kind, b" ")
        for kind, begin, end in regions(start, "cpp")
    )
    return _BLANK_LINES.sub(b"\n", b"".join(parts))  # what spans lines must not crawl through blank ones


def _gpu_dialect(code: bytes) -> str | None:
    """`cuda` or `hip` if the code defines or launches kernels, else None."""
    if not any(word in code for word in _CUDA_WORDS) or not _CUDA_EVIDENCE.search(code):
        return None
    return "hip" if _HIP_INCLUDE.search(code) and not _CUDA_INCLUDE.search(code) else "cuda"


def _refine_c_like(language: str, content: bytes) -> str | None:
    """What a name that says C, C++, CUDA, HIP or OpenCL means; the file is lexed only where that may help."""
    if language == "cpp" and any(word in content for word in _CUDA_WORDS):
        return _gpu_dialect(_code_of(content)) or "cpp"
    if language == "cuda" and b"hip/hip_" in content:
        code = _code_of(content)
        return "hip" if _HIP_INCLUDE.search(code) and not _CUDA_INCLUDE.search(code) else "cuda"
    if language == "opencl":
        code = _code_of(content)
        if not (_OPENCL_EVIDENCE.search(code) or _C_EVIDENCE.search(code)):
            return None  # .cl is Common Lisp's extension too
    return language


def _header_language(code: bytes) -> str:
    """C, C++, a GPU dialect or UNDECIDED for a header whose name does not tell."""
    if dialect := _gpu_dialect(code):
        return dialect
    common, opens_extern_c = _without_cplusplus_branches(code)
    # One `std::` does not make a large C header C++, nor one that tells C++ that it is C.
    needed = 1 + len(common) // _BYTES_PER_EVIDENCE + _EVIDENCE_AGAINST_EXTERN_C * opens_extern_c
    if sum(1 for _ in islice(_CPP_EVIDENCE.finditer(common), needed)) == needed:
        return "cpp"
    if _OPENCL_EVIDENCE.search(code):
        return "opencl"
    return "c" if _C_DECLARATION.search(code) else UNDECIDED


def _without_cplusplus_branches(code: bytes) -> tuple[bytes, bool]:
    """Code as a C compiler would see it, and whether it opens an `extern "C"` block for C++.

    `#ifdef __cplusplus` branches are removed up to their else or endif. Where such branches without an else
    hold more than half of the code, the header is C++ that refuses C, and all is kept.
    """
    kept, position, refused_bytes, opens = [], 0, 0, False
    while guard := _CPLUSPLUS_GUARD.search(code, position):
        kept.append(code[position : guard.start()])
        position, has_else = _branch_end(code, guard.end())
        guarded = code[guard.end() : position]
        balanced = guarded.count(b"{") == guarded.count(b"}")
        opens = opens or (not balanced and _EXTERN_C.search(guarded) is not None)
        refused_bytes += len(guarded) if balanced and not has_else else 0
    remaining = b"".join([*kept, code[position:]])
    return (remaining if len(remaining) > refused_bytes else code), opens


def _branch_end(code: bytes, position: int) -> tuple[int, bool]:
    """Where the branch that begins at `position` ends, and whether another follows that is no `#error`."""
    depth = 0
    for directive in _CONDITIONAL.finditer(code, position):
        word = directive[1]
        if word == b"if":
            depth += 1
        elif depth == 0:
            return directive.end(), word != b"endif" and not _REFUSAL.match(code, directive.end())
        elif word == b"endif":
            depth -= 1
    return len(code), False


def _include_language(content: bytes) -> str | None:
    """`.inc` serves Fortran, C and C++, but also assemblers, PHP, Pascal and make."""
    if is_fortran(content):
        return find_fortran_form(content, "fortran-fixed")
    code = _code_of(content)
    looks_like_c = len(_C_EVIDENCE.findall(code)) >= 3 and not code.lstrip().startswith((b"<?", b"#!"))
    return _header_language(code) if looks_like_c else None


def _extensionless_language(content: bytes) -> str | None:
    """The headers of C++ standard libraries have no extension; little else without one is code."""
    if _EMACS_CPP_MODE.search(content):
        return "cpp"
    code = _code_of(content)
    if _INCLUDE_GUARD.search(code) and _CPP_EVIDENCE.search(code):
        return _gpu_dialect(code) or "cpp"
    return None


_BUILD_NAMES = re.compile(
    r"(?:CMakeLists\.txt|(?:GNU)?[Mm]akefile(?:[._-]\w+)*|meson\.build|meson_options\.txt|SCons(?:truct|cript)"
    r"|configure\.(?:ac|in)|BUILD(?:\.bazel)?|package\.py|.+\.(?:cmake|mk|am|ac|m4|bzl))(?:\.in)?"
)
_DOCS_NAMES = re.compile(r"(?:README|INSTALL|CONTRIBUTING|CHANGELOG)(?:\.txt)?|.+\.(?:md|rst)", re.IGNORECASE)


def find_companion(path: str) -> str | None:
    """By name: `build` for a file that tells how to build code, `docs` for one that explains, else None."""
    name, suffix = PurePosixPath(path).name, PurePosixPath(path).suffix.lower()
    if suffix in _C_LIKE or suffix in _FORTRAN:
        return None
    if _BUILD_NAMES.fullmatch(name):
        return "build"
    return "docs" if _DOCS_NAMES.fullmatch(name) else None
