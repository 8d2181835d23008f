"""Commands that make training data: corpus, tokenizer, shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpctrain.errors import DataError

corpus = typer.Typer(help="Source trees to documents.", no_args_is_help=True)
tokenizer = typer.Typer(help="Documents to tokens and back.", no_args_is_help=True)
shards = typer.Typer(help="Token shards in HDF5.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[section.key=value ...]")]
Out = Annotated[Path, typer.Option(help="Directory to write.")]
Corpus = Annotated[Path, typer.Option(help="Corpus directory.")]
Tokenizer = Annotated[Path, typer.Option(help="Tokenizer directory.")]
Stage = Annotated[Path, typer.Argument(metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@corpus.command("build")
def corpus_build(config: ConfigFile, out: Out, overrides: Overrides = None) -> None:
    """Read source trees and keep what is worth training on, with a ledger of what was dropped and why."""
    from hpctrain.cli.tables import show
    from hpctrain.config import load_config
    from hpctrain.corpus.build import CorpusConfig, build_corpus

    manifest = build_corpus(load_config(config, overrides or [], CorpusConfig), out)
    rows = [
        {"split": split, "language": language, "documents": count}
        | {"bytes": manifest.counts["bytes"][split][language]}
        for split, languages in manifest.counts["documents"].items()
        for language, count in languages.items()
    ]
    show(rows, f"Corpus {out} (what was dropped and why: hpctrain corpus show)", as_json=False)


@corpus.command("show")
def corpus_show(directory: Stage, as_json: AsJson = False) -> None:
    """Counts by language, licence, source and drop reason."""
    from dataclasses import asdict

    from hpctrain.cli.tables import show
    from hpctrain.corpus.show import describe

    show([asdict(row) for row in describe(directory)], f"Corpus {directory}", as_json)


@corpus.command("verify")
def corpus_verify(directory: Stage) -> None:
    """Compare files and documents with their checksums; exit code 3 if any differs."""
    from hpctrain.corpus.show import verify

    print(f"{directory}: {verify(directory):,} documents agree with their checksums")


@tokenizer.command("train")
def tokenizer_train(config: ConfigFile, corpus: Corpus, out: Out, overrides: Overrides = None) -> None:
    """Train a SentencePiece tokenizer on a balanced sample of a corpus."""
    from hpctrain.config import load_config
    from hpctrain.corpus.document import LANGUAGES, read_corpus_manifest, read_documents
    from hpctrain.tokenizer.describe import describe
    from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

    record = load_config(config, overrides or [], TokenizerConfig)
    inputs = {"corpus": read_corpus_manifest(corpus).fingerprint}
    documents = ((document.language, document.content) for document in read_documents(corpus, "train"))
    train_tokenizer(record, documents, LANGUAGES, inputs, out)
    print(describe(out))


@tokenizer.command("show")
def tokenizer_show(
    directory: Stage, text: Annotated[Path | None, typer.Option(help="Show the pieces of a file.")] = None
) -> None:
    """Bytes per token by language; with --text the pieces of a file."""
    from hpctrain.tokenizer.codec import Tokenizer as Codec
    from hpctrain.tokenizer.describe import describe, describe_text

    if text is None:
        print(describe(directory))
    else:
        try:
            content = text.read_bytes()
        except OSError as reason:
            raise DataError(f"{text}: {reason.strerror}") from None
        print(describe_text(Codec.load(directory), content))


@shards.command("build")
def shards_build(corpus: Corpus, tokenizer: Tokenizer, out: Out) -> None:
    """Encode a corpus into token shards, by split and language."""
    from hpctrain.cli.tables import show
    from hpctrain.shards.pack import build_shards

    manifest = build_shards(corpus, tokenizer, out)
    show(_count_rows(manifest.counts), f"Shards {out}", as_json=False)


@shards.command("show")
def shards_show(directory: Stage, as_json: AsJson = False) -> None:
    """Documents, bytes and tokens by split and language."""
    from hpctrain.cli.tables import show
    from hpctrain.shards.reader import read_shards_manifest

    show(_count_rows(read_shards_manifest(directory).counts), f"Shards {directory}", as_json)


@shards.command("verify")
def shards_verify(directory: Stage) -> None:
    """Compare every file with its checksum; exit code 3 if one differs."""
    from hpctrain.shards.reader import verify_shards

    _report_damage(directory, verify_shards(directory))


def _count_rows(counts: dict[str, dict[str, dict[str, int]]]) -> list[dict[str, str | int]]:
    return [
        {"split": split, "language": language}
        | {what: counts[what][split][language] for what in ("documents", "bytes", "tokens")}
        for split, languages in counts["tokens"].items()
        for language in languages
    ]


def _report_damage(directory: Path, damage: list[str]) -> None:
    if damage:
        raise DataError("\n".join([f"{directory}: damaged", *damage]))
    print(f"{directory}: every file agrees with its checksum")
