"""What the user gives, as a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from hpctrain.corpus.languages import find_language
from hpctrain.errors import ConfigError, DataError
from hpctrain.generation.text import TextPrompt
from hpctrain.tasks.problem import Stop
from hpctrain.tasks.template import render_request
from hpctrain.train.trained import Trained

_REQUEST_PATH = ""  # as of instructions that name none


def read_prompt(
    trained: Trained,
    prompt_file: Path | None,
    suffix_file: Path | None,
    request: str | None,
    language: str | None,
    stop: str,
) -> TextPrompt:
    """The prompt of a file, of a file and what follows its gap, or of a request in words.

    A request is written as the template of the run's data has it. Raises ConfigError with all that does not
    fit together, DataError for a file that cannot be read.
    """
    problems = []
    if (prompt_file is None) == (request is None):
        problems.append("--prompt-file, --request: give one of them")
    if suffix_file is not None and prompt_file is None:
        problems.append("--suffix-file: needs --prompt-file, for what comes before the gap")
    if stop not in get_args(Stop):
        problems.append(f"--stop: {stop}; valid: {', '.join(get_args(Stop))}")
    known = sorted(trained.tokenizer.languages)
    if problems:
        raise ConfigError(problems)
    text = _read(prompt_file) if prompt_file else b""
    path = prompt_file.name if prompt_file else _REQUEST_PATH
    named = language or (find_language(path, text) if prompt_file else None)
    if named is None or named not in known:
        why = f"{named} is none of this tokenizer's" if named else "the name does not tell it"
        raise ConfigError(f"--language: {why}; valid: {', '.join(known)}")
    if request is not None:
        text = render_request(request, trained.config.data.template or "plain").encode()
    suffix = _read(suffix_file) if suffix_file else None
    return TextPrompt(text, named, path, suffix, stop)  # type: ignore[arg-type] # checked above


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as reason:
        raise DataError(f"{path}: {reason.strerror}") from None
