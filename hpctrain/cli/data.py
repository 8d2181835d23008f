"""Commands that make training data: corpus and tokenizer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hpctrain.errors import DataError

corpus = typer.Typer(help="Source trees to documents.", no_args_is_help=True)
tokenizer = typer.Typer(help="Documents to tokens and back.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[section.key=value ...]")]
Out = Annotated[Path, typer.Option(help="Directory to write.")]
Corpus = Annotated[Path, typer.Option(help="Corpus directory.")]
Tokenizer = Annotated[Path, typer.Option(help="Tokenizer directory.")]
Stage = Annotated[Path, typer.Argument(metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@corpus.command("build")
def corpus_build(
    config: ConfigFile,
    out: Out,
    overrides: Overrides = None,
    units: Annotated[
        Path | None, typer.Option(help="Directory of examined units, to be used by several builds in turn.")
    ] = None,
) -> None:
    """Read source trees and keep what is worth training on, with a ledger of what was dropped and why.

    Under mpiexec or srun the ranks share the work. An interrupted build goes on; a build of changed sources
    examines only what changed.
    """
    from hpctrain.cli.tables import show
    from hpctrain.config import load_config
    from hpctrain.corpus.build import CorpusConfig, build_corpus
    from hpctrain.parallel.crew import join_crew

    with join_crew(os.environ) as crew:
        record = crew.once(lambda: load_config(config, overrides or [], CorpusConfig))
        manifest = build_corpus(record, out, units, crew)
    if crew.rank:
        return
    rows = [
        {"split": split, "language": language, "documents": count}
        | {"bytes": manifest.counts["bytes"][split][language]}
        for split, languages in manifest.counts["documents"].items()
        for language, count in languages.items()
    ]
    show(rows, f"Corpus {out} (what was dropped and why: hpctrain corpus show)", as_json=False)


@corpus.command("why")
def corpus_why(
    directory: Stage,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path in a source, or the end of one.")],
    as_json: AsJson = False,
) -> None:
    """What became of a file, and why."""
    import json

    from hpctrain.corpus.verdicts import explain, why

    verdicts = why(directory, path)
    print(json.dumps(verdicts, indent=1) if as_json else "\n".join(map(explain, verdicts)))


@corpus.command("show")
def corpus_show(
    directory: Stage,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write one self-contained HTML page, with pictures and samples.")
    ] = None,
    shards: Annotated[
        Path | None, typer.Option(help="Shards made of this corpus, whose tokens the page counts too.")
    ] = None,
) -> None:
    """Counts by language, programming model, licence, source and drop reason."""
    from dataclasses import asdict

    from hpctrain.cli.tables import show
    from hpctrain.corpus.show import describe

    if html is not None:
        from hpctrain.report.ledger_page import write_ledger_page

        write_ledger_page(directory, html, shards)
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
    manifest = read_corpus_manifest(corpus)
    documents = ((document.language, document.content) for document in read_documents(corpus, "train"))
    sizes = manifest.counts["bytes"].get("train", {})
    train_tokenizer(record, documents, LANGUAGES, {"corpus": manifest.fingerprint}, out, sizes)
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
