"""Continue prompts, many at once, with a key/value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from hpctrain.errors import DataError
from hpctrain.generation.cache import CachedModel, cached
from hpctrain.generation.sampling import choose, uniform
from hpctrain.model.transformer import Transformer

MOST_ROWS = 64
"""Rows that are generated at once by default."""

Stop = Callable[[Sequence[int]], bool]
"""Whether a continuation, given by its ids, is at its end."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue."""

    prompt: Sequence[int]
    max_tokens: int
    key: int = 0
    """Decides what is drawn where the temperature is not 0."""
    stop: Stop | None = None
    """Asked after each token; None: only the end mark ends it."""


@dataclass(frozen=True)
class Continuation:
    """What follows a prompt."""

    ids: list[int]
    """Without the end mark."""
    ended_by: Literal["end", "stop", "limit", "context"]
    """The end mark, the stop of the request, its limit of tokens, or the model's context."""


@dataclass
class _Row:
    """A continuation in the making."""

    request: Request
    place: int
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.request.prompt) + len(self.ids)


def generate(
    model: Transformer,
    requests: Sequence[Request],
    *,
    context: int,
    end: int,
    vocab_size: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    rows: int = MOST_ROWS,
) -> list[Continuation]:
    """The continuation of each request, on the device of the model's weights.

    `end`: id of the end mark; `vocab_size`: ids from there on are never chosen; `rows`: requests in one
    batch. Equal prompts that stand together are read once. Raises DataError for an empty prompt, and for one
    that leaves nothing of the context of `context` tokens.
    """
    for request in requests:
        check_length(len(request.prompt), context)
    results: dict[int, Continuation] = {}
    order = sorted(range(len(requests)), key=lambda place: len(requests[place].prompt))
    for first in range(0, len(order), rows):
        batch = [_Row(requests[place], place) for place in order[first : first + rows]]
        _continue(model, batch, results, context, end, vocab_size, temperature, top_p)
    return [results[place] for place in range(len(requests))]


def check_length(prompt_tokens: int, context: int) -> None:
    """Raises DataError unless a prompt of so many tokens can be continued."""
    if not 0 < prompt_tokens < context:
        raise DataError(
            f"a prompt of {prompt_tokens} tokens cannot be continued in a context of {context}: "
            "shorten it, or take a model with a longer one"
        )


def _continue(
    model: Transformer,
    rows: list[_Row],
    results: dict[int, Continuation],
    context: int,
    end: int,
    vocab_size: int | None,
    temperature: float,
    top_p: float,
) -> None:
    """Run one batch to its end, dropping rows as they finish."""
    capacity = min(context, max(row.length + row.request.max_tokens for row in rows))
    device = next(model.parameters()).device
    step = 0
    with cached(model, capacity) as fed:
        logits = _prefill(fed, rows, device)
        while True:
            draws = uniform([row.request.key for row in rows], step) if temperature > 0 else []
            chosen = choose(logits[:, :vocab_size], draws, temperature, top_p).tolist()
            going = []
            for number, (row, token) in enumerate(zip(rows, chosen, strict=True)):
                if done := _append(row, token, context, end):
                    results[row.place] = done
                else:
                    going.append(number)
            if not going:
                return
            if len(going) < len(rows):
                fed.keep(torch.tensor(going, device=device))
                rows = [rows[number] for number in going]
            tokens = torch.tensor([row.ids[-1] for row in rows], device=device)
            logits = fed.step(tokens, [row.length - 1 for row in rows])
            step += 1


def _append(row: _Row, token: int, context: int, end: int) -> Continuation | None:
    """Take the next token of a row; its continuation, if that was the last."""
    if token == end or row.request.max_tokens < 1:
        return Continuation(row.ids, "end" if token == end else "limit")
    row.ids.append(token)
    if row.request.stop and row.request.stop(row.ids):
        return Continuation(row.ids, "stop")
    if len(row.ids) >= row.request.max_tokens:
        return Continuation(row.ids, "limit")
    return Continuation(row.ids, "context") if row.length >= context else None


def _prefill(fed: CachedModel, rows: list[_Row], device: torch.device) -> torch.Tensor:
    """Feed the prompts, each different one once; the logits after each row's."""
    prompts = list(dict.fromkeys(tuple(row.request.prompt) for row in rows))
    place = {prompt: number for number, prompt in enumerate(prompts)}
    tokens = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.int64)
    for number, prompt in enumerate(prompts):
        tokens[number, : len(prompt)] = torch.tensor(prompt)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    logits = fed.prefill(tokens.to(device), lengths)
    if len(prompts) == len(rows):
        return logits
    taken = torch.tensor([place[tuple(row.request.prompt)] for row in rows], device=device)
    fed.keep(taken)
    return logits[taken]
