"""Tokenizers: bytes per token by language, bits per byte of a small model, cuts, memory."""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, product
from pathlib import Path
from typing import Any

import yaml

from bench.table import Row, row
from hpctrain.corpus.document import (
    CORPUS_FORMAT,
    CORPUS_KIND,
    LANGUAGES,
    Document,
    read_corpus_manifest,
    read_documents,
    write_corpus_files,
)
from hpctrain.manifest import read_manifest, write_stage
from hpctrain.shards.layout import SHARDS_FORMAT, SHARDS_KIND
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.tokenizer.sample import draw_sample
from hpctrain.tokenizer.sentence_pieces import SentencePieceTokenizer
from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer, trainer_options

MIB = 1 << 20
SEQUENCE, BATCH = 256, 4
VALIDATION_BYTES = 200_000
DIRECTIVE = re.compile(
    rb"^[ \t]*(?:[!cC*]\$(?:\w|[ \t]{2})|!(?:DIR|dir)\$|#[ \t]*pragma)[^\n]*\n", re.MULTILINE
)
SENTINELS = [f"{mark}${name}" for name in ("omp", "acc", "OMP", "ACC") for mark in "!cC*"] + [
    "!DIR$", "#pragma", "<<<", ">>>",
]  # fmt: skip
LINES = [
    b"      DO 10 I = 1, N\n",
    b"      CALL DGEMM( 'N', 'T', M, N, K, ONE, A, LDA )\n",
    b"     $                   LDA, WORK( 1 ), INFO )\n",
    b"     &            A*X(I)\n",
    b"   10 CONTINUE\n",
    b"C     COMPUTE THE NORM\n",
    b"      END                                                               AXPY0010\n",
    b"C$OMP PARALLEL DO PRIVATE(I)\n",
    b"c$omp&  shared(a, b)\n",
    b"*$OMP END PARALLEL\n",
    b"!$omp parallel do private(i) reduction(+:s)\n",
    b"!$OMP PARALLEL DO PRIVATE(i) &\n!$OMP & SHARED(a)\n",
    b"!$acc parallel loop collapse(2)\n",
    b"!$    nthreads = omp_get_max_threads()\n",
    b"!DIR$ IVDEP\n",
    b"        if (i < n) then\n            a(i) = 0.0_dp\n",
    b"#pragma omp parallel for collapse(2) schedule(static)\n",
    b"    axpy<<<blocks, threads, 0, stream>>>(n, 2.0f, x, y);\n",
    b"\t\tfor (int i = 0; i < n; ++i) {\n",
]

Encode = Callable[[bytes], list[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="a finished corpus")
    parser.add_argument("--other", type=Path, help="a finished corpus of other code, to measure on too")
    parser.add_argument(
        "--tokenizers", type=Path, nargs="*", default=[], help="finished tokenizers to measure too"
    )
    parser.add_argument("--pieces", type=int, nargs="*", default=[8192, 16384, 32768], help="sizes to train")
    parser.add_argument("--byte-level", type=int, nargs="*", default=[32768], help="sizes of byte-level BPE")
    parser.add_argument("--sentinels", type=int, nargs="*", default=[], help="sizes with sentinels otherwise")
    parser.add_argument("--sample-mib", type=int, default=16, help="text that each is trained on")
    parser.add_argument(
        "--seen-mb", type=float, default=2.5, help="text that each small model sees; 0: no models"
    )
    parser.add_argument("--cuts", action="store_true", help="show how single lines are cut")


def measure(options: argparse.Namespace) -> list[Row]:
    """Train every variant on the same text of the train split; measure all on the validation split."""
    held_out = [(d.language, d.content) for d in read_documents(options.corpus, "validation")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="hpctrain-bench-") as name:
        place = Path(name)
        stages = {path.name: path for path in options.tokenizers}
        for size, crossing in product(options.pieces, (True, False)):
            variant = f"{size}, {'across spaces' if crossing else 'within words'}"
            stages[variant] = place / variant
            rows += _train(variant, stages[variant], options, size, crossing)
        if options.seen_mb:
            small = _small_corpus(options.corpus, place / "corpus", options.seen_mb)
            for variant, stage in stages.items():
                rows += _bits_per_byte(variant, stage, small, place / "models", options.seen_mb)
        encoders = {variant: _pieces_of(Tokenizer.load(stage)) for variant, stage in stages.items()}
    if options.byte_level or options.sentinels:
        sample = _sample(options.corpus, options.sample_mib)
        encoders |= {f"{size}, byte-level BPE": _byte_level(sample, size) for size in options.byte_level}
        for size in options.sentinels:
            encoders[f"{size}, sentinels as they come"] = _otherwise(sample, size)
            encoders[f"{size}, sentinels declared"] = _otherwise(sample, size, user_defined_symbols=SENTINELS)
    texts = {"bytes per token": held_out}
    if options.other:
        others = [(d.language, d.content) for d in read_documents(options.other, "validation")]
        texts["bytes per token of other code"] = others
    for (case, documents), (variant, encode) in product(texts.items(), encoders.items()):
        rows += _bytes_per_token(case, variant, encode, documents)
    return [*rows, *(_cuts(encoders) if options.cuts else [])]


# --- training, with its time and memory ---


def _train(variant: str, stage: Path, options: argparse.Namespace, size: int, crossing: bool) -> list[Row]:
    """Train in a process of its own, so that the peaks of memory are its own."""
    config = {"vocab_size": size, "sample_bytes": options.sample_mib * MIB, "pieces_cross_spaces": crossing}
    task = {"corpus": str(options.corpus), "stage": str(stage), "config": config}
    command = [sys.executable, "-m", "bench.tokenizer", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [row("training", variant, metric, [value]) for metric, value in json.loads(done.stdout).items()]


def train_main(task: dict[str, Any]) -> None:
    """Train one tokenizer; print its CPU seconds and the peaks of memory of both processes."""
    corpus = Path(task["corpus"])
    documents = ((d.language, d.content) for d in read_documents(corpus, "train"))
    sizes = read_corpus_manifest(corpus).counts["bytes"]["train"]
    resting = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train_tokenizer(TokenizerConfig(**task["config"]), documents, LANGUAGES, {}, Path(task["stage"]), sizes)
    mine, trainer = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    figures = {
        "CPU seconds": mine.ru_utime + trainer.ru_utime,
        "MiB of this process, above its start": (mine.ru_maxrss - resting) / 1024,
        "MiB of the trainer": trainer.ru_maxrss / 1024,
        "bytes of the trainer a byte of text": trainer.ru_maxrss * 1024 / task["config"]["sample_bytes"],
    }
    print(json.dumps(figures))


# --- bits per byte of a small model ---


def _small_corpus(corpus: Path, out: Path, seen_mb: float) -> Path:
    """A corpus of a little more than the models will see, and of little to evaluate on."""
    documents = []
    for split, size, balance in (("train", int(1.2e6 * seen_mb), 0.5), ("validation", VALIDATION_BYTES, 0.0)):
        texts = ((d.language, d.content) for d in read_documents(corpus, split))
        for language, drawn in draw_sample(texts, size, balance, seed=1).training.items():
            documents += [
                Document("sample", f"{n}", language, "", f"{split}-{language}-{n}", split, content)
                for n, content in enumerate(drawn)
            ]
    counts: dict[str, dict[str, Counter[str]]] = {"documents": {}, "bytes": {}}
    for document in documents:
        for name, amount in (("documents", 1), ("bytes", len(document.content))):
            counts[name].setdefault(document.split, Counter())[document.language] += amount
    with write_stage(out, CORPUS_KIND, CORPUS_FORMAT) as stage:
        write_corpus_files(stage, documents)
        stage.counts = counts
    return out


def _bits_per_byte(variant: str, tokenizer: Path, corpus: Path, models: Path, seen_mb: float) -> list[Row]:
    """Train the 1m preset on a tokenizer's shards, over the same bytes for each; its last evaluation."""
    shards, run = models / variant / "shards", models / variant / "run"
    _hpctrain("shards", "build", "--corpus", corpus, "--tokenizer", tokenizer, "--out", shards)
    counts = read_manifest(shards, SHARDS_KIND, SHARDS_FORMAT).counts
    ratio = sum(counts["bytes"]["train"].values()) / sum(counts["tokens"]["train"].values())
    steps = round(seen_mb * 1e6 / ratio / (BATCH * SEQUENCE))
    config = {
        "run": {"name": "bench", "dir": str(run)},
        "data": {"shards": str(shards), "sequence_length": SEQUENCE},
        "model": {"preset": "1m"},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.1},
        "schedule": {"kind": "wsd", "warmup_steps": steps // 10, "decay_steps": steps // 3},
        "train": {
            "steps": steps, "global_batch_size": BATCH, "micro_batch_size": BATCH,
            "evaluate_every_steps": steps, "evaluate_sequences": 10**6,
        },
        "log": {"wandb": "disabled"},
    }  # fmt: skip
    path = models / variant / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    start = time.monotonic()
    _hpctrain("train", path, "--ranks", 1)
    took = time.monotonic() - start
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bits = next(r for r in reversed(records) if "bits_per_byte_by_language" in r)["bits_per_byte_by_language"]
    sizes = counts["bytes"]["validation"]
    bits["all"] = sum(bits[name] * sizes[name] for name in sizes) / sum(sizes.values())
    rows = [row("bits per byte", variant, language, [value]) for language, value in bits.items()]
    return [
        *rows,
        row("small model", variant, "steps", [steps]),
        row("small model", variant, "seconds", [took]),
    ]


def _hpctrain(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "hpctrain", *map(str, arguments)], check=True, stdout=sys.stderr)


# --- encoders ---


def _sample(corpus: Path, sample_mib: int) -> list[bytes]:
    """The very text that `_train` trains on."""
    documents = ((d.language, d.content) for d in read_documents(corpus, "train"))
    sizes = read_corpus_manifest(corpus).counts["bytes"]["train"]
    balance, seed = TokenizerConfig().language_exponent, TokenizerConfig().seed
    return list(
        chain.from_iterable(draw_sample(documents, sample_mib * MIB, balance, seed, sizes).training.values())
    )


def _pieces_of(tokenizer: Tokenizer) -> Encode:
    def encode(content: bytes) -> list[str]:
        return [tokenizer.decode([id_]).decode(errors="replace") for id_ in tokenizer.encode(content)]

    return encode


def _byte_level(sample: Iterable[bytes], size: int) -> Encode:
    """Byte-level BPE as StarCoder's: digits one by one, then GPT-2's pattern."""
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import decoders, models, pre_tokenizers, trainers

    trained = HuggingFaceTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator((text.decode() for text in sample), trainer)

    def encode(content: bytes) -> list[str]:
        return [trained.decode([id_]) for id_ in trained.encode(content.decode(errors="replace")).ids]

    return encode


def _otherwise(sample: Iterable[bytes], size: int, **changes: Any) -> Encode:
    """The recipe without the text of directives, and with other options of SentencePiece."""
    import sentencepiece

    options = trainer_options(TokenizerConfig(vocab_size=size), LANGUAGES) | changes
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample), model_writer=model, minloglevel=2, **options
    )
    return _pieces_of(SentencePieceTokenizer(model.getvalue(), ""))


# --- what is measured of each encoder ---


def _bytes_per_token(case: str, variant: str, encode: Encode, texts: list[tuple[str, bytes]]) -> list[Row]:
    """By language, over all, and over the lines that are directives."""
    size: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for language, content in texts:
        directives = b"".join(DIRECTIVE.findall(content))
        for name, text in ((language, content), ("all", content), ("directives", directives)):
            size[name] += len(text)
            tokens[name] += len(encode(text)) if name != "all" else 0
        tokens["all"] = sum(tokens[name] for name in tokens if name not in ("all", "directives"))
    return [row(case, variant, name, [size[name] / tokens[name]]) for name in sorted(size) if tokens[name]]


def _cuts(encoders: Mapping[str, Encode]) -> list[Row]:
    """How each line is cut after the end of another: a space is shown as `·`, a border as `¦`."""
    rows = []
    for line, (variant, encode) in product(LINES, encoders.items()):
        pieces = encode(b"\n" + line.removesuffix(b"\n"))
        shown = "¦".join(pieces).replace(" ", "·").replace("\t", "\\t").replace("\n", "\\n")
        rows.append(
            row(f"`{line.decode().splitlines()[0].strip()}`", variant, f"tokens `{shown}`", [len(pieces)])
        )
    return rows


if __name__ == "__main__":
    train_main(json.loads(sys.argv[1]))
