"""Compare an imported model with the one it came from, as transformers runs it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hpctrain.errors import DataError
from hpctrain.tokenizer.foreign import ForeignTokenizer
from hpctrain.train.trained import load_trained

_TOLERANCE = 1e-4
"""Of the largest logit, or of 1 where that is less."""
_LENGTH = 192
_TEXT = b"subroutine axpy(n, a, x, y)\n  integer, intent(in) :: n\n  real, intent(in) :: a, x(n)\n"


def probe_tokens(tokenizer: ForeignTokenizer, context: int) -> Tensor:
    """Sequences [2,S] that the model they came with knows every token of: text, and ids drawn at random."""
    known, length = tokenizer.marks.known, min(_LENGTH, context)
    drawn = torch.randint(known, (2, length), generator=torch.Generator().manual_seed(1))
    text = torch.tensor(tokenizer.encode(_TEXT)[:length])
    drawn[0, : len(text)] = text
    return torch.where(torch.isin(drawn, torch.tensor(tokenizer.marks.added)), drawn[0, 0], drawn)


def their_logits(source: Path, tokens: Tensor) -> Tensor:
    """Logits [2,S,V] of the model in `source`, run by transformers in fp32 on the CPU.

    Raises DataError if transformers cannot load it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        theirs = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        ).eval()
    except Exception as reason:  # noqa: BLE001 - transformers raises whatever its parts raise
        raise DataError(f"{source}: transformers cannot load it: {str(reason).splitlines()[0]}") from None
    with torch.no_grad():
        logits: Tensor = theirs(tokens).logits.float()
    return logits


def prove(imported: Path, source: Path) -> float:
    """The largest difference of a logit over what the model knows; raises DataError if it is too large.

    Holds one of the two models at a time.
    """
    tokens, known, ours = _our_logits(imported)
    theirs = their_logits(source, tokens)[..., :known]
    difference = float((ours - theirs).abs().max())
    allowed = _TOLERANCE * max(1.0, float(theirs.abs().max()))
    if not difference <= allowed:
        raise DataError(
            f"{source}: logits differ by {difference:.1e} from those of transformers, {allowed:.1e} is "
            "allowed; nothing was published"
        )
    return difference


def _our_logits(imported: Path) -> tuple[Tensor, int, Tensor]:
    """The tokens, how many ids the model knows, and its logits [2,S,known]."""
    trained = load_trained(imported)
    tokenizer = trained.tokenizer
    assert isinstance(tokenizer, ForeignTokenizer)
    known = tokenizer.marks.known
    tokens = probe_tokens(tokenizer, trained.config.data.sequence_length)
    boundaries = torch.arange(len(tokens) + 1, dtype=torch.int32) * tokens.shape[1]
    with torch.no_grad():
        logits: Tensor = trained.model(tokens, boundaries)[..., :known]
    return tokens, known, logits
