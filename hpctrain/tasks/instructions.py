"""Examples of instructions as token shards, with the place of each response: its tokens are learnt."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hpctrain.config import fingerprint
from hpctrain.errors import DataError
from hpctrain.manifest import (
    MANIFEST_NAME,
    Manifest,
    StageWriter,
    checksum,
    disk_errors,
    find_finished,
    read_manifest,
    write_stage,
)
from hpctrain.progress import progress, say
from hpctrain.shards.encode import EncodedPart, Key, write_unit
from hpctrain.shards.layout import (
    DEFAULT_SHARD_BYTES,
    RESPONSE_KIND,
    RESPONSES,
    SHARDS_FORMAT,
    SHARDS_KIND,
    SPAN_DTYPE,
    TOKENIZER_DIRECTORY,
)
from hpctrain.shards.plan import assemble_shard, plan_shards
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.tasks.examples import Example, ExampleOptions, ExampleReader
from hpctrain.tokenizer.codec import (
    TOKENIZER_FORMAT,
    TOKENIZER_KIND,
    Tokenizer,
    language_piece,
    special_ids,
    special_piece,
)

_BATCH_EXAMPLES = 1024
_UNIT_EXAMPLES = 1 << 16
_INPUT = "instructions"


@dataclass(frozen=True)
class InstructionOptions:
    """How examples become shards."""

    examples: ExampleOptions = field(default_factory=ExampleOptions)
    context: int | None = None
    """Longest example in tokens that a model may take, as data.sequence_length; None: any length."""
    too_long: Literal["error", "drop"] = "error"
    """What becomes of longer ones."""


def build_instructions(
    files: Sequence[Path], tokenizer: Path, out: Path, options: InstructionOptions = InstructionOptions()
) -> Manifest:
    """Encode examples of JSON lines and publish the shards stage `out`; returns its manifest.

    Holds the tokens of 65,536 examples in memory. If `out` already holds these shards, it is left as it is.
    Raises DataError that names each line that cannot be used, or if `out` holds something else.
    """
    codec = Tokenizer.load(tokenizer)
    inputs = {_INPUT: _identity(files, options), "tokenizer": codec.fingerprint}
    if finished := find_finished(out, SHARDS_KIND, SHARDS_FORMAT, inputs):
        say(f"{out}: up to date")
        return finished
    reader = ExampleReader(options.examples, list(codec.languages))
    encoder = _Encoder(codec, options, reader)
    with write_stage(out, SHARDS_KIND, SHARDS_FORMAT) as stage:
        stage.inputs = inputs
        with tempfile.TemporaryDirectory(dir=stage.directory) as scratch:
            units = _encode(files, encoder, Path(scratch))
            reader.refuse_problems()
            _publish(stage, units, encoder)
        manifest = read_manifest(tokenizer, TOKENIZER_KIND, TOKENIZER_FORMAT)
        for name in [*manifest.files, MANIFEST_NAME]:
            shutil.copyfile(tokenizer / name, stage.path(f"{TOKENIZER_DIRECTORY}/{name}"))
    _tell(out, encoder)
    return read_manifest(out, SHARDS_KIND, SHARDS_FORMAT)


@dataclass(frozen=True)
class ShownExample:
    """An example in shards, as text; marks stand as `<fim_prefix>` and so on."""

    language: str
    asked: str
    response: str
    tokens: int
    learnt: int
    """Tokens of the response, its end mark included."""


def read_example(directory: Path, split: str, number: int) -> ShownExample:
    """Example `number`, from 1, of a split of shards of instructions.

    Raises DataError if they are no such shards or have no such example.
    """
    if not read_shards_manifest(directory).details.get(RESPONSES):
        raise DataError(f"{directory}: shards of files, not of instructions")
    codec, left = Tokenizer.load(directory / TOKENIZER_DIRECTORY), number
    for language, stream in open_streams(directory, split).items():
        responses = stream.spans(0, len(stream))
        if left > len(responses):
            left -= len(responses)
            continue
        at, stop = (int(responses[left - 1][name]) for name in ("start", "stop"))
        [place] = stream.documents(at, at + 1)
        asked, response = stream.read(place.start, at), stream.read(at, stop)
        return ShownExample(
            language, _text(codec, asked), _text(codec, response), stop - place.start, stop - at
        )
    raise DataError(f"{directory}: {split} has {number - left} examples, none with the number {number}")


def _text(codec: Tokenizer, ids: npt.NDArray[Any]) -> str:
    marks = {id_: special_piece(name) for name, id_ in special_ids(codec).items()}
    marks |= {id_: language_piece(name) for name, id_ in codec.languages.items()}
    parts = (marks.get(each) or codec.decode([each]) for each in ids.tolist())
    return b"".join(p.encode() if isinstance(p, str) else p for p in parts).decode("utf-8", "replace")


def _identity(files: Sequence[Path], options: InstructionOptions) -> str:
    """A fingerprint of the files' contents, names and options; raises DataError if one cannot be read."""
    if not files:
        raise DataError("no file of examples was given")
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    with disk_errors(files[0]):
        contents = [[path.name, checksum(path)] for path in files]
    return fingerprint([contents, asdict(options)])


def _encode(files: Sequence[Path], encoder: _Encoder, scratch: Path) -> list[Path]:
    """Encode all files; the units that hold their tokens."""
    units: list[Path] = []
    with progress("encode", sum(path.stat().st_size for path in files) / 1e6, "MB") as bar:
        for path in files:
            done = 0
            for batch in _batches(((path, each) for each in encoder.reader.read(path)), _BATCH_EXAMPLES):
                encoder.add(batch)
                size = sum(len(example.prompt) + len(example.response) for _, example in batch)
                bar.advance(size / 1e6)
                done += size
                if encoder.examples >= _UNIT_EXAMPLES:
                    units.append(encoder.write(scratch / f"{len(units)}.npz"))
            bar.advance(max(0, path.stat().st_size - done) / 1e6)
        if encoder.examples:
            units.append(encoder.write(scratch / f"{len(units)}.npz"))
    return units


def _publish(stage: StageWriter, units: Sequence[Path], encoder: _Encoder) -> None:
    codec, options = encoder.codec, encoder.options
    plan = plan_shards(units, DEFAULT_SHARD_BYTES // codec.dtype.itemsize, lambda: None)
    if not plan.counts["tokens"].get("train"):
        raise DataError(f"{stage.directory}: no example is left to train on")
    for shard in plan.shards:
        assemble_shard(stage.path(shard.name), shard, units, plan.bases, codec.dtype, spans=True)
    responses: dict[str, dict[str, int]] = {}
    for (split, language), tokens in sorted(encoder.responses.items()):
        responses.setdefault(split, {})[language] = tokens
    stage.counts = {**plan.counts, RESPONSES: responses, "licences": {}, "dropped": encoder.dropped}
    stage.details = {
        "vocab_size": codec.vocab_size,
        "special": special_ids(codec),
        "languages": codec.languages,
        "dtype": codec.dtype.name,
        "spans": True,
        RESPONSES: True,
        "template": options.examples.template,
        "longest": encoder.longest,
    }


def _tell(out: Path, encoder: _Encoder) -> None:
    if encoder.dropped:
        say(f"{out}: {encoder.dropped} examples are longer than {encoder.options.context} tokens; left out")
    if passed_over := encoder.reader.passed_over:
        say(f"{out}: keys that say nothing here: {', '.join(sorted(passed_over))}")


@dataclass
class _Part:
    """The examples of one split and language in one unit."""

    ids: list[npt.NDArray[Any]] = field(default_factory=list)
    responses: list[tuple[int, int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    tokens: int = 0
    bytes: int = 0

    def add(self, number: int, example: Example, ids: npt.NDArray[Any], response_at: int) -> None:
        self.responses.append((self.tokens + response_at, self.tokens + len(ids)))
        self.ids.append(ids)
        self.numbers.append(number)
        self.sources.append(example.source)
        self.tokens += len(ids)
        texts = (example.prompt, example.response, example.suffix or "")
        self.bytes += sum(len(_bytes(text)) for text in texts)

    def finish(self, dtype: np.dtype[Any]) -> EncodedPart:
        spans = np.zeros(len(self.responses), SPAN_DTYPE)
        spans["start"], spans["stop"] = np.array(self.responses, np.uint64).T
        spans["kind"] = RESPONSE_KIND
        return EncodedPart(
            tokens=np.concatenate(self.ids, dtype=dtype),
            lengths=np.array([len(ids) for ids in self.ids], np.uint32),
            numbers=np.array(self.numbers, np.uint32),
            sources=np.array(self.sources, np.str_),
            spans=spans,
        )


class _Encoder:
    """Examples to parts, as a model then meets them: see `prompt_ids` of generation."""

    def __init__(self, codec: Tokenizer, options: InstructionOptions, reader: ExampleReader) -> None:
        self.codec, self.options, self.reader = codec, options, reader
        self.parts: dict[Key, _Part] = {}
        self.responses: Counter[Key] = Counter()
        """Tokens of responses by split and language."""
        self.examples = 0
        """In the unit that is being made."""
        self.longest = self.dropped = 0

    def add(self, batch: Sequence[tuple[Path, Example]]) -> None:
        """Encode examples of one file."""
        heads = self.codec.encode_documents(
            [(e.language, e.path, b"" if e.suffix is not None else _bytes(e.prompt)) for _, e in batch], 1
        )
        responses = self.codec.encode_batch([_bytes(example.response) for _, example in batch], 1)
        for (path, example), head, response in zip(batch, heads, responses, strict=True):
            ids = np.concatenate([head[:-1], self._gap(example), response, head[-1:]])
            if self._fits(path, example, len(ids)):
                part = self.parts.setdefault((example.split, example.language), _Part())
                part.add(self.examples, example, ids, len(ids) - len(response) - 1)
                self.responses[example.split, example.language] += len(response) + 1
                self.examples += 1

    def _gap(self, example: Example) -> npt.NDArray[Any]:
        """What follows the head where the response fills a gap: what is around it, and the middle's mark."""
        if example.suffix is None:
            return np.empty(0, self.codec.dtype)
        special = self.codec.special
        before, after = (self.codec.encode(_bytes(text)) for text in (example.prompt, example.suffix))
        marked = [special.fim_prefix, *before, special.fim_suffix, *after, special.fim_middle]
        return np.array(marked, self.codec.dtype)

    def _fits(self, path: Path, example: Example, tokens: int) -> bool:
        """Whether an example may stay; a sequence of S positions takes S + 1 tokens."""
        context = self.options.context
        if context is None or tokens <= context + 1:
            self.longest = max(self.longest, tokens)
            return True
        if self.options.too_long == "drop":
            self.dropped += 1
        else:
            self.reader.problems.append(
                f"{path}:{example.line}: {tokens} tokens, more than a context of {context} takes; shorten "
                "it, or give --too-long drop"
            )
        return False

    def write(self, path: Path) -> Path:
        """Write what was added as a unit, and begin the next."""
        parts = {key: (part.finish(self.codec.dtype), part.bytes) for key, part in sorted(self.parts.items())}
        write_unit(path, parts)
        self.parts, self.examples = {}, 0
        return path


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _batches(examples: Iterable[tuple[Path, Example]], size: int) -> Iterator[list[tuple[Path, Example]]]:
    iterator = iter(examples)
    while batch := list(islice(iterator, size)):
        yield batch
