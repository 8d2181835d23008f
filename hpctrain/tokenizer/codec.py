"""Bytes to token ids and back, exactly, over a SentencePiece model.

SentencePiece alone loses two things: a literal U+2581, its sign for a space, comes back as a space, and bytes
that are not UTF-8 come back as U+FFFD. Here both are cut out of the text before it is encoded and given as
byte pieces, and decoding reads each piece's bytes from a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from hpctrain.errors import DataError
from hpctrain.manifest import find_damage, read_manifest
from hpctrain.tokenizer.cuts import SafeCuts

TOKENIZER_KIND = "tokenizer"
TOKENIZER_FORMAT = 1
MODEL_NAME = "tokenizer.model"

SPACE_SIGN = "\u2581"
_LANGUAGE_PIECE = re.compile(r"<language:(.+)>")
# "surrogateescape" turns each byte that is not UTF-8 into one of U+DC80 to U+DCFF, and back.
_NOT_TEXT = re.compile(f"([{SPACE_SIGN}\udc80-\udcff]+)")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the control tokens. Field `fim_prefix` is the piece `<fim_prefix>`, and so on."""

    unk: int
    """Never produced: what has no piece of its own becomes byte pieces."""
    pad: int
    """Fills a row up to its length."""
    document: int
    """Starts a document; SentencePiece's and Hugging Face's bos."""
    end: int
    """Ends a document; SentencePiece's and Hugging Face's eos."""
    file_name: int
    """Comes before the path."""
    content: int
    """Comes before the content."""
    fim_prefix: int
    """Fill in the middle: comes before what stands before the hole."""
    fim_suffix: int
    """Fill in the middle: comes before what stands after the hole."""
    fim_middle: int
    """Fill in the middle: comes before what fills the hole."""


SPECIAL_NAMES = tuple(field.name for field in fields(SpecialTokens))


def special_piece(name: str) -> str:
    """The piece of a SpecialTokens field."""
    return f"<{name}>"


def language_piece(language: str) -> str:
    """The piece that names a language in the head of a document."""
    return f"<language:{language}>"


class Tokenizer:
    """Encodes any bytes and decodes them again without loss; control tokens never come out of text.

    Safe to pickle and to share between threads. Attributes: `processor`, the SentencePiece processor, for
    inspection; `fingerprint` of the tokenizer stage; `vocab_size`; `special`, ids of the control tokens;
    `languages`, ids of the language tokens by name; `dtype`, the smallest of uint16 and uint32 for these ids;
    `token_bytes`, uint16 of shape (vocab_size,), the bytes each id stands for (0 for control ids), from which
    bits per byte are computed.
    """

    def __init__(self, model: bytes, fingerprint: str) -> None:
        """Parse a trained model. Raises DataError if it is not one that `train_tokenizer` makes."""
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as reason:
            raise DataError(f"not a SentencePiece model: {reason}") from None
        self.fingerprint = fingerprint
        self.vocab_size = int(self.processor.get_piece_size())
        self.dtype: np.dtype[Any] = np.dtype("<u2" if self.vocab_size < 1 << 16 else "<u4")
        pieces = [self.processor.id_to_piece(id_) for id_ in range(self.vocab_size)]
        self.special = _find_special(self.processor, pieces)
        matches = {id_: _LANGUAGE_PIECE.fullmatch(piece) for id_, piece in enumerate(pieces)}
        self.languages = {m[1]: id_ for id_, m in matches.items() if m and self.processor.is_control(id_)}
        self._bytes_of_id = [_piece_bytes(self.processor, id_, piece) for id_, piece in enumerate(pieces)]
        self.token_bytes: npt.NDArray[np.uint16] = np.array([len(b) for b in self._bytes_of_id], np.uint16)
        self._id_of_byte = _find_byte_ids(self.processor, self._bytes_of_id)
        self._cuts = SafeCuts(self._bytes_of_id)

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Load a finished tokenizer stage; the checksum is verified before the model is parsed.

        Raises DataError if the stage is missing, unfinished, damaged or of a newer format.
        """
        manifest = read_manifest(directory, TOKENIZER_KIND, TOKENIZER_FORMAT)
        if MODEL_NAME not in manifest.files:
            raise DataError(f"{directory}: its manifest names no {MODEL_NAME}; train the tokenizer again")
        if damage := find_damage(directory, manifest):
            raise DataError(f"{damage[0]}; restore the file or train the tokenizer again")
        try:
            return cls((directory / MODEL_NAME).read_bytes(), manifest.fingerprint)
        except DataError as reason:
            raise DataError(f"{directory / MODEL_NAME}: {reason}") from None

    def encode(self, content: bytes) -> list[int]:
        """Token ids of any bytes, without control tokens."""
        ids: list[int] = self.encode_batch([content], num_threads=1)[0].tolist()
        return ids

    def encode_batch(self, contents: Sequence[bytes], num_threads: int) -> list[npt.NDArray[Any]]:
        """Encode several contents on SentencePiece's own threads.

        Returns for each a 1-D array of ids of type `dtype`, the same ids as `encode` gives.
        """
        runs = [_split_runs(content) for content in contents]
        texts = [run for parts in runs for run in parts[::2]]
        encoded = iter(self._encode_texts(texts, num_threads))
        return [self._join_runs(parts, encoded) for parts in runs]

    def _encode_texts(self, texts: Sequence[bytes], num_threads: int) -> list[npt.NDArray[np.int32]]:
        """Ids of each text, encoded in parts where that makes no difference."""
        parts = [self._cuts.split(text) for text in texts]
        flat = [part for group in parts for part in group]
        encoded = iter(self.processor.encode(flat, return_type="numpy", num_threads=num_threads))
        grouped = (list(islice(encoded, len(group))) for group in parts)
        return [group[0] if len(group) == 1 else np.concatenate(group) for group in grouped]

    def _join_runs(self, parts: list[bytes], encoded: Iterator[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        arrays = [next(encoded)]
        for raw in parts[1::2]:
            arrays += [self._id_of_byte[np.frombuffer(raw, np.uint8)], next(encoded)]
        return np.concatenate(arrays, dtype=self.dtype, casting="unsafe")

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> bytes:
        """The bytes that ids stand for; control tokens stand for none.

        Raises DataError for an id outside the vocabulary.
        """
        array = np.asarray(ids, np.int64)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < self.vocab_size:
            raise DataError(
                f"token ids {array.min()} to {array.max()} do not fit a vocabulary of {self.vocab_size}"
            )
        return b"".join([self._bytes_of_id[id_] for id_ in array.tolist()])

    def language_id(self, name: str) -> int:
        """Id of a language's control token. Raises DataError for a language that has none."""
        if name not in self.languages:
            raise DataError(
                f"this tokenizer has no token for the language {name}, only for {', '.join(self.languages)}; "
                "train one with it"
            )
        return self.languages[name]

    def encode_document(self, language: str, path: str, content: bytes) -> npt.NDArray[Any]:
        """One document: `<document> <language:X> <file_name>` path `<content>` content `<end>`.

        Returns a 1-D array of type `dtype`. Raises DataError for an unknown language.
        """
        return self.encode_documents([(language, path, content)], num_threads=1)[0]

    def encode_documents(
        self, documents: Sequence[tuple[str, str, bytes]], num_threads: int
    ) -> list[npt.NDArray[Any]]:
        """`encode_document` for a batch of (language, path, content), on several threads."""
        paths = [path.encode("utf-8", "surrogateescape") for _, path, _ in documents]
        encoded = self.encode_batch([*paths, *(content for _, _, content in documents)], num_threads)
        return [
            self._join_document(language, path_ids, content_ids)
            for (language, _, _), path_ids, content_ids in zip(
                documents, encoded[: len(paths)], encoded[len(paths) :], strict=True
            )
        ]

    def _join_document(
        self, language: str, path_ids: npt.NDArray[Any], content_ids: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        special = self.special
        head = np.array([special.document, self.language_id(language), special.file_name], self.dtype)
        middle, end = np.array([special.content], self.dtype), np.array([special.end], self.dtype)
        return np.concatenate([head, path_ids, middle, content_ids, end])


def _split_runs(content: bytes) -> list[bytes]:
    """Alternate runs of text and of bytes to encode raw; the first and the last are text, perhaps empty."""
    if content.isascii():
        return [content]
    text = content.decode("utf-8", "surrogateescape")
    parts = _NOT_TEXT.split(text)
    return [content] if len(parts) == 1 else [part.encode("utf-8", "surrogateescape") for part in parts]


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


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the control tokens by name, as manifests record them."""
    return asdict(tokenizer.special)
