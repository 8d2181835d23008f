"""Commands about trained models: evaluate, generate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hpctrain.tasks.result import Result

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Run, import, export, URL of an endpoint, or a yardstick.")
]
Temperature = Annotated[float, typer.Option(help="0: always the likeliest token.", min=0)]
TopP = Annotated[
    float, typer.Option(help="Draw from the likeliest tokens of this probability.", min=0, max=1)
]
Seed = Annotated[int, typer.Option(help="Of the draws, where the temperature is not 0.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def evaluate(
    model: Model,
    suite: Annotated[
        list[str] | None, typer.Option(help="What to measure; may be given several times.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML as in configs/evaluate; options go before it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for SUITE.json.")] = None,
    problems: Annotated[Path | None, typer.Option(help="Problems, where the suite takes some.")] = None,
    shards: Annotated[Path | None, typer.Option(help="Held-out text, instead of the run's own.")] = None,
    samples: Annotated[int | None, typer.Option(help="Answers to each problem; 1 if not given.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0, if not given: always the likeliest token.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens of this probability.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of an answer; 512 if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    limit: Annotated[int | None, typer.Option(help="Problems, or sequences a language, at most.")] = None,
    counts: Annotated[str | None, typer.Option(help="Threads or ranks to run with, such as 1,2,4.")] = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Run generated code without a sandbox.")] = False,
    no_floors: Annotated[bool, typer.Option("--no-floors", help="Leave the yardsticks out.")] = False,
    device: Device = "auto",
    served_model: Annotated[str, typer.Option(help="Endpoint: name of its model.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Endpoint: ask by chat messages.")] = False,
    key_from: Annotated[str, typer.Option(help="Endpoint: environment variable that holds its key.")] = "",
    timeout: Annotated[float, typer.Option(help="Endpoint: seconds for a request.", min=1)] = 120.0,
    html: Annotated[Path | None, typer.Option(help="Write a page with all answers, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model by suites, beside the yardsticks of each."""
    from hpctrain.cli.tables import show
    from hpctrain.evaluate.config import read_evaluation
    from hpctrain.evaluate.evaluate import evaluate as run
    from hpctrain.evaluate.evaluate import result_directories, save_results, table
    from hpctrain.evaluate.models import ModelOptions
    from hpctrain.report.evaluation_page import write_evaluation_page

    given = {
        "suites": suite or None, "problems": problems, "shards": shards, "samples": samples,
        "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed, "limit": limit,
        "counts": counts.split(",") if counts else None, "floors": False if no_floors else None,
    }  # fmt: skip
    asked = read_evaluation(config, {name: value for name, value in given.items() if value is not None})
    reached = ModelOptions(
        device, served_model=served_model, chat=chat, key_variable=key_from, timeout_seconds=timeout
    )
    done = {}
    for results in run(model, asked.suites, asked.options(unsafe), reached, asked.floors):
        done[results[0].suite] = results
        if not as_json:
            show(table(results), f"{results[0].suite}, {model}", as_json=False)
        save_results(results, result_directories(model, out))
        if html is not None:  # after each suite: what is done is not lost with the next
            write_evaluation_page(list(done.values()), html)
    _conclude(model, asked.suites, done, as_json)


def _conclude(model: str, suites: Sequence[str], done: Mapping[str, list[Result]], as_json: bool) -> None:
    """Print what can be said when all suites are done."""
    from hpctrain.cli.tables import show
    from hpctrain.evaluate.ladder import LADDER, ladder_rows

    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in chain(*done.values())], indent=1))
    elif LADDER in suites:
        show(ladder_rows(done), f"the ladder, {model}", as_json=False)


def generate(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="Run or import.")],
    prompt_file: Annotated[
        Path | None, typer.Option(help="File to continue; its name tells the language.")
    ] = None,
    suffix_file: Annotated[
        Path | None, typer.Option(help="What comes after the gap that is to be filled.")
    ] = None,
    request: Annotated[str | None, typer.Option(help="What is asked for, in words.")] = None,
    language: Annotated[str | None, typer.Option(help="Language, where the name does not tell it.")] = None,
    stop: Annotated[str, typer.Option(help="Where to end: end (mark), line, function or file.")] = "end",
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate, at most.", min=1)] = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    samples: Annotated[int, typer.Option(help="Answers; several need a temperature.", min=1)] = 1,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Continue a file, fill a gap in it, or answer a request; the new text goes to stdout."""
    import sys

    from hpctrain.generation.prompts import read_prompt
    from hpctrain.generation.text import text_generator
    from hpctrain.progress import say
    from hpctrain.train.trained import load_trained

    trained = load_trained(model)
    prompt = read_prompt(trained, prompt_file, suffix_file, request, language, stop)
    generator = text_generator(trained, device)
    [answers] = generator.complete(
        [prompt], max_tokens=max_tokens, samples=samples, temperature=temperature, top_p=top_p, seed=seed
    )
    if as_json:
        print(json.dumps({
            "answers": [
                {"text": each.text.decode("utf-8", "replace"), "tokens": each.tokens, "is_cut": each.is_cut}
                for each in answers
            ],
            "tokens_per_second": generator.tokens_per_second,
        }, indent=1))  # fmt: skip
        return
    for answer in answers:
        sys.stdout.buffer.write(answer.text + b"\n")
    say(f"{generator.tokens} tokens, {generator.tokens_per_second or 0:,.1f} tokens/s on {generator.device}")
