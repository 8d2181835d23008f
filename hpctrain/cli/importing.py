"""Commands that bring models in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

importing = typer.Typer(
    help="Public base models, for continued training and fine-tuning.", no_args_is_help=True
)


@importing.command("hf")
def import_hf(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a Hugging Face model.")],
    out: Annotated[Path, typer.Option(help="Directory to write; it is used like a run.")],
    context: Annotated[
        int | None, typer.Option(help="Tokens of context; by default those of the model.", min=2)
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="A setting of config.json that is not known here and changes nothing."
        ),
    ] = None,
) -> None:
    """Import a Llama or Qwen2 with its tokenizer; its logits are compared before it is published."""
    from hpctrain.corpus.document import LANGUAGES
    from hpctrain.importing.huggingface import import_huggingface
    from hpctrain.parallel.process import choose_accelerator

    choose_accelerator()
    import_huggingface(source, out, LANGUAGES, context, accept or [])
    print(out)
