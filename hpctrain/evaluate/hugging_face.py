"""A model in Hugging Face's format, run by transformers: the proof that an export answers as its run does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hpctrain.errors import DataError
from hpctrain.evaluate.candidate import Answer, Sampling
from hpctrain.evaluate.models import ModelOptions
from hpctrain.generation.generate import check_length
from hpctrain.generation.stops import find_end
from hpctrain.generation.text import choose_device
from hpctrain.tasks.problem import Problem
from hpctrain.tokenizer.codec import language_piece, special_piece

_GAPS = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<PRE>", "<SUF>", "<MID>"),
)
"""How different families mark what stands before, behind and in a gap."""


class HuggingFaceModel:
    """A directory that AutoModelForCausalLM loads. Nothing is fetched from elsewhere."""

    def __init__(self, name: str, options: ModelOptions) -> None:
        """Raises DataError if transformers cannot load the directory."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name, self._device, self._rows = name, choose_device(options.device), options.rows
        place = Path(name)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(place, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(place, dtype="auto", local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as reason:
            raise DataError(f"{name}: transformers cannot load it: {reason}") from None
        self._model = (model if self._device == "cuda" else model.float()).to(self._device).eval()
        self.context_tokens = int(model.config.max_position_embeddings)
        self._known = self._tokenizer.get_vocab()
        self._tokens, self._seconds = 0, 0.0

    @property
    def spent(self) -> tuple[int, float]:
        """Tokens drawn so far, and the seconds that it took."""
        return self._tokens, self._seconds

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        """See Candidate."""
        prompts = [self._prompt_ids(problem) for problem in problems]
        for problem, ids in zip(problems, prompts, strict=True):
            try:
                check_length(len(ids), self.context_tokens)
            except DataError as reason:
                raise DataError(f"{problem.id}: {reason}") from None
        samples = sampling.samples if sampling.temperature > 0 else 1
        order = sorted(range(len(problems)), key=lambda place: len(prompts[place]))
        answers: dict[int, list[Answer]] = {}
        torch.manual_seed(sampling.seed)
        rows = max(1, self._rows // samples)
        for first in range(0, len(order), rows):
            places = order[first : first + rows]
            drawn = self._generate([prompts[place] for place in places], samples, sampling)
            for number, place in enumerate(places):
                part = drawn[number * samples : (number + 1) * samples]
                found = [self._cut(problems[place], ids, sampling) for ids in part]
                answers[place] = found * (sampling.samples // samples)
        return [answers[place] for place in range(len(problems))]

    def _generate(self, prompts: list[list[int]], samples: int, sampling: Sampling) -> list[list[int]]:
        """What follows each prompt, up to and with the end mark; the prompts are filled up on the left."""
        longest = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id or 0
        tokens = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts], device=self._device)
        lengths = torch.tensor([len(ids) for ids in prompts], device=self._device)
        mask = torch.arange(longest, device=self._device) >= (longest - lengths)[:, None]
        drawn = (
            {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0,
             "num_return_sequences": samples}
            if sampling.temperature > 0
            else {"do_sample": False}
        )  # fmt: skip
        new = min(sampling.max_tokens, self.context_tokens - longest)
        before = time.perf_counter()
        with torch.inference_mode():
            found = self._model.generate(
                tokens, attention_mask=mask.long(), max_new_tokens=new, pad_token_id=pad, **drawn
            )[:, longest:].tolist()
        self._seconds += time.perf_counter() - before
        ended = [_up_to(ids, self._ends()) for ids in found]
        self._tokens += sum(map(len, ended))
        return ended

    def _cut(self, problem: Problem, ids: list[int], sampling: Sampling) -> Answer:
        ended = bool(ids) and ids[-1] in self._ends()
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        content = text.encode("utf-8", "replace")
        end = find_end(problem.stop, problem.language, problem.prompt.encode(), content)
        return Answer(content[:end].decode("utf-8", "replace"), not ended and end is None, len(ids))

    def _ends(self) -> set[int]:
        end = self._model.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else {end}

    def _prompt_ids(self, problem: Problem) -> list[int]:
        """The head of a document where the tokenizer has its marks, the bos mark otherwise; then the text."""
        head = [special_piece("document"), language_piece(problem.language), special_piece("file_name")]
        if set(head) <= self._known.keys():
            ids = [*(self._known[piece] for piece in head), *self._encode(problem.path)]
            ids.append(self._known[special_piece("content")])
        else:
            ids = [] if self._tokenizer.bos_token_id is None else [self._tokenizer.bos_token_id]
        if problem.suffix is None:
            return [*ids, *self._encode(problem.prompt)]
        marks = next((marks for marks in _GAPS if set(marks) <= self._known.keys()), None)
        if marks is None:
            raise DataError(f"{self.name}: its tokenizer has no marks for a gap; it cannot fill any")
        prefix, suffix, middle = (self._known[mark] for mark in marks)
        return [
            *ids, prefix, *self._encode(problem.prompt), suffix, *self._encode(problem.suffix), middle
        ]  # fmt: skip

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids


def _up_to(ids: list[int], ends: set[int]) -> list[int]:
    """The ids up to the first end mark, with it."""
    place = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: place + 1]
