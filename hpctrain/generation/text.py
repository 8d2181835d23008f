"""From prompts to text: documents in the form that the model was trained on, answers up to their ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hpctrain.errors import ConfigError, DataError
from hpctrain.generation.generate import MOST_ROWS, Request, generate
from hpctrain.generation.stops import find_end, make_stop
from hpctrain.loader.order import derive_key
from hpctrain.model.transformer import Transformer
from hpctrain.tasks.problem import Stop
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.trained import Trained


@dataclass(frozen=True)
class TextPrompt:
    """What to continue."""

    text: bytes
    language: str
    """Label of the corpus; it stands in the head of the document."""
    path: str
    """File name; it stands there too."""
    suffix: bytes | None = None
    """What stands after the gap; None: there is no gap to fill, the text goes on."""
    stop: Stop = "end"


@dataclass(frozen=True)
class GeneratedText:
    """An answer."""

    text: bytes
    is_cut: bool
    """Whether the limit of tokens or the context ended it."""
    tokens: int


def prompt_ids(tokenizer: Tokenizer, prompt: TextPrompt, unseen: frozenset[int] = frozenset()) -> list[int]:
    """The tokens that a model is to continue: the head of a document and its content so far.

    To fill a gap: the text before it, the text after it, and the mark of the middle. A model that has never
    met our heads (`unseen` ids) gets its own bos and the text. Raises DataError for a language that the
    tokenizer has no token for, and for a gap where the model has never met the marks of one.
    """
    special = tokenizer.special
    if special.content in unseen:
        head = [id_ for id_ in (special.document,) if id_ not in unseen]
    else:
        head = tokenizer.encode_document(prompt.language, prompt.path, b"")[:-1].tolist()
    before = tokenizer.encode(prompt.text)
    if prompt.suffix is None:
        return [*head, *before]
    if unseen & {special.fim_prefix, special.fim_suffix, special.fim_middle}:
        raise DataError(
            f"{prompt.path}: the imported model has no tokens to fill a gap with; train it on documents with "
            "gaps first (data.fim), or give no suffix"
        )
    after = tokenizer.encode(prompt.suffix)
    return [*head, special.fim_prefix, *before, special.fim_suffix, *after, special.fim_middle]


class TextGenerator:
    """A trained model that continues text. `tokens_per_second` counts what was drawn so far."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        context: int,
        device: str = "auto",
        rows: int = MOST_ROWS,
        unseen: frozenset[int] = frozenset(),
    ) -> None:
        """`context`: tokens that the model was trained on; `rows`: answers that are written at once.

        `unseen`: ids that the model has never met.
        """
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.tokenizer, self.context, self.rows, self.unseen = tokenizer, context, rows, unseen
        self.tokens, self.seconds = 0, 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens drawn by second of generation, reading the prompts included; None before the first."""
        return self.tokens / self.seconds if self.seconds else None

    def complete(
        self,
        prompts: Sequence[TextPrompt],
        *,
        max_tokens: int,
        samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[GeneratedText]]:
        """`samples` answers to each prompt.

        What is drawn depends on the seed, the place of the prompt and the number of the sample. Raises
        DataError that names the prompt which does not fit into the context.
        """
        alike = samples if temperature > 0 else 1  # the likeliest answer is one
        requests = []
        for number, prompt in enumerate(prompts):
            ids = self._ids(prompt)
            stop = make_stop(prompt.stop, prompt.language, prompt.text, self.tokenizer)
            keys = (derive_key(seed, "generate", number, sample) for sample in range(alike))
            requests += [Request(ids, max_tokens, key, stop) for key in keys]
        before = time.perf_counter()
        done = generate(
            self.model, requests, context=self.context, end=self.tokenizer.special.end,
            vocab_size=self.tokenizer.vocab_size, temperature=temperature, top_p=top_p, rows=self.rows,
        )  # fmt: skip
        self.seconds += time.perf_counter() - before
        self.tokens += sum(len(each.ids) for each in done)
        texts = []
        for number, prompt in enumerate(prompts):
            part = done[number * alike : (number + 1) * alike]
            answers = [self._text(prompt, each.ids, each.ended_by in ("limit", "context")) for each in part]
            texts.append(answers * (samples // alike))
        return texts

    def problem_with(self, prompt: TextPrompt) -> str:
        """Why this prompt cannot be continued, or ""."""
        try:
            self._ids(prompt)
        except DataError as reason:
            return str(reason)
        return ""

    def _ids(self, prompt: TextPrompt) -> list[int]:
        ids = prompt_ids(self.tokenizer, prompt, self.unseen)
        if len(ids) >= self.context:
            raise DataError(
                f"{prompt.path}: the prompt has {len(ids)} tokens, which leave nothing of the context "
                f"of {self.context}: shorten it, or take a model with a longer context"
            )
        return ids

    def _text(self, prompt: TextPrompt, ids: list[int], is_cut: bool) -> GeneratedText:
        text = self.tokenizer.decode(ids)
        return GeneratedText(
            text[: find_end(prompt.stop, prompt.language, prompt.text, text)], is_cut, len(ids)
        )


def text_generator(trained: Trained, device: str = "auto", rows: int = MOST_ROWS) -> TextGenerator:
    """A generator of a trained model; in bf16 on a GPU if it was trained so, else in fp32."""
    chosen = choose_device(device)
    model = trained.model
    if chosen == "cuda" and trained.config.train.precision != "fp32":
        model = model.to(torch.bfloat16)
    context = trained.config.data.sequence_length
    return TextGenerator(model, trained.tokenizer, context, chosen, rows, trained.unseen)


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; `auto` is a GPU where there is one. Raises ConfigError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if has_gpu else "cpu"
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"--device: {name}; valid: auto, cpu, cuda")
    if name == "cuda" and not has_gpu:
        raise ConfigError("--device: cuda, but torch sees no GPU here")
    return name
