"""The same tokenizer in Hugging Face's `tokenizer.json`, for export.

A tokenizer that came from there goes back as it came, with the tokens that were added.

Of one trained here, ids are identical for text that is valid UTF-8 and holds neither U+2581 nor the literal
text of a control token. What does not carry over: a literal U+2581 is taken for a space; bytes that are not
UTF-8 cannot be given at all, and decoding ids that stand for some gives U+FFFD; the literal text
`<fim_prefix>` becomes the control token, as is usual there, unless the tokenizer is loaded or called with
`split_special_tokens=True`.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from hpctrain.tokenizer.codec import SPECIAL_NAMES, Tokenizer, language_piece, special_piece
from hpctrain.tokenizer.foreign import ForeignTokenizer
from hpctrain.tokenizer.runs import SPACE_SIGN
from hpctrain.tokenizer.sentence_pieces import SentencePieceTokenizer


def to_tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of `tokenizer.json`: BPE with byte fallback over the same pieces and ids."""
    if isinstance(tokenizer, ForeignTokenizer):
        return tokenizer.json
    assert isinstance(tokenizer, SentencePieceTokenizer)
    processor = tokenizer.processor
    pieces = [processor.id_to_piece(id_) for id_ in range(tokenizer.vocab_size)]
    model = models.BPE(
        vocab={piece: id_ for id_, piece in enumerate(pieces)},
        merges=_merges(tokenizer, pieces),
        unk_token=special_piece("unk"),
        byte_fallback=True,
    )
    converted = HuggingFaceTokenizer(model)
    converted.normalizer = normalizers.Replace(" ", SPACE_SIGN)
    converted.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_SIGN, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    converted.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in _control_pieces(tokenizer)]
    )
    return str(converted.to_str(pretty=True))


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of `tokenizer_config.json`, with which AutoTokenizer loads the directory."""
    if isinstance(tokenizer, ForeignTokenizer):
        return tokenizer.config
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": special_piece("unk"),
        "pad_token": special_piece("pad"),
        "bos_token": special_piece("document"),
        "eos_token": special_piece("end"),
        "clean_up_tokenization_spaces": False,
    }


def _control_pieces(tokenizer: Tokenizer) -> list[str]:
    names = [special_piece(name) for name in SPECIAL_NAMES]
    return [*names, *(language_piece(language) for language in tokenizer.languages)]


def _merges(tokenizer: SentencePieceTokenizer, pieces: list[str]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, best piece first.

    SentencePiece always makes the best-scored piece that two neighbours give; scores fall with the id.
    """
    processor = tokenizer.processor
    special = (processor.is_control, processor.is_unknown, processor.is_byte)
    ids = {piece: id_ for id_, piece in enumerate(pieces) if not any(test(id_) for test in special)}
    ranked = sorted((-processor.get_score(id_), id_, piece) for piece, id_ in ids.items())
    return [
        (piece[:cut], piece[cut:])
        for _, _, piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
