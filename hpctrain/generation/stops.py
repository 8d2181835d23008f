"""Where an answer ends, besides at the model's own end mark."""

from __future__ import annotations

from collections.abc import Sequence

from hpctrain.corpus.function_end import find_function_end
from hpctrain.generation.generate import Stop
from hpctrain.tasks.problem import Stop as StopKind
from hpctrain.tokenizer.codec import Tokenizer


def find_end(kind: StopKind, language: str, prompt: bytes, answer: bytes) -> int | None:
    """The length of `answer` up to its end, or None if it has not ended.

    `line`: up to the first line end, with it. `function`: up to the end of the function that was open at the
    end of the prompt, or else of the first that the answer holds. `end` and `file` end by the end mark only.
    """
    if kind == "line":
        place = answer.find(b"\n")
        return place + 1 if place >= 0 else None
    if kind == "function":
        stop = find_function_end(prompt + answer, language, len(prompt))
        return stop - len(prompt) if stop is not None else None
    return None


def make_stop(kind: StopKind, language: str, prompt: bytes, tokenizer: Tokenizer) -> Stop | None:
    """What `generate` asks after each token, or None where only the end mark ends the answer."""
    if kind not in ("line", "function"):
        return None
    telling = b"}" if kind == "function" and not language.startswith("fortran") else b"\n"

    def is_at_end(ids: Sequence[int]) -> bool:
        if telling not in tokenizer.decode(ids[-1:]):
            return False
        return find_end(kind, language, prompt, tokenizer.decode(ids)) is not None

    return is_at_end
