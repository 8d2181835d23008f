"""Commands for token shards."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from hpctrain.cli.data import AsJson, Corpus, Out, Stage, Tokenizer
from hpctrain.errors import DataError

shards = typer.Typer(help="Token shards in HDF5.", no_args_is_help=True)


class Order(str, Enum):
    """In which order documents are laid."""

    path = "path"
    repository = "repository"


@shards.command("build")
def shards_build(
    corpus: Corpus,
    tokenizer: Tokenizer,
    out: Out,
    shard_bytes: Annotated[int, typer.Option(help="Size of a shard's tokens, at most.")] = 256 << 20,
    spans: Annotated[
        bool, typer.Option(help="Look for loop nests, directives, kernels, functions: for data.fim.spans.")
    ] = True,
    order: Annotated[
        Order, typer.Option(help="repository: a repository's files as one text, headers before their users.")
    ] = Order.path,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each rank; by default one, alone all cores.")
    ] = None,
) -> None:
    """Encode a corpus into token shards, by split and language.

    Under mpiexec or srun the ranks share the work; the files are the same for any number of them. An
    interrupted build goes on.
    """
    from hpctrain.cli.tables import show
    from hpctrain.parallel.crew import join_crew
    from hpctrain.shards.pack import BuildOptions, build_shards

    options = BuildOptions(shard_bytes, spans, order.value)
    with join_crew(os.environ) as crew:
        manifest = build_shards(corpus, tokenizer, out, options, threads, crew)
    if crew.rank == 0:
        show(count_rows(manifest.counts), f"Shards {out}", as_json=False)


@shards.command("show")
def shards_show(
    directory: Stage,
    as_json: AsJson = False,
    sources: Annotated[bool, typer.Option("--sources", help="Tokens by source instead.")] = False,
) -> None:
    """Documents, bytes and tokens by split and language, or tokens by source."""
    from hpctrain.cli.tables import show
    from hpctrain.shards.reader import read_shards_manifest

    manifest = read_shards_manifest(directory)
    if sources and "sources" not in manifest.counts:
        raise DataError(f"{directory}: of format 1, which knows no sources; build the shards again")
    rows = _source_rows(manifest.counts["sources"]) if sources else count_rows(manifest.counts)
    show(rows, f"Shards {directory}", as_json)


@shards.command("verify")
def shards_verify(directory: Stage) -> None:
    """Compare every file with its checksum; exit code 3 if one differs. Ranks share the files."""
    from hpctrain.parallel.crew import join_crew
    from hpctrain.shards.reader import verify_shards

    with join_crew(os.environ) as crew:
        damage = verify_shards(directory, crew)
    if damage:
        error = DataError("\n".join([f"{directory}: damaged", *damage]))
        error.everywhere = True
        raise error
    if crew.rank == 0:
        print(f"{directory}: every file agrees with its checksum")


@shards.command("archive")
def shards_archive(
    directory: Stage,
    out: Out,
    level: Annotated[int, typer.Option(help="Level of zstd, 1 to 19.")] = 9,
) -> None:
    """Write a compressed copy for storage and transfer: each file as FILE.zst. Ranks share the files."""
    from hpctrain.parallel.crew import join_crew
    from hpctrain.shards.archive import archive_shards

    with join_crew(os.environ) as crew:
        manifest = archive_shards(directory, out, level, crew)
    if crew.rank == 0:
        packed = sum(record.bytes for record in manifest.files.values())
        print(f"{out}: {packed / 1e6:,.1f} MB, {packed / manifest.counts['bytes']:.1%} of the shards")


@shards.command("restore")
def shards_restore(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Directory that `archive` wrote.")],
    out: Out,
) -> None:
    """Unpack an archive and compare every file with the checksum it had. Ranks share the files."""
    from hpctrain.parallel.crew import join_crew
    from hpctrain.shards.archive import restore_shards

    with join_crew(os.environ) as crew:
        manifest = restore_shards(archive, out, crew)
    if crew.rank == 0:
        print(f"{out}: {len(manifest.files)} files agree with the checksums they had")


@shards.command("packing")
def shards_packing(
    directory: Stage,
    sequence_length: Annotated[int, typer.Option(min=2, help="As data.sequence_length.")],
    as_json: AsJson = False,
) -> None:
    """What data.packing makes of the training split: cut against best_fit, whose plan is kept."""
    from dataclasses import asdict

    from hpctrain.cli.tables import show
    from hpctrain.loader.mixture import compare_packing

    rows = [asdict(row) for row in compare_packing(directory, sequence_length)]
    show(rows, f"Sequences of {sequence_length} tokens from {directory}", as_json)


@shards.command("trace")
def shards_trace(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    step: Annotated[int, typer.Option(help="Step of the run.")],
    moved: Annotated[Path | None, typer.Option("--shards", help="Where the run's shards are now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which files a step was trained on, proven by the digest that the run recorded."""
    from dataclasses import asdict

    from hpctrain.cli.tables import show
    from hpctrain.verify.trace import trace_step

    traced = trace_step(run, step, moved)
    if as_json:
        print(json.dumps(asdict(traced), indent=1))
        return
    rows = [
        {
            "sample": one.sample, "source": one.source, "path": one.path, "language": one.language,
            "bytes": f"{one.byte_start}-{one.byte_stop}", "lines": f"{one.first_line}-{one.last_line}",
            "tokens": one.tokens,
        }
        for one in traced.documents
    ]  # fmt: skip
    show(rows, f"Step {step} of {run}, which saw the batch {traced.digest}", as_json=False)


def count_rows(counts: dict[str, dict[str, dict[str, int]]]) -> list[dict[str, str | int]]:
    """Rows of a table of shards, by split and language."""
    return [
        {"split": split, "language": language}
        | {what: counts[what][split][language] for what in ("documents", "bytes", "tokens")}
        for split, languages in counts["tokens"].items()
        for language in languages
    ]


def _source_rows(counts: dict[str, Any]) -> list[dict[str, str | int]]:
    return [
        {"split": split, "language": language, "source": source, "tokens": tokens}
        for split, languages in counts.items()
        for language, sources in languages.items()
        for source, tokens in sources.items()
    ]
