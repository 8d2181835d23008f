"""The command that writes models for downstream tools."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hpctrain.errors import ConfigError


class Format(str, Enum):
    """What `export` writes."""

    hf = "hf"
    gguf = "gguf"
    peft = "peft"


class DType(str, Enum):
    """The numbers it writes."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    q8_0 = "q8_0"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, or an imported model's.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    format: Annotated[
        Format,
        typer.Option(help="hf: a Hugging Face directory. gguf: for llama.cpp. peft: a LoRA run's adapters."),
    ] = Format.hf,
    dtype: Annotated[
        DType | None,
        typer.Option(help="Type of the weights; by default fp32, for gguf fp16. q8_0 is gguf's."),
    ] = None,
    shard_gb: Annotated[
        float | None,
        typer.Option(help="hf: GB of a file of weights, at most; bounds the memory. By default 5.", min=1e-6),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="peft: the base's Hugging Face directory, where the run cannot tell it."),
    ] = None,
) -> None:
    """Write the newest whole checkpoint for downstream tools; proven by reloading before it is published.

    A LoRA run's adapters are merged into its base, but for `--format peft`.
    """
    chosen = dtype or (DType.fp16 if format is Format.gguf else DType.fp32)
    if base is not None and format is not Format.peft:
        raise ConfigError(f"--base: only --format peft names a base, not {format.value}")
    if shard_gb is not None and format is not Format.hf:
        raise ConfigError(f"--shard-gb: only --format hf writes several files, not {format.value}")
    if format is Format.hf:
        from hpctrain.export.hf import SHARD_BYTES, export_huggingface

        export_huggingface(run, out, chosen.value, round(shard_gb * 1e9) if shard_gb else SHARD_BYTES)
    elif format is Format.gguf:
        from hpctrain.export.gguf_file import export_gguf

        export_gguf(run, out, chosen.value)
    else:
        from hpctrain.export.adapters import export_adapters

        export_adapters(run, out, chosen.value, base)
    print(out)
