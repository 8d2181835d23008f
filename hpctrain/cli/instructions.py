"""Commands for instruction data."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hpctrain.cli.data import Out, Stage, Tokenizer

instructions = typer.Typer(help="Requests and responses to token shards.", no_args_is_help=True)


class TemplateName(str, Enum):
    """How requests stand in the text."""

    chat = "chat"
    plain = "plain"


class TooLong(str, Enum):
    """What becomes of examples that are longer than the context."""

    error = "error"
    drop = "drop"


@instructions.command("build")
def instructions_build(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="JSON lines with prompt and response, or messages."),
    ],
    tokenizer: Tokenizer,
    out: Out,
    template: Annotated[
        TemplateName, typer.Option(help="chat: roles in headings. plain: the prompt as it is.")
    ] = TemplateName.chat,
    language: Annotated[
        str | None, typer.Option(help="Language of lines that have none and whose path tells none.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=2, help="Longest example in tokens, as data.sequence_length.")
    ] = None,
    too_long: Annotated[TooLong, typer.Option(help="What becomes of longer ones.")] = TooLong.error,
    validation: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share held out, of files that say nothing of splits.")
    ] = 0.05,
) -> None:
    """Encode requests and responses into token shards; only the responses are learnt from them.

    A file called train, validation or test is of that split. All broken lines are named.
    """
    from hpctrain.cli.shards import count_rows
    from hpctrain.cli.tables import show
    from hpctrain.tasks.examples import ExampleOptions
    from hpctrain.tasks.instructions import InstructionOptions, build_instructions

    how = ExampleOptions(template.value, language, validation)
    options = InstructionOptions(how, context, too_long.value)
    manifest = build_instructions(files, tokenizer, out, options)
    show(count_rows(manifest.counts), f"Examples {out}", as_json=False)


@instructions.command("show")
def instructions_show(
    directory: Stage,
    example: Annotated[int, typer.Option(min=1, help="Which example, in the order of the shards.")] = 1,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
) -> None:
    """One example as the model reads it: what is asked, and the response that is learnt."""
    from hpctrain.tasks.instructions import read_example

    found = read_example(directory, split, example)
    print(f"--- asked ({found.language}, {found.tokens} tokens in all)\n{found.asked}")
    print(f"--- learnt ({found.learnt} tokens)\n{found.response}")
