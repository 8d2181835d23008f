"""Documents to a tokenizer stage: a SentencePiece BPE model that keeps every byte of source code."""

from __future__ import annotations

import math
import re
import string
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import sentencepiece
from pydantic import Field, field_validator

from hpctrain.config import Section, fingerprint
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import Manifest, find_finished, read_manifest, write_stage
from hpctrain.progress import Progress, progress, say
from hpctrain.tokenizer.codec import (
    MODEL_NAME,
    SPECIAL_NAMES,
    TOKENIZER_FORMAT,
    TOKENIZER_KIND,
    language_piece,
    special_piece,
)
from hpctrain.tokenizer.describe import bytes_per_token
from hpctrain.tokenizer.lexicon import directive_text
from hpctrain.tokenizer.sample import draw_sample
from hpctrain.tokenizer.sentence_pieces import SentencePieceTokenizer
from hpctrain.tokenizer.trainer_process import write_request

_WORK = 100
_DIRECTIVES_ONE_IN = 512
_BOUND_PIECES = ("unk", "pad", "document", "end")  # those SentencePiece has roles for: unk, pad, bos, eos


class TokenizerConfig(Section):
    """How a tokenizer is trained."""

    vocab_size: int = Field(8192, ge=512, le=1 << 20)
    """Pieces in all, the 256 byte pieces and the control tokens among them."""
    sample_bytes: int = Field(16 << 20, gt=0)
    """Bytes of text to train on. Time and memory grow with it: 16 MiB take some ten seconds, and the trainer
    takes 100 MiB and 48 bytes of memory a byte of text (16 if pieces do not cross spaces)."""
    language_exponent: float = Field(0.5, ge=0, le=1)
    """A language's share of the sample goes with its bytes to this power: 1 keeps the corpus's balance, 0
    gives every language the same."""
    language_weights: dict[str, float] = {}
    """Instead of the exponent: the share of each language, relative to the others. What is not named is left
    out; what a small language cannot fill goes to the others."""
    max_piece_characters: int = Field(24, ge=2, le=512)
    """Longest piece, in Unicode characters."""
    pieces_cross_spaces: bool = True
    """Whether a piece may go on over a space, as in `for (int i = 0; `: with 32,768 pieces,
    20% fewer tokens of code like the sample and 7% of other code."""
    directives: bool = True
    """Whether a 512th of the sample is added in directives of every spelling, so that `C$OMP` and `<<<`
    become pieces where the corpus holds few."""
    seed: int = Field(0, ge=0)
    """Which documents are drawn for the sample."""

    @field_validator("language_weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        if wrong := [f"{language}: {weight}" for language, weight in weights.items() if weight <= 0]:
            raise ValueError(
                f"weights must be positive (leave a language out to skip it); {', '.join(wrong)}"
            )
        return weights


def train_tokenizer(
    config: TokenizerConfig,
    documents: Iterable[tuple[str, bytes]],
    languages: Sequence[str],
    inputs: Mapping[str, str],
    out: Path,
    sizes: Mapping[str, int] | None = None,
) -> Manifest:
    """Train on (language, content) pairs, read once, and publish the tokenizer stage `out`; its manifest.

    `languages` are those that get a control token, in this order; `inputs` holds the fingerprints of what the
    documents came from; `sizes` the bytes of each language among them, with which this process holds about
    `sample_bytes` and not as much of each language. The manifest counts pieces, sampled bytes by language,
    and bytes per token of documents held out of the sample. Equal documents, sizes, config and SentencePiece
    version give an equal model. If `out` already holds this very tokenizer, it is returned as it is. Raises
    DataError if there is no text, a document's language is not in `languages`, or `out` holds something else;
    ConfigError if `vocab_size` does not fit the text or a weight is of no language.
    """
    if unknown := sorted({*config.language_weights} - {*languages}):
        raise ConfigError(
            f"language_weights: no language is called {', '.join(unknown)}; valid: {', '.join(languages)}"
        )
    inputs = {**inputs, "config": fingerprint(config), "languages": fingerprint(list(languages))}
    if finished := find_finished(out, TOKENIZER_KIND, TOKENIZER_FORMAT, inputs):
        say(f"{out}: up to date")
        return finished
    known = _known_languages(documents, languages)
    balance = config.language_weights or config.language_exponent
    sample = draw_sample(known, config.sample_bytes, balance, config.seed, sizes)
    sample_bytes = {name: sum(map(len, drawn)) for name, drawn in sample.training.items()}
    if not any(sample_bytes.values()):
        raise DataError(
            "the documents hold no text to train a tokenizer on; see what the corpus build dropped"
        )
    for name in sorted({*config.language_weights} - {*sample_bytes}):
        say(f"language_weights: the documents hold no {name}; its share goes to the others")
    with write_stage(out, TOKENIZER_KIND, TOKENIZER_FORMAT) as stage:
        model_path = stage.path(MODEL_NAME)
        with progress("tokenizer", _WORK, "parts of the work") as bar:
            texts = chain(chain.from_iterable(sample.training.values()), extra_texts(config))
            _train_model(trainer_options(config, languages), texts, model_path, bar)
        tokenizer = SentencePieceTokenizer(model_path.read_bytes(), fingerprint="")
        held_out = ((name, content) for name, drawn in sample.held_out.items() for content in drawn)
        stage.inputs = inputs
        stage.counts = {
            "pieces": tokenizer.vocab_size,
            "sample_bytes": sample_bytes,
            "held_out_bytes_per_token": bytes_per_token(tokenizer, held_out),
        }
        stage.details = {"config": config.model_dump(), "sentencepiece": sentencepiece.__version__}
    return read_manifest(out, TOKENIZER_KIND, TOKENIZER_FORMAT)


def trainer_options(config: TokenizerConfig, languages: Sequence[str]) -> dict[str, Any]:
    """SentencePiece's options for lossless BPE over source code, with our control tokens."""
    unk, pad, document, end = (special_piece(name) for name in _BOUND_PIECES)
    others = [special_piece(name) for name in SPECIAL_NAMES if name not in _BOUND_PIECES]
    return {
        "model_type": "bpe",
        "vocab_size": config.vocab_size,
        "max_sentencepiece_length": config.max_piece_characters,
        "split_by_whitespace": not config.pieces_cross_spaces,
        "split_by_unicode_script": False,  # so that `MPI_Comm` and `#include` can be pieces
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "byte_fallback": True,
        "required_chars": string.printable.replace(" ", ""),
        # Nothing may be changed before encoding, or the bytes would not come back.
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        # Documents are trained on whole, newlines inside: the default would silently skip the longer ones.
        "max_sentence_length": 1 << 30,
        "unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3,
        "unk_piece": unk, "pad_piece": pad, "bos_piece": document, "eos_piece": end,
        "control_symbols": [*others, *(language_piece(language) for language in languages)],
    }  # fmt: skip


def extra_texts(config: TokenizerConfig) -> list[bytes]:
    """What is trained on besides the sample."""
    return [directive_text(config.sample_bytes // _DIRECTIVES_ONE_IN)] if config.directives else []


def _train_model(options: Mapping[str, Any], texts: Iterable[bytes], model: Path, bar: Progress) -> None:
    """Run the trainer in its own process and follow its log."""
    command = [sys.executable, "-m", "hpctrain.tokenizer.trainer_process", str(model.resolve())]
    log: deque[str] = deque(maxlen=20)
    # The sample goes through a nameless file: through a pipe, both sides could wait for each other.
    with tempfile.TemporaryFile(dir=model.parent) as request:
        write_request(request, options, texts)
        request.seek(0)
        with subprocess.Popen(
            command, stdin=request, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as process:
            assert process.stderr is not None  # as asked for above
            for line in process.stderr:
                log.append(line.decode("utf-8", "replace").rstrip())
                if match := re.search(r"merges=(\d+)", log[-1]):
                    _show_merges(bar, int(match[1]), options["vocab_size"])
    if process.returncode == 0:
        return _show_merges(bar, options["vocab_size"], options["vocab_size"])
    reason = log[-1] if log else f"exit status {process.returncode}"
    if limit := re.search(r"Vocabulary size too high .*<= (\d+)", reason):
        raise ConfigError(
            f"vocab_size: {options['vocab_size']} is more than the text gives: at most {limit[1]}"
        )
    if "smaller than required_chars" in reason:
        raise ConfigError(f"vocab_size: {options['vocab_size']} is too small for the characters of the text")
    raise DataError("SentencePiece could not train:\n" + "\n".join(log))


def _show_merges(bar: Progress, merges: int, vocab_size: int) -> None:
    """A merge costs as much as its piece is frequent, about 1 / rank: the work grows with log(rank)."""
    done = _WORK * math.log1p(merges) / math.log1p(vocab_size)
    bar.advance(done - bar.done, f"{merges:,} pieces")


def _known_languages(
    documents: Iterable[tuple[str, bytes]], languages: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    for language, content in documents:
        if language not in languages:
            raise DataError(f"a document is in {language}; the tokenizer is for {', '.join(languages)}")
        yield language, content
