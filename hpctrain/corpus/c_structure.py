"""Loop nests, kernels and function bodies of C-like text, by keywords and matching brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpctrain.corpus.lexer import Kind, regions

_CONDITION = re.compile(rb"#\s*(if|else|elif|endif)")
_BRACKET = re.compile(rb"[{}()]")
_STATEMENT_END = re.compile(rb"[;({})]")
_BOUNDARY = re.compile(rb"[;{}]")
_LOOP = re.compile(rb"\b(?:for|while|do)\b")
_WORD = re.compile(rb"\s*(\w*)")
_BLANK = re.compile(rb"\s*")
AGGREGATE = re.compile(rb"\b(?:struct|class|union|enum|namespace)\b[^()]*\Z")
FUNCTION_HEAD = re.compile(rb"(?:\)|\b(?:const|noexcept|override|final|mutable|try)|->[^;{}()]{1,200})\s*\Z")
CONTROL = re.compile(rb"\s*(?:else\s+)?(?:if|for|while|switch|do|catch|return)\b")
_KERNEL_HEAD = re.compile(rb"\b(?:__global__|__kernel|kernel\s+void)\b")
_PARALLEL_CALL = re.compile(
    rb"\b(?:parallel_(?:for|reduce|scan)|forall|single_task)\s*(?:<[^;{}()]{0,200}>\s*)?\("
)
_LAMBDA = re.compile(rb"(?:\[[^\[\]{};]{0,200}\]|\bKOKKOS_(?:CLASS_)?LAMBDA\b)[^{};]{0,500}\{")
_HEAD_BYTES = 4096
_DEPTH = 64


def find_c_spans(content: bytes, language: str) -> Iterator[tuple[str, int, int]]:
    """The (kind, start, stop) of every loop nest, kernel and function body, in no order."""
    text = first_branches(content, language)
    pairs = _match_brackets(text)
    yield from _bodies(text, pairs)
    yield from _lambdas(text, pairs)
    yield from (("loop_nest", *extent) for extent in _loop_nests(text, pairs))


def find_c_loops(content: bytes, language: str) -> Iterator[tuple[int, int]]:
    """The (start, stop) of every loop, also of those that are part of another's nest, in order."""
    text = first_branches(content, language)
    pairs = _match_brackets(text)
    yield from (extent for extent, _ in _loops(text, pairs))


def first_branches(content: bytes, language: str) -> bytes:
    """The code of a file, all else blanked, also what stands between `#else` and `#endif`."""
    parts = []
    skipped = [False]  # for each open condition, whether its present branch is left out
    for kind, start, stop in regions(content, language):
        text = content[start:stop]
        if kind is Kind.PREPROCESSOR and (condition := _CONDITION.match(text)):
            if condition[1] == b"if":
                skipped.append(skipped[-1])
            elif len(skipped) > 1:
                skipped.pop()
                if condition[1] != b"endif":
                    skipped.append(True)
        keep = kind is Kind.CODE and not skipped[-1]
        parts.append(text if keep else b" " * len(text))
    return b"".join(parts)


def _match_brackets(text: bytes) -> dict[int, int]:
    """The offset of the closing bracket for each opening one that has its match."""
    pairs, stack = {}, []
    for bracket in _BRACKET.finditer(text):
        if bracket[0] in b"({":
            stack.append(bracket.start())
            continue
        opening = b"(" if bracket[0] == b")" else b"{"
        if bracket[0] == b"}":  # a parenthesis never outlives its block
            while stack and text[stack[-1]] == ord("("):
                stack.pop()
        if stack and text[stack[-1]] == opening[0]:
            pairs[stack.pop()] = bracket.start()
    return pairs


def _bodies(text: bytes, pairs: dict[int, int]) -> Iterator[tuple[str, int, int]]:
    """Function bodies and kernels, without their braces; functions in functions are not looked for."""
    position = boundary = 0
    while found := _BOUNDARY.search(text, position):
        position = found.end()
        brace = found.start()
        if found[0] == b"{" and brace in pairs:
            head = text[max(boundary, brace - _HEAD_BYTES) : brace]
            if FUNCTION_HEAD.search(head) and not AGGREGATE.search(head) and not CONTROL.match(head):
                yield "kernel" if _KERNEL_HEAD.search(head) else "function", brace + 1, pairs[brace]
                position = pairs[brace] + 1
        boundary = position


def _lambdas(text: bytes, pairs: dict[int, int]) -> Iterator[tuple[str, int, int]]:
    """Bodies of the lambdas that are given to parallel loops."""
    for call in _PARALLEL_CALL.finditer(text):
        stop = pairs.get(call.end() - 1)
        found = _LAMBDA.search(text, call.end(), stop) if stop else None
        if found and found.end() - 1 in pairs:
            yield "kernel", found.end(), pairs[found.end() - 1]


def _loop_nests(text: bytes, pairs: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Loops, but for those that are all that another loop holds."""
    inner: set[tuple[int, int]] = set()
    for extent, body in _loops(text, pairs):
        first, last = _content_of_body(text, pairs, body, extent[1])
        if _LOOP.match(text, first):
            inner.add((first, last))
        if extent not in inner:
            yield extent


def _loops(text: bytes, pairs: dict[int, int]) -> Iterator[tuple[tuple[int, int], int]]:
    """Every loop in order with where its body begins; the `while` of a `do` is no loop of its own."""
    tails: set[int] = set()
    for keyword in _LOOP.finditer(text):
        start = keyword.start()
        if start in tails:
            continue
        if keyword[0] == b"do":
            body = keyword.end()
        else:
            paren = _skip_blanks(text, keyword.end())
            if paren not in pairs or text[paren] != ord("("):
                continue
            body = pairs[paren] + 1
        stop = _statement_stop(text, pairs, start)
        if stop is None:
            continue
        if keyword[0] == b"do":
            tails.add(text.rfind(b"while", start, stop))
        yield (start, stop), body


def _skip_blanks(text: bytes, position: int) -> int:
    found = _BLANK.match(text, position)
    return found.end() if found else position


def _content_of_body(text: bytes, pairs: dict[int, int], body: int, stop: int) -> tuple[int, int]:
    """Where the statements of a loop begin and end, its braces and the blanks inside them left out."""
    first = _skip_blanks(text, body)
    if text[first : first + 1] != b"{":
        return first, stop
    last = pairs.get(first, stop)
    while last > first + 1 and text[last - 1 : last].isspace():
        last -= 1
    return _skip_blanks(text, first + 1), last


def _statement_stop(text: bytes, pairs: dict[int, int], start: int, depth: int = 0) -> int | None:
    """The offset after the statement that begins at `start`, or None where brackets do not match."""
    position = start
    for _ in range(_DEPTH):
        position = _skip_blanks(text, position)
        found = _WORD.match(text, position)
        word = found[1] if found else b""
        if word == b"else":
            position += len(word)
        elif word in (b"for", b"while", b"if", b"switch"):
            paren = text.find(b"(", position, position + _HEAD_BYTES)
            if paren not in pairs:
                return None
            position = pairs[paren] + 1
            if word == b"if":
                stop = _statement_stop(text, pairs, position, depth + 1) if depth < _DEPTH else None
                following = _WORD.match(text, stop) if stop else None
                if following is None or following[1] != b"else":
                    return stop
                position = following.start(1)
        elif word == b"do":
            stop = _statement_stop(text, pairs, position + 2, depth + 1) if depth < _DEPTH else None
            tail = _WORD.match(text, stop) if stop else None
            return _simple_stop(text, pairs, tail.end()) if tail and tail[1] == b"while" else None
        elif text[position : position + 1] == b"{":
            return pairs[position] + 1 if position in pairs else None
        else:
            return _simple_stop(text, pairs, position)
    return None


def _simple_stop(text: bytes, pairs: dict[int, int], position: int) -> int | None:
    """The offset after the next `;` that stands outside brackets."""
    limit = position + (1 << 16)
    while found := _STATEMENT_END.search(text, position, limit):
        if found[0] == b";":
            return found.end()
        if found.start() not in pairs:
            return None
        position = pairs[found.start()] + 1
    return None
