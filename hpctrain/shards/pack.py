"""A corpus and a tokenizer to token shards, by any number of ranks.

Ranks encode whole documents files, then rank 0 plans the shards from the numbers of tokens, then ranks write
whole shards. What is finished is kept beside the shards until they are published, so an interrupted build
goes on. Nothing that is written depends on the number of ranks or on who did what.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from hpctrain.config import fingerprint
from hpctrain.corpus.document import documents_files, read_corpus_manifest
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import (
    MANIFEST_NAME,
    Manifest,
    StageWriter,
    disk_errors,
    find_damage,
    find_finished,
    read_manifest,
)
from hpctrain.parallel.crew import ALONE, Crew, write_stage_together
from hpctrain.progress import Progress, progress, say
from hpctrain.shards.encode import Order, encode_unit, write_unit
from hpctrain.shards.layout import DEFAULT_SHARD_BYTES, SHARDS_FORMAT, SHARDS_KIND, TOKENIZER_DIRECTORY
from hpctrain.shards.plan import Plan, assemble_shard, plan_shards
from hpctrain.shards.work import Workplace
from hpctrain.tokenizer.codec import TOKENIZER_FORMAT, TOKENIZER_KIND, Tokenizer, special_ids


@dataclass(frozen=True)
class BuildOptions:
    """How shards are made."""

    shard_bytes: int = DEFAULT_SHARD_BYTES
    """A shard ends before the document whose tokens would take it over so many bytes."""
    spans: bool = True
    """Whether to look for loop nests, directives, kernels and bodies of functions, for fill in the middle."""
    order: Order = "path"
    """`repository`: files of a repository follow each other as one text, headers and modules before users."""


def build_shards(
    corpus: Path,
    tokenizer: Path,
    out: Path,
    options: BuildOptions = BuildOptions(),
    threads: int | None = None,
    crew: Crew = ALONE,
) -> Manifest:
    """Encode a corpus and publish the shards stage `out`; returns its manifest. A collective call.

    `corpus` and `tokenizer` are finished stages. Each rank encodes on `threads` threads, by default one, or
    alone every core this process may use. It holds the tokens of one documents file (64 MiB of text) and a
    few MiB of documents a thread in memory, or the tables of one shard. Equal inputs give equal files. If
    `out` already holds these shards, it is left as it is. Raises DataError if an input is missing, damaged or
    empty, or `out` holds other shards; ConfigError if `shard_bytes` is too small.
    """
    if options.shard_bytes < 4096:
        raise ConfigError(f"--shard-bytes: {options.shard_bytes} is less than 4096")
    return _Build(corpus, tokenizer, out, options, threads, crew).run()


class _Build:
    """One build; the methods stand in the order of its steps."""

    def __init__(
        self, corpus: Path, tokenizer: Path, out: Path, options: BuildOptions, threads: int | None, crew: Crew
    ) -> None:
        self.corpus, self.tokenizer, self.out = corpus, tokenizer, out
        self.options, self.crew = options, crew
        self.threads = threads or (len(os.sched_getaffinity(0)) if crew.size == 1 else 1)
        self.work = Workplace(out.parent / f".{out.name}.work")

    def run(self) -> Manifest:
        """All steps."""
        with self.crew.together():
            self.source, self.codec = read_corpus_manifest(self.corpus), Tokenizer.load(self.tokenizer)
        self.inputs = {"corpus": self.source.fingerprint, "tokenizer": self.codec.fingerprint}
        if finished := self.crew.once(self._find_finished):
            self.crew.once(self.work.remove)
            return finished
        self.names = documents_files(self.source)
        self.units = [self.work.path(f"{name}.npz") for name in self.names]
        self.crew.once(self._open)
        self._encode()
        plan = self.crew.once(self._plan)
        self._assemble(plan)
        with write_stage_together(self.crew, self.out, SHARDS_KIND, SHARDS_FORMAT) as stage:
            self._publish(plan, stage)
        self.crew.once(self.work.remove)
        return self.crew.once(lambda: read_manifest(self.out, SHARDS_KIND, SHARDS_FORMAT))

    def _find_finished(self) -> Manifest | None:
        finished = find_finished(self.out, SHARDS_KIND, SHARDS_FORMAT, self.inputs)
        if finished is None:
            return None
        if finished.format_version == 1:
            say(f"{self.out}: up to date, but of format 1, without sources and spans; remove it to have them")
            return finished
        made = {name: finished.details.get(name, default) for name, default in asdict(BuildOptions()).items()}
        if made != asdict(self.options):
            told = ", ".join(f"{name} {value}" for name, value in made.items())
            raise DataError(
                f"{self.out}: holds these shards made with {told}; remove it or choose another directory"
            )
        say(f"{self.out}: up to date")
        return finished

    def _open(self) -> None:
        """Refuse what cannot be built, and take up what an interrupted build has left."""
        if not sum(sum(sizes.values()) for sizes in self.source.counts["bytes"].values()):
            raise DataError(
                f"{self.corpus}: this corpus has no documents; see its ledger for why they were dropped"
            )
        with disk_errors(self.work.directory):
            self.work.open(fingerprint({**self.inputs, **asdict(self.options), "format": SHARDS_FORMAT}))

    def _encode(self) -> None:
        """Encode every documents file that is not encoded yet."""
        total = sum(self.source.files[name].bytes for name in self.names)
        start = time.monotonic()

        def report(amount: float, status: str) -> None:
            del status
            bar.advance(amount, f"{bar.done / (time.monotonic() - start):.1f} MB/s")

        with (
            self._progress("encode", total / 1e6, "MB") as bar,
            self.crew.deal(self.names, report) as deal,
            disk_errors(self.work.directory),
        ):
            for name in deal:
                rest = self.source.files[name].bytes
                if not self.work.finished(f"{name}.npz"):
                    rest -= self._encode_file(name, lambda size: deal.advance(size / 1e6))
                deal.advance(rest / 1e6)

    def _encode_file(self, name: str, on_bytes: Callable[[int], None]) -> int:
        """Encode a documents file; returns the bytes of its documents."""
        if damage := find_damage(self.corpus, self.source, [name]):
            raise DataError(f"{damage[0]}; build the corpus again or restore the file")
        parts = encode_unit(
            self.corpus / name, self.codec, self.options.order, self.options.spans, self.threads, on_bytes
        )
        with self.work.write(f"{name}.npz") as path:
            write_unit(path, parts)
        return sum(size for _, size in parts.values())

    def _plan(self) -> Plan:
        shard_tokens = self.options.shard_bytes // self.codec.dtype.itemsize
        with self._progress("plan", len(self.units), "files") as bar:
            return plan_shards(self.units, shard_tokens, bar.advance)

    def _assemble(self, plan: Plan) -> None:
        """Write every shard that is not written yet."""
        total = sum(shard.tokens for shard in plan.shards) / 1e6
        with (
            self._progress("shards", total, "million tokens") as bar,
            self.crew.deal(plan.shards, lambda amount, status: bar.advance(amount)) as deal,
            disk_errors(self.work.directory),
        ):
            for shard in deal:
                if not self.work.finished(shard.name):
                    with self.work.write(shard.name) as path:
                        assemble_shard(
                            path, shard, self.units, plan.bases, self.codec.dtype, self.options.spans
                        )
                deal.advance(shard.tokens / 1e6)

    def _publish(self, plan: Plan, stage: StageWriter) -> None:
        """Move the shards to the stage and lay the tokenizer beside them, a finished stage of its own."""
        with self.crew.together(), disk_errors(stage.directory):
            for shard in plan.shards[self.crew.rank :: self.crew.size]:
                stage.files[shard.name] = self.work.take(shard.name, stage.path(shard.name))
            if self.crew.rank == 0:
                manifest = read_manifest(self.tokenizer, TOKENIZER_KIND, TOKENIZER_FORMAT)
                for name in [*manifest.files, MANIFEST_NAME]:
                    shutil.copyfile(self.tokenizer / name, stage.path(f"{TOKENIZER_DIRECTORY}/{name}"))
        stage.inputs = self.inputs
        stage.counts = {**plan.counts, "licences": self.source.counts.get("licences", {})}
        stage.details = {
            "vocab_size": self.codec.vocab_size,
            "special": special_ids(self.codec),
            "languages": self.codec.languages,
            "dtype": self.codec.dtype.name,
            **asdict(self.options),
        }

    def _progress(self, label: str, total: float, unit: str) -> AbstractContextManager[Progress]:
        return progress(label, total, unit, visible=self.crew.rank == 0)
