"""The command `generate`: files, gaps and requests, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runner import Runner

from hpctrain.errors import ConfigError, DataError
from hpctrain.generation.prompts import read_prompt
from hpctrain.generation.text import TextPrompt, choose_device, prompt_ids, text_generator
from hpctrain.tasks.template import render_request
from hpctrain.train.trained import Trained, load_trained


@pytest.fixture(scope="module")
def trained(finished: Runner) -> Trained:
    return load_trained(finished.directory / "run")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "axpy.f90"
    path.write_text("subroutine axpy(n)\n  integer :: n\n")
    return path


def test_it_continues_a_file(finished: Runner, source: Path) -> None:
    run = finished.directory / "run"
    arguments = [run, "--prompt-file", source, "--max-tokens", 8]
    done = finished.run("generate", *arguments)
    assert "8 tokens, " in done.stderr
    assert "tokens/s on cpu" in done.stderr
    told = json.loads(
        finished.run(
            "generate", *arguments, "--json", "--samples", 3, "--temperature", 1, "--top-p", 0.9
        ).stdout
    )
    assert [each["tokens"] for each in told["answers"]] == [8, 8, 8]
    assert len({each["text"] for each in told["answers"]}) > 1
    assert told["tokens_per_second"] > 0


def test_a_gap_is_marked_as_in_training(trained: Trained, source: Path, tmp_path: Path) -> None:
    suffix = tmp_path / "suffix"
    suffix.write_text("end subroutine\n")
    prompt = read_prompt(trained, source, suffix, None, None, "line")
    assert prompt == TextPrompt(source.read_bytes(), "fortran-free", "axpy.f90", suffix.read_bytes(), "line")
    ids, special = prompt_ids(trained.tokenizer, prompt), trained.tokenizer.special
    marks = [special.fim_prefix, special.fim_suffix, special.fim_middle]
    assert [id_ for id_ in ids if id_ in marks] == marks
    assert ids[-1] == special.fim_middle
    assert ids[0] == special.document


def test_a_request_has_the_form_of_the_runs_data(trained: Trained) -> None:
    prompt = read_prompt(trained, None, None, "Sum an array with OpenMP.", "c", "end")
    template = trained.config.data.template or "plain"
    assert prompt.text.decode() == render_request("Sum an array with OpenMP.", template)
    chat = trained.config.model_copy(
        update={"data": trained.config.data.model_copy(update={"template": "chat"})}
    )
    told = read_prompt(
        Trained(trained.run, chat, trained.tokenizer, trained.model, trained.checkpoint),
        None, None, "Sum an array.", "c", "end",
    )  # fmt: skip
    assert told.text.decode() == render_request("Sum an array.", "chat") != "Sum an array."


def test_answers_end_where_they_are_asked_to(trained: Trained) -> None:
    generator = text_generator(trained, "cpu")
    prompt = TextPrompt(b"#include <stdio.h>\n", "c", "a.c", stop="line")
    [answers] = generator.complete([prompt], max_tokens=30, samples=8, temperature=1.0)
    ended = [answer for answer in answers if not answer.is_cut]
    assert ended
    for answer in ended:
        assert answer.text.count(b"\n") <= 1
        assert answer.text.endswith(b"\n") or b"\n" not in answer.text


def test_what_does_not_fit_together_is_said_at_once(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        read_prompt(trained, None, tmp_path / "x", None, "c", "paragraph")
    assert [each.split(":")[0] for each in told.value.problems] == [
        "--prompt-file, --request", "--suffix-file", "--stop"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--prompt-file, --request: give one"):
        read_prompt(trained, tmp_path / "a.c", None, "request", None, "end")
    with pytest.raises(ConfigError, match=r"--language: the name does not tell it; valid: .*fortran-free"):
        read_prompt(trained, None, None, "request", None, "end")
    with pytest.raises(ConfigError, match="--language: cobol is none of this tokenizer's"):
        read_prompt(trained, None, None, "request", "cobol", "end")
    with pytest.raises(DataError, match=r"missing.c: No such file"):
        read_prompt(trained, tmp_path / "missing.c", None, None, None, "end")
    with pytest.raises(ConfigError, match="--device: tpu; valid"):
        choose_device("tpu")


def test_a_prompt_longer_than_the_context_is_an_error(trained: Trained, source: Path) -> None:
    source.write_text("subroutine axpy(n)\n" + "  integer :: n\n" * 60)
    prompt = read_prompt(trained, source, None, None, None, "end")
    with pytest.raises(DataError, match=r"axpy.f90: the prompt has \d+ tokens.* context of 64"):
        text_generator(trained, "cpu").complete([prompt], max_tokens=5)


@pytest.mark.ranks
def test_a_run_trained_in_pipeline_stages_generates_alike(runner: Runner) -> None:
    config = runner.config(parallel={"pipeline_stages": 2}, train={"steps": 2})
    runner.train(config)
    staged = load_trained(runner.directory / "run")
    prompt = TextPrompt(b"int main(void) {\n", "c", "a.c")
    [[answer]] = text_generator(staged, "cpu").complete([prompt], max_tokens=10)
    ids = prompt_ids(staged.tokenizer, prompt)
    for _ in range(answer.tokens):
        with torch.no_grad():
            logits = staged.model(torch.tensor([ids]), torch.tensor([0, len(ids)], dtype=torch.int32))
        ids.append(int(logits[0, -1].argmax()))
    assert answer.text == staged.tokenizer.decode(ids[-answer.tokens :])
    assert answer.tokens > 0
