"""Continue a prompt, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hpctrain.model.transformer import Transformer


def generate(
    model: Transformer,
    prompt: Sequence[int],
    max_tokens: int,
    context: int,
    end: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[int]:
    """The ids that follow `prompt`, at most `max_tokens`, up to the end mark (left out).

    Temperature 0 takes the likeliest token each time. At most the last `context` tokens are looked at.
    """
    ids = list(prompt)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        while len(ids) < len(prompt) + max_tokens:
            seen = torch.tensor([ids[-context:]])
            boundaries = torch.tensor([0, seen.numel()], dtype=torch.int32)
            logits = model(seen, boundaries)[0, -1]
            if temperature > 0:
                chances = torch.softmax(logits / temperature, dim=-1)
                chosen = int(torch.multinomial(chances, 1, generator=generator))
            else:
                chosen = int(logits.argmax())
            if chosen == end:
                break
            ids.append(chosen)
    return ids[len(prompt) :]
