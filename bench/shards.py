"""Shards: text to tokens on disk against a loop like Megatron's; random reads against a flat memory map."""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.table import Row, row

SEQUENCE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="a finished corpus")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a finished tokenizer")
    parser.add_argument("--megabytes", type=int, default=16, help="text of the corpus to encode")
    parser.add_argument("--reads", type=int, default=20000, help="random reads in each round")
    parser.add_argument("--read-tokens", type=int, default=96 << 20, help="tokens to read from")
    parser.add_argument("--rounds", type=int, default=5, help="every variant once a round, in turn")
    parser.add_argument("--scratch", type=Path, help="directory on the file system to measure")


def measure(options: argparse.Namespace) -> list[Row]:
    """Seconds are of the processor, of one thread, so that what else runs matters little."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory(prefix="hpctrain-bench-", dir=options.scratch) as place:
        return [*_encode_rows(options, Path(place)), *_read_rows(options, Path(place))]


def _encode_rows(options: argparse.Namespace, place: Path) -> list[Row]:
    from hpctrain.tokenizer.codec import Tokenizer

    codec = Tokenizer.load(options.tokenizer)
    documents = list(_sample(options.corpus, options.megabytes * 1_000_000))
    size = sum(len(document.content) for document in documents)
    variants = _variants(options, place, codec, documents)
    samples: dict[str, list[tuple[float, int]]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, variant in variants.items():
            began = time.process_time()
            tokens = variant()
            samples[name].append((time.process_time() - began, tokens))
    rows = []
    for metric, amount in (("MB of text/s a core", size), ("million tokens/s a core", 0)):
        rates = {name: [(amount or n) / s / 1e6 for s, n in pairs] for name, pairs in samples.items()}
        base = float(np.median(rates["Megatron-like, byte-level BPE"]))
        rows += [row("encode", name, metric, values, base) for name, values in rates.items()]
    return rows


def _sample(corpus: Path, size: int) -> Iterator[Any]:
    """Documents spread over a corpus, of about so many bytes."""
    from hpctrain.corpus.document import read_corpus_manifest, read_documents

    total = sum(sum(sizes.values()) for sizes in read_corpus_manifest(corpus).counts["bytes"].values())
    step = max(1, total // size)
    return islice(read_documents(corpus), 0, None, step)


def _variants(
    options: argparse.Namespace, place: Path, codec: Any, documents: list[Any]
) -> dict[str, Callable[[], int]]:
    """Ways from the documents to tokens on disk; each returns the number of tokens."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from hpctrain.tokenizer.huggingface import to_tokenizer_json

    corpus = _write_corpus(place / "corpus", documents)
    texts = [document.content.decode("utf-8", "replace") for document in documents]
    lines = [json.dumps({"text": text}) for text in texts]
    byte_level = Fast(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=codec.vocab_size, show_progress=False, initial_alphabet=alphabet)
    byte_level.train_from_iterator(texts, trainer)
    same = Fast.from_str(to_tokenizer_json(codec))
    contents = [document.content for document in documents]
    return {
        "Megatron-like, byte-level BPE": lambda: _megatron_like(
            PreTrainedTokenizerFast(tokenizer_object=byte_level), lines, place
        ),
        "Megatron-like, our vocabulary": lambda: _megatron_like(
            PreTrainedTokenizerFast(tokenizer_object=same), lines, place
        ),
        "sentencepiece alone, nothing written": lambda: sum(
            map(len, codec.processor.encode(contents, return_type="numpy", num_threads=1))
        ),
        "hpctrain shards build --no-spans": lambda: _build(corpus, options.tokenizer, place, False),
        "hpctrain shards build": lambda: _build(corpus, options.tokenizer, place, True),
    }


def _write_corpus(directory: Path, documents: list[Any]) -> Path:
    from hpctrain.corpus.document import CORPUS_FORMAT, CORPUS_KIND, write_corpus_files
    from hpctrain.manifest import write_stage

    with write_stage(directory, CORPUS_KIND, CORPUS_FORMAT) as stage:
        write_corpus_files(stage, documents)
        stage.counts = {"bytes": {"train": {"all": sum(len(d.content) for d in documents)}}}
    return directory


def _megatron_like(tokenizer: Any, lines: list[str], place: Path) -> int:
    """Parse JSON, encode, append the end, write uint16 and the lengths: as its preprocess_data.py does."""
    lengths = []
    with (place / "data.bin").open("wb") as stream:
        for line in lines:
            ids = tokenizer(json.loads(line)["text"]).input_ids
            ids.append(0)
            stream.write(np.array(ids, np.uint16).tobytes())
            lengths.append(len(ids))
    np.array(lengths, np.int32).tofile(place / "data.idx")
    return sum(lengths)


def _build(corpus: Path, tokenizer: Path, place: Path, spans: bool) -> int:
    from hpctrain.shards.pack import BuildOptions, build_shards

    out = place / "shards"
    shutil.rmtree(out, ignore_errors=True)
    counts = build_shards(corpus, tokenizer, out, BuildOptions(spans=spans), threads=1).counts["tokens"]
    return sum(sum(by_language.values()) for by_language in counts.values())


def _read_rows(options: argparse.Namespace, place: Path) -> list[Row]:
    from hpctrain.loader.component import Component, Part

    stream, flat = _synthetic(place / "reads", options.read_tokens)
    component = Component([Part(stream, 0, len(stream))], SEQUENCE)
    numbers = np.random.default_rng(1).integers(0, len(component), options.reads)
    mapped = np.memmap(flat, np.uint16, "r")
    with flat.open("rb") as file:
        raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    starts = (numbers * SEQUENCE).tolist()
    width = SEQUENCE + 1
    variants: dict[str, Callable[[], None]] = {
        "flat memory map, slices": lambda: _each(lambda at: np.array(mapped[at : at + width]), starts),
        "flat memory map, numpy.frombuffer": lambda: _each(
            lambda at: np.frombuffer(raw, np.uint16, width, 2 * at).copy(), starts
        ),
        "hpctrain TokenStream.read": lambda: _each(lambda at: stream.read(at, at + width), starts),
        "flat memory map, slices to int64": lambda: _each(
            lambda at: mapped[at : at + width].astype(np.int64), starts
        ),
        "hpctrain Component.sequence (int64)": lambda: _each(component.sequence, numbers.tolist()),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(options.rounds + 1):
        for name, variant in variants.items():
            began = time.process_time()
            variant()
            if turn:  # the first warms the page cache
                rates[name].append(options.reads / (time.process_time() - began))
    bases = {name: float(np.median(values)) for name, values in rates.items()}
    plain, wide = bases["flat memory map, slices"], bases["flat memory map, slices to int64"]
    return [
        row("read", name, f"sequences of {SEQUENCE}/s", values, wide if "int64" in name else plain)
        for name, values in rates.items()
    ]


def _each(read: Callable[[int], Any], places: list[int]) -> None:
    for place in places:
        read(place)


def _synthetic(directory: Path, count: int) -> tuple[Any, Path]:
    """The same tokens as a stream of three shards and as a flat file."""
    from hpctrain.shards.layout import ShardTables, write_shard
    from hpctrain.shards.stream import Shard, TokenStream

    directory.mkdir()
    tokens = np.random.default_rng(1).integers(0, 32768, count, dtype=np.uint16)
    tokens.tofile(directory / "flat")
    shards = []
    for number, part in enumerate(np.array_split(tokens, 3)):
        offsets, one = np.array([0, len(part)], np.uint64), np.array([0, 1], np.uint64)
        path = directory / f"c-{number:05d}.h5"
        write_shard(path, part.dtype, [part], ShardTables(offsets, one[:1], one, ["random"], None))
        shards.append(Shard(path, ["tokens", "document_offsets", "document_index"]))
    return TokenStream(shards), directory / "flat"
