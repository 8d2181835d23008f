"""Form-aware lexing of every language of the corpus: what is code, comment, string, directive.

A general lexer fails on fixed-form Fortran, and a regular expression without state cannot know a comment.
This one never fails: any bytes, in any language, are divided into regions without gap or overlap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from hpctrain.corpus.c_lexer import find_c_regions
from hpctrain.corpus.fortran_lexer import find_fixed_regions, find_free_regions
from hpctrain.corpus.region import Kind, Region, fill

__all__ = ["LIVE", "Kind", "Region", "code_tokens", "mask", "regions"]

LIVE = frozenset({Kind.CODE, Kind.DIRECTIVE, Kind.PREPROCESSOR})
"""What compilers obey, literals apart."""

_C_FAMILY = frozenset({"c", "cpp", "cuda", "hip", "opencl"})
_VISIBLE = bytes(set(range(256)) - set(b"\t\n\v\f\r "))
_TO_BLANKS = bytes.maketrans(_VISIBLE, b" " * len(_VISIBLE))

_C_TOKEN = re.compile(
    rb"""[A-Za-z_$\x80-\xff][\w$\x80-\xff]* | \.?\d(?:[eEpP][+-]|[\w.]|'(?=\w))* | ""
    | <<=|>>=|<=>|\.\.\.|->\*? | \+\+|--|&&|\|\||::|\#\#|<<|>>|[-+*/%&|^=!<>]= | [^\s\\]""",
    re.VERBOSE,
)
_KERNEL_TOKEN = re.compile(rb"<<<|>>>|" + _C_TOKEN.pattern, re.VERBOSE)
_STRINGS = re.compile(rb'""(?:\s+"")+')
_FORTRAN_TOKEN = re.compile(
    rb"""[A-Za-z_]\w* | (?:\d+(?:\.(?![A-Za-z]+\.)\d*)?|\.\d+)(?:[deqDEQ][+-]?\d+)?(?:_\w+)? | ""
    | \.[A-Za-z]+\. | <<<|>>>|\*\*|//|==|/=|<=|>=|=>|:: | [^\s&]""",
    re.VERBOSE,
)


def regions(content: bytes, language: str) -> Iterator[Region]:
    """The regions of a file, in order, each byte in exactly one; neighbours of one kind may occur.

    `language` is a label of the corpus. A language that has no lexer here is one region of code.
    """
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")  # line ends of old Macs
    if language == "fortran-fixed":
        return fill(find_fixed_regions(content), len(content))
    if language == "fortran-free":
        return fill(find_free_regions(content), len(content))
    if language in _C_FAMILY:
        return fill(find_c_regions(content, raw_strings=language != "c"), len(content))
    return fill((), len(content))


def mask(content: bytes, language: str, keep: Collection[Kind] = LIVE) -> bytes:
    """The content with all but the regions of some kinds overwritten by blanks.

    Offsets, lines and columns stay as they are, so that what is found in the mask is found in the content.
    """
    return b"".join(
        content[start:stop] if kind in keep else content[start:stop].translate(_TO_BLANKS)
        for kind, start, stop in regions(content, language)
    )


def code_tokens(content: bytes, language: str) -> Iterator[bytes]:
    """Names, numbers and operators of a file in order, those of directives and preprocessor lines too.

    Comments, continuation marks and splices are left out, and strings that follow each other are one token
    `""`; sentinels begin with `!`. So a Fortran routine gives the same tokens in either form, but for case
    and for statements that fixed form lets stand without blanks.
    """
    parts = []
    for kind, start, stop in regions(content, language):
        if kind in LIVE:
            sentinel = kind is Kind.DIRECTIVE and content[start + 1 : start + 2] == b"$"
            parts.append(b"!" + content[start + 1 : stop] if sentinel else content[start:stop])
        else:
            parts.append(b' "" ' if kind is Kind.STRING else b" ")
    text = _STRINGS.sub(b'""', b"".join(parts))
    return (token[0] for token in _token_pattern(language).finditer(text))


def _token_pattern(language: str) -> re.Pattern[bytes]:
    if language.startswith("fortran"):
        return _FORTRAN_TOKEN
    return _KERNEL_TOKEN if language in ("cuda", "hip") else _C_TOKEN
