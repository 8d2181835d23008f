"""The tokenizers trained here: bytes to token ids and back, exactly, over a SentencePiece model.

SentencePiece alone loses two things: a literal U+2581, its sign for a space, comes back as a space, and bytes
that are not UTF-8 come back as U+FFFD. Here both are cut out of the text before it is encoded and given as
byte pieces, and decoding reads each piece's bytes from a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from hpctrain.errors import DataError
from hpctrain.tokenizer.codec import MODEL_NAME, SPECIAL_NAMES, SpecialTokens, Tokenizer, special_piece
from hpctrain.tokenizer.cuts import SafeCuts
from hpctrain.tokenizer.runs import SPACE_SIGN, split_runs

_LANGUAGE_PIECE = re.compile(r"<language:(.+)>")


class SentencePieceTokenizer(Tokenizer):
    """A tokenizer that `train_tokenizer` made. `processor` is the SentencePiece processor, for inspection."""

    def __init__(self, model: bytes, fingerprint: str) -> None:
        """Parse a trained model. Raises DataError if it is not one that `train_tokenizer` makes."""
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as reason:
            raise DataError(f"not a SentencePiece model: {reason}") from None
        pieces = [self.processor.id_to_piece(id_) for id_ in range(int(self.processor.get_piece_size()))]
        matches = {id_: _LANGUAGE_PIECE.fullmatch(piece) for id_, piece in enumerate(pieces)}
        languages = {m[1]: id_ for id_, m in matches.items() if m and self.processor.is_control(id_)}
        bytes_of_id = [_piece_bytes(self.processor, id_, piece) for id_, piece in enumerate(pieces)]
        super().__init__(bytes_of_id, _find_special(self.processor, pieces), languages, fingerprint)
        self._id_of_byte = _find_byte_ids(self.processor, bytes_of_id)
        self._cuts = SafeCuts(bytes_of_id)

    @classmethod
    def parse(cls, directory: Path, fingerprint: str) -> SentencePieceTokenizer:
        """Parse the files of a stage. Raises DataError."""
        return cls((directory / MODEL_NAME).read_bytes(), fingerprint)

    def encode_batch(self, contents: Sequence[bytes], num_threads: int) -> list[npt.NDArray[Any]]:
        """See `Tokenizer`; on SentencePiece's own threads."""
        runs = [split_runs(content) for content in contents]
        texts = [run for parts in runs for run in parts[::2]]
        encoded = iter(self._encode_texts(texts, num_threads))
        return [self._join_runs(parts, encoded) for parts in runs]

    def _encode_texts(self, texts: Sequence[bytes], num_threads: int) -> list[npt.NDArray[np.int32]]:
        """Ids of each text, encoded in parts where that makes no difference."""
        parts = [self._cuts.split(text) for text in texts]
        flat = [part for group in parts for part in group]
        encoded = iter(self._encode_all(flat, num_threads))
        grouped = (list(islice(encoded, len(group))) for group in parts)
        return [group[0] if len(group) == 1 else np.concatenate(group) for group in grouped]

    def _encode_all(self, texts: list[bytes], num_threads: int) -> list[npt.NDArray[np.int32]]:
        if num_threads == 1:  # a list would start a thread for itself: ten times the time of a short text
            return [self.processor.encode(text, return_type="numpy") for text in texts]
        encoded: list[npt.NDArray[np.int32]] = self.processor.encode(
            texts, return_type="numpy", num_threads=num_threads
        )
        return encoded

    def _join_runs(self, parts: list[bytes], encoded: Iterator[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        arrays = [next(encoded)]
        for raw in parts[1::2]:
            arrays += [self._id_of_byte[np.frombuffer(raw, np.uint8)], next(encoded)]
        return np.concatenate(arrays, dtype=self.dtype, casting="unsafe")


def _piece_bytes(processor: Any, id_: int, piece: str) -> bytes:
    if processor.is_control(id_) or processor.is_unknown(id_):
        return b""
    if processor.is_byte(id_):
        return bytes([int(piece[3:5], 16)])  # <0x41>
    return piece.replace(SPACE_SIGN, " ").encode()


def _find_special(processor: Any, pieces: list[str]) -> SpecialTokens:
    control = {
        piece: id_
        for id_, piece in enumerate(pieces)
        if processor.is_control(id_) or processor.is_unknown(id_)
    }
    missing = [name for name in SPECIAL_NAMES if special_piece(name) not in control]
    if missing:
        raise DataError(f"lacks the control tokens {', '.join(map(special_piece, missing))}")
    return SpecialTokens(**{name: control[special_piece(name)] for name in SPECIAL_NAMES})


def _find_byte_ids(processor: Any, bytes_of_id: list[bytes]) -> npt.NDArray[np.int32]:
    """Ids of the 256 byte pieces, by byte."""
    ids = {table[0]: id_ for id_, table in enumerate(bytes_of_id) if processor.is_byte(id_)}
    if len(ids) != 256:
        raise DataError("lacks byte pieces; it was not trained with byte_fallback")
    return np.array([ids[byte] for byte in range(256)], np.int32)
