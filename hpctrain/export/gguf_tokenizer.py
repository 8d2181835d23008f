"""The tokenizer in GGUF's metadata: our own, and those that came with imported models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gguf
from gguf import TokenType

from hpctrain.errors import ConfigError
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.tokenizer.foreign import ForeignTokenizer, steps
from hpctrain.tokenizer.sentence_pieces import SentencePieceTokenizer

_FIM_KEYS = {
    "fim_prefix": gguf.Keys.Tokenizer.FIM_PRE_ID,
    "fim_suffix": gguf.Keys.Tokenizer.FIM_SUF_ID,
    "fim_middle": gguf.Keys.Tokenizer.FIM_MID_ID,
}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_NAMES = {_WORDS % r"\p{N}{1,3}": "llama-bpe", _WORDS % r"\p{N}": "qwen2"}
"""What llama.cpp calls a way to cut text into words, by its expression in `tokenizer.json`."""


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Add pieces, scores or merges, kinds and control tokens.

    Raises ConfigError if llama.cpp has no name for the way in which the tokenizer cuts text into words.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        _add_sentence_pieces(writer, tokenizer)
    elif isinstance(tokenizer, ForeignTokenizer):
        _add_foreign(writer, tokenizer, json.loads(tokenizer.json))
    else:
        raise ConfigError(f"--format gguf: a {type(tokenizer).__name__} cannot be written")
    special = tokenizer.special
    writer.add_bos_token_id(special.document)
    writer.add_eos_token_id(special.end)
    writer.add_pad_token_id(special.pad)
    writer.add_unk_token_id(special.unk)
    writer.add_add_bos_token(False)  # the head of a document is the prompt's own
    writer.add_add_eos_token(False)
    for name, key in _FIM_KEYS.items():
        writer.add_uint32(key, getattr(special, name))


def _add_sentence_pieces(writer: gguf.GGUFWriter, tokenizer: SentencePieceTokenizer) -> None:
    processor = tokenizer.processor
    pieces = range(tokenizer.vocab_size)
    _add_scored(
        writer,
        [processor.id_to_piece(id_) for id_ in pieces],
        [processor.get_score(id_) for id_ in pieces],
        [_kind(processor, id_) for id_ in pieces],
    )


def _kind(processor: Any, id_: int) -> TokenType:
    if processor.is_unknown(id_):
        return TokenType.UNKNOWN
    if processor.is_control(id_):
        return TokenType.CONTROL
    return TokenType.BYTE if processor.is_byte(id_) else TokenType.NORMAL


def _add_scored(
    writer: gguf.GGUFWriter, pieces: list[str], scores: list[float], kinds: list[TokenType]
) -> None:
    """BPE that makes the best-scored piece first, over text with U+2581 for a space."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)


def _add_foreign(writer: gguf.GGUFWriter, tokenizer: ForeignTokenizer, tree: Mapping[str, Any]) -> None:
    pieces = [f"[UNUSED_{id_}]" for id_ in range(tokenizer.vocab_size)]
    kinds = [TokenType.UNUSED] * tokenizer.vocab_size
    for piece, id_ in tree["model"]["vocab"].items():
        pieces[id_], kinds[id_] = piece, TokenType.NORMAL
    for token in tree["added_tokens"]:
        pieces[token["id"]] = token["content"]
        kinds[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in tree["model"]["merges"]]
    if tokenizer.is_byte_level:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_name_of_words(tree))
        writer.add_token_list(pieces)
        writer.add_token_types(kinds)
        writer.add_token_merges([" ".join(merge) for merge in merges])
        return
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge), rank)
    for byte in range(256):
        if (piece := f"<0x{byte:02X}>") in tree["model"]["vocab"]:
            kinds[tree["model"]["vocab"][piece]] = TokenType.BYTE
    _add_scored(writer, pieces, [-float(ranks.get(piece, 0)) for piece in pieces], kinds)


def _name_of_words(tree: Mapping[str, Any]) -> str:
    """What llama.cpp calls the way in which a byte-level tokenizer cuts text into words."""
    cuts = [step for step in steps(tree["pre_tokenizer"], "pretokenizers") if step["type"] != "ByteLevel"]
    expressions = [step.get("pattern", {}).get("Regex") for step in cuts]
    if len(cuts) == 1 and expressions[0] in _NAMES and cuts[0].get("behavior") == "Isolated":
        return _NAMES[expressions[0]]
    raise ConfigError(
        "--format gguf: llama.cpp has no name that is known here for the way in which this tokenizer cuts "
        f"text into words ({', '.join(map(str, expressions)) or 'no expression'}); "
        f"known: {', '.join(_NAMES.values())}"
    )
