"""Tokenizers that came with imported models, behind the same interface as our own.

Two kinds are taken: byte-level BPE (Llama 3, Qwen2) and BPE over pieces with U+2581 for a space and byte
pieces (Llama 2). `adopt.py` makes the stage that is read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as HuggingFaceTokenizer

from hpctrain.config import Section
from hpctrain.errors import DataError
from hpctrain.tokenizer.codec import (
    FOREIGN_CONFIG_NAME,
    FOREIGN_NAME,
    MARKS_NAME,
    SPECIAL_NAMES,
    SpecialTokens,
    Tokenizer,
)
from hpctrain.tokenizer.runs import SPACE_SIGN, split_runs


class Marks(Section):
    """What our data needs of a foreign vocabulary: ids of control tokens, as they are there or were added."""

    vocab_size: int
    """Rows of the model's embedding; ids that no token has are spare."""
    known: int
    """Rows that the model came with a token for: what it was trained on, and may be compared by."""
    special: dict[str, int]
    """Id of each of SPECIAL_NAMES."""
    languages: dict[str, int]
    """Id of each language token."""
    controls: list[int]
    """Every id that stands for no text, theirs too."""
    raw_bytes: dict[int, int]
    """Ids that were added for bytes that the vocabulary had no piece for, by byte."""
    added: list[int]
    """Ids of our own tokens, which the model has never seen."""


class ForeignTokenizer(Tokenizer):
    """A Hugging Face tokenizer of a byte-level or byte-fallback BPE.

    Attributes besides: `json`, the text of `tokenizer.json`; `config`, the content of
    `tokenizer_config.json`; `marks`; `is_byte_level`.
    """

    def __init__(self, text: str, config: Mapping[str, Any], marks: Marks, fingerprint: str) -> None:
        """Parse a `tokenizer.json` that `adopt` made. Raises DataError if it is not one."""
        try:
            tree = json.loads(text)
            self.is_byte_level = is_byte_level(tree)
            self._encoder = _text_encoder(tree, marks)
        except Exception as reason:  # noqa: BLE001 - the library raises bare Exception
            raise DataError(f"not a tokenizer that can be read: {reason}") from None
        if missing := [name for name in SPECIAL_NAMES if name not in marks.special]:
            raise DataError(f"{MARKS_NAME} lacks {', '.join(missing)}")
        self.json, self.config, self.marks = text, dict(config), marks
        special = SpecialTokens(**{name: marks.special[name] for name in SPECIAL_NAMES})
        super().__init__(bytes_of_ids(tree, marks), special, marks.languages, fingerprint)
        self._id_of_byte = np.full(256, -1, np.int64)
        for byte, id_ in {**byte_ids(tree), **marks.raw_bytes}.items():
            self._id_of_byte[byte] = id_

    @classmethod
    def parse(cls, directory: Path, fingerprint: str) -> ForeignTokenizer:
        """Parse the files of a stage. Raises DataError."""
        try:
            marks = Marks.model_validate_json((directory / MARKS_NAME).read_text(encoding="utf-8"))
            text = (directory / FOREIGN_NAME).read_text(encoding="utf-8")
            config = json.loads((directory / FOREIGN_CONFIG_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError) as reason:  # ValueError: of JSON, of UTF-8 and of pydantic
            raise DataError(f"cannot be read: {str(reason).splitlines()[0]}") from None
        return cls(text, config, marks, fingerprint)

    def encode_batch(self, contents: Sequence[bytes], num_threads: int) -> list[npt.NDArray[Any]]:
        """See `Tokenizer`; several threads are as many as the library takes."""
        runs = [split_runs(content, keep_sign=self.is_byte_level) for content in contents]
        texts = [run.decode() for parts in runs for run in parts[::2]]
        if num_threads == 1:
            encoded = iter([self._encoder.encode(text, add_special_tokens=False).ids for text in texts])
        else:
            batch = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
            encoded = iter([each.ids for each in batch])
        joined = []
        for parts in runs:
            arrays = [np.array(next(encoded), np.int64)]
            for raw in parts[1::2]:
                arrays += [self._id_of_byte[np.frombuffer(raw, np.uint8)], np.array(next(encoded), np.int64)]
            joined.append(np.concatenate(arrays).astype(self.dtype))
        return joined


def is_byte_level(tree: Mapping[str, Any]) -> bool:
    """Whether pieces are spelled in the 256 letters of byte-level BPE."""
    return any(step.get("type") == "ByteLevel" for step in steps(tree.get("pre_tokenizer"), "pretokenizers"))


def bytes_of_ids(tree: Mapping[str, Any], marks: Marks) -> list[bytes]:
    """The bytes of each id; none for control tokens and for rows that no token has. Raises DataError."""
    table = [b""] * marks.vocab_size
    pieces = _piece_bytes(tree)
    texts = {token["id"]: token["content"].encode() for token in tree["added_tokens"]}
    raw = {id_: bytes([byte]) for byte, id_ in marks.raw_bytes.items()}
    everything = {**pieces, **texts, **dict.fromkeys(marks.controls, b""), **raw}
    if (highest := max(everything)) >= marks.vocab_size:
        raise DataError(f"has an id {highest}, beyond a vocabulary of {marks.vocab_size}")
    for id_, piece in everything.items():
        table[id_] = piece
    return table


def byte_ids(tree: Mapping[str, Any]) -> dict[int, int]:
    """Ids of the pieces for single bytes, as far as the vocabulary has them."""
    vocabulary: dict[str, int] = tree["model"]["vocab"]
    spelled = _LETTER_OF_BYTE if is_byte_level(tree) else [f"<0x{byte:02X}>" for byte in range(256)]
    return {byte: vocabulary[piece] for byte, piece in enumerate(spelled) if piece in vocabulary}


def _piece_bytes(tree: Mapping[str, Any]) -> dict[int, bytes]:
    vocabulary: dict[str, int] = tree["model"]["vocab"]
    if is_byte_level(tree):
        byte_of = {letter: byte for byte, letter in enumerate(_LETTER_OF_BYTE)}
        return {
            id_: bytes(byte_of[letter] for letter in piece)
            for piece, id_ in vocabulary.items()
            if all(letter in byte_of for letter in piece)
        }
    raw = {id_: bytes([byte]) for byte, id_ in byte_ids(tree).items()}
    return {id_: piece.replace(SPACE_SIGN, " ").encode() for piece, id_ in vocabulary.items()} | raw


def _text_encoder(tree: dict[str, Any], marks: Marks) -> HuggingFaceTokenizer:
    """An encoder for which the text of a control token is text like any other."""
    controls = set(marks.controls)
    names = {token["content"] for token in tree["added_tokens"] if token["id"] in controls}
    model = {**tree["model"], "merges": [m for m in tree["model"]["merges"] if _merged(m) not in names]}
    added = [{**token, "special": token["id"] in controls} for token in tree["added_tokens"]]
    encoder = HuggingFaceTokenizer.from_str(json.dumps({**tree, "model": model, "added_tokens": added}))
    encoder.encode_special_tokens = True
    return encoder


def _merged(merge: str | Sequence[str]) -> str:
    return merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)


def steps(node: dict[str, Any] | None, children: str) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder of a `tokenizer.json` as the list of its steps."""
    if node is None:
        return []
    return list(node[children]) if node.get("type") == "Sequence" else [node]


def _letters() -> list[str]:
    """The letter of each byte in byte-level BPE: itself where it is printable, else the next from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(0x100 + number) for number, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


_LETTER_OF_BYTE = _letters()
