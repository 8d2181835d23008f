"""Commands about trained models: evaluate, generate, export."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hpctrain.errors import ConfigError, DataError

Model = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]


class Suite(str, Enum):
    """What `evaluate` measures."""

    bits_per_byte = "bits-per-byte"


class Format(str, Enum):
    """What `export` writes."""

    hf = "hf"


def evaluate(
    model: Model,
    suite: Annotated[Suite, typer.Option(help="What to measure.")] = Suite.bits_per_byte,
    shards: Annotated[Path | None, typer.Option(help="Other shards than the run's.")] = None,
    sequences: Annotated[int, typer.Option(help="Held-out sequences a language, at most.", min=1)] = 64,
    out: Annotated[Path | None, typer.Option(help="Directory for the result as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained model on held-out files."""
    from hpctrain.cli.tables import show
    from hpctrain.evaluate.bits_per_byte import bits_per_byte
    from hpctrain.manifest import disk_errors, write_atomically
    from hpctrain.train.trained import load_trained

    rows = bits_per_byte(load_trained(model), shards, sequences)
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / f"{suite.value}.json", json.dumps(rows, indent=1) + "\n")
    show(rows, f"Held-out files, {model}", as_json)


def generate(
    model: Model,
    prompt_file: Annotated[Path, typer.Option(help="File to continue; its name tells the language.")],
    language: Annotated[str | None, typer.Option(help="Language, where the name does not tell it.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate, at most.", min=1)] = 128,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draws, where the temperature is not 0.")] = 0,
) -> None:
    """Continue a file; the new text goes to stdout."""
    import sys

    from hpctrain.corpus.languages import find_language
    from hpctrain.train.generate import generate as continue_prompt
    from hpctrain.train.trained import load_trained

    try:
        content = prompt_file.read_bytes()
    except OSError as reason:
        raise DataError(f"{prompt_file}: {reason.strerror}") from None
    trained = load_trained(model)
    named = language or find_language(prompt_file.name, content)
    if named is None or named not in trained.tokenizer.languages:
        raise ConfigError(f"--language: {named}; valid: {', '.join(sorted(trained.tokenizer.languages))}")
    prompt = trained.tokenizer.encode_document(named, prompt_file.name, content)[:-1].tolist()
    ids = continue_prompt(
        trained.model, prompt, max_tokens, trained.config.data.sequence_length,
        trained.tokenizer.special.end, temperature, seed,
    )  # fmt: skip
    sys.stdout.buffer.write(trained.tokenizer.decode(ids) + b"\n")


def export(
    run: Model,
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    format: Annotated[Format, typer.Option(help="hf: a Hugging Face LlamaForCausalLM.")] = Format.hf,
) -> None:
    """Write the newest whole checkpoint for downstream tools; proven by reloading before it is published."""
    from hpctrain.export.hf import export_huggingface

    export_huggingface(run, out)
    print(out)
