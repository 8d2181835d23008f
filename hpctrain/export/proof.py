"""Proof of an export: what was written is loaded by a downstream tool and compared with what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from hpctrain.errors import DataError
from hpctrain.export.source import Source, Stored
from hpctrain.progress import say

_TOLERANCE = 1e-4  # of the largest logit, at least of 1: two orders of summation in fp32
_NEW_TOKENS = 32
_TEXT = b"subroutine axpy(n, a, x, y)\n  integer, intent(in) :: n\n  real, intent(in) :: a, x(n)\n"


@dataclass(frozen=True)
class Proof:
    """What the comparison gave."""

    logit_difference: float
    """Largest difference of a logit between the downstream tool and our model with the weights as stored."""
    rounding_difference: float
    """Largest difference of a logit between the weights as stored and as trained."""
    same_choice: float
    """Share of the positions at which both choose the same next token."""
    greedy_tokens: int
    """Tokens of greedy text that were equal."""
    tools: tuple[str, ...] = ("transformers",)
    """What it was loaded with."""


def as_trained(name: str, weight: Tensor) -> Tensor:
    """What fp32 files hold."""
    return weight


def prove(theirs: Any, source: Source, stored: Stored, place: Path) -> Proof:
    """Compare a causal language model of transformers, in fp32, with the source.

    It continues a prompt greedily; then both score the whole text. Raises DataError if a logit differs by
    more than rounding explains, or if ours would have chosen another token anywhere.
    """
    prompt = proof_prompt(source)
    special = source.tokenizer.special
    with torch.no_grad():
        tokens: list[int] = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=min(_NEW_TOKENS, source.context - len(prompt)), do_sample=False,
            eos_token_id=special.end, pad_token_id=special.pad,
        )[0].tolist()  # fmt: skip
        downstream = theirs(torch.tensor([tokens])).logits[0].float()
    rows = source.shapes["embedding.weight"][0]
    if downstream.shape[-1] != rows:
        raise DataError(
            f"{place}: the downstream model has a vocabulary of {downstream.shape[-1]}, the run one of {rows}"
        )
    ours = source.logits(tokens, stored)
    difference = float((downstream - ours).abs().max())
    tolerance = _TOLERANCE * max(1.0, float(ours.abs().max()))
    if not difference <= tolerance:
        raise DataError(f"{place}: logits differ by {difference:.1e} after reloading; nothing was published")
    if not _is_greedy(ours, tokens, len(prompt), tolerance):
        raise DataError(f"{place}: greedy text differs after reloading; nothing was published")
    trained = ours if stored is as_trained else source.logits(tokens, as_trained)
    return Proof(
        logit_difference=difference,
        rounding_difference=float((trained - ours).abs().max()),
        same_choice=float((trained.argmax(-1) == ours.argmax(-1)).float().mean()),
        greedy_tokens=len(tokens) - len(prompt),
    )


def proof_prompt(source: Source) -> list[int]:
    """The head and first lines of a Fortran file, at most half of the context."""
    ids = source.tokenizer.encode_document("fortran-free", "axpy.f90", _TEXT)[:-1].tolist()
    return list(ids[: source.context // 2])


def check_tokenizer(encode: Callable[[str], list[int]], source: Source, place: Path) -> None:
    """Raise DataError if a downstream tokenizer gives other ids for the proof's text."""
    if list(encode(_TEXT.decode())) != source.tokenizer.encode(_TEXT):
        raise DataError(f"{place}: the exported tokenizer gives other ids; nothing was published")


def fits_in_memory(source: Source) -> bool:
    """Whether the model in fp32 takes at most half of the memory that is free."""
    free: int = psutil.virtual_memory().available
    return 8 * source.parameters <= free


def tell(out: Path, proof: Proof) -> None:
    """Say what was proven."""
    rounding = (
        f"; rounding moves logits by at most {proof.rounding_difference:.1e} and leaves "
        f"{proof.same_choice:.0%} of the choices"
        if proof.rounding_difference
        else ""
    )
    say(
        f"{out}: reloaded with {' and '.join(proof.tools)}; logits differ by at most "
        f"{proof.logit_difference:.1e}, greedy text is equal{rounding}"
    )


def _is_greedy(logits: Tensor, tokens: list[int], start: int, tolerance: float) -> bool:
    """Whether each token from `start` on is the likeliest after those before it, ties within `tolerance`."""
    before, chosen = logits[start - 1 : -1], torch.tensor(tokens[start:])
    behind = before.max(-1).values - before.gather(1, chosen[:, None])[:, 0]
    return all(each <= tolerance for each in behind.tolist())
