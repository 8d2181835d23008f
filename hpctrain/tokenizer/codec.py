"""What every tokenizer here does: any bytes to token ids and back, exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, find_damage, read_manifest

TOKENIZER_KIND = "tokenizer"
TOKENIZER_FORMAT = 1
MODEL_NAME = "tokenizer.model"
"""A SentencePiece model that was trained here."""
FOREIGN_NAME = "tokenizer.json"
"""A Hugging Face tokenizer that came with an imported model; `MARKS_NAME` lies beside it."""
MARKS_NAME = "marks.json"
FOREIGN_CONFIG_NAME = "tokenizer_config.json"


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


class Tokenizer(ABC):
    """Encodes any bytes and decodes them again without loss; control tokens never come out of text.

    Safe to pickle and to share between threads. Attributes: `fingerprint` of the tokenizer stage;
    `vocab_size`, one more than the highest id, unused ids counted; `special`, ids of the control tokens;
    `languages`, ids of the language tokens by name; `dtype`, the smallest of uint16 and uint32 for these ids;
    `token_bytes`, uint16 of shape (vocab_size,), the bytes each id stands for (0 for control ids), from which
    bits per byte are computed.
    """

    def __init__(
        self,
        bytes_of_id: Sequence[bytes],
        special: SpecialTokens,
        languages: Mapping[str, int],
        fingerprint: str,
    ) -> None:
        self.fingerprint = fingerprint
        self.special, self.languages = special, dict(languages)
        self.vocab_size = len(bytes_of_id)
        self.dtype: np.dtype[Any] = np.dtype("<u2" if self.vocab_size < 1 << 16 else "<u4")
        self._bytes_of_id = list(bytes_of_id)
        self.token_bytes: npt.NDArray[np.uint16] = np.array([len(b) for b in self._bytes_of_id], np.uint16)

    @staticmethod
    def load(directory: Path) -> Tokenizer:
        """Load a finished tokenizer stage of either kind; its checksums are verified before it is parsed.

        Raises DataError if the stage is missing, unfinished, damaged or of a newer format.
        """
        manifest = read_manifest(directory, TOKENIZER_KIND, TOKENIZER_FORMAT)
        if damage := find_damage(directory, manifest):
            raise DataError(f"{damage[0]}; restore the file or make the tokenizer again")
        return _parse(directory, manifest)

    @abstractmethod
    def encode_batch(self, contents: Sequence[bytes], num_threads: int) -> list[npt.NDArray[Any]]:
        """Encode several contents on the library's own threads.

        Returns for each a 1-D array of ids of type `dtype`, the same ids as `encode` gives.
        """

    def encode(self, content: bytes) -> list[int]:
        """Token ids of any bytes, without control tokens."""
        ids: list[int] = self.encode_batch([content], num_threads=1)[0].tolist()
        return ids

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


def _parse(directory: Path, manifest: Manifest) -> Tokenizer:
    """The tokenizer of a stage whose files are whole."""
    from hpctrain.tokenizer.foreign import ForeignTokenizer
    from hpctrain.tokenizer.sentence_pieces import SentencePieceTokenizer

    kinds: dict[str, type[SentencePieceTokenizer | ForeignTokenizer]] = {
        MODEL_NAME: SentencePieceTokenizer,
        FOREIGN_NAME: ForeignTokenizer,
    }
    for name, kind in kinds.items():
        if name in manifest.files:
            try:
                return kind.parse(directory, manifest.fingerprint)
            except DataError as reason:
                raise DataError(f"{directory / name}: {reason}") from None
    raise DataError(f"{directory}: its manifest names no {' or '.join(kinds)}; make the tokenizer again")


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the control tokens by name, as manifests record them."""
    return asdict(tokenizer.special)
