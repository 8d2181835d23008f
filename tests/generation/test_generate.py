"""Generation with a cache: the tokens that the model itself would give, whatever stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.errors import DataError
from hpctrain.generation.cache import cached
from hpctrain.generation.generate import Request, generate
from hpctrain.generation.sampling import choose, uniform
from hpctrain.model.attention import sdpa_attention
from hpctrain.model.config import ModelConfig
from hpctrain.model.transformer import Transformer, build_layers

VOCABULARY, END, CONTEXT = 61, 3, 48
SHAPES: list[dict[str, Any]] = [
    {"kv_heads": 2, "tied": True},
    {"kv_heads": 4, "tied": False},
    {"kv_heads": 1, "tied": True, "rope_theta": 500.0},
]


def build(**changes: Any) -> Transformer:
    """A model whose answers differ: large weights."""
    sizes = {"hidden_size": 32, "layers": 3, "heads": 4, "mlp_size": 48, "initial_deviation": 0.4}
    config = ModelConfig(**{**sizes, **changes})
    return Transformer(build_layers(config, VOCABULARY, 7, sdpa_attention)).eval()


def without_cache(model: Transformer, prompt: Sequence[int], count: int) -> list[int]:
    """The definition: the whole sequence again for every token."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < min(len(prompt) + count, CONTEXT):
            boundaries = torch.tensor([0, len(ids)], dtype=torch.int32)
            chosen = int(model(torch.tensor([ids]), boundaries)[0, -1].argmax())
            if chosen == END:
                break
            ids.append(chosen)
    return ids[len(prompt) :]


def prompts(count: int = 7) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randint(4, VOCABULARY, (1 + 5 * number,), generator=generator).tolist()
        for number in range(count)
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_ragged_batch_gives_what_the_model_gives_without_a_cache(shape: dict[str, Any]) -> None:
    model = build(**shape)
    texts = prompts()
    found = generate(model, [Request(p, 20) for p in texts], context=CONTEXT, end=END)
    assert [each.ids for each in found] == [without_cache(model, prompt, 20) for prompt in texts]
    assert len({tuple(each.ids[:5]) for each in found}) > 3  # the answers do differ


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_equal_those_without_a_cache(shape: dict[str, Any]) -> None:
    model, text = build(**shape), prompts()[5]
    with torch.no_grad():
        whole = model(torch.tensor([text]), torch.tensor([0, len(text)], dtype=torch.int32))[0]
    with cached(model, CONTEXT) as fed:
        got = [fed.prefill(torch.tensor([text[:4]]), torch.tensor([4]))[0]]
        for place in range(4, len(text)):
            got.append(fed.step(torch.tensor([text[place]]), [place])[0])
    torch.testing.assert_close(torch.stack(got), whole[3:], rtol=1e-4, atol=1e-4)


def test_the_model_is_as_before_afterwards() -> None:
    model = build(**SHAPES[0])
    before = without_cache(model, prompts()[2], 5)
    with pytest.raises(RuntimeError, match="stop"), cached(model, 8):
        raise RuntimeError("stop")
    generate(model, [Request(prompts()[2], 5)], context=CONTEXT, end=END)
    assert without_cache(model, prompts()[2], 5) == before


def test_what_is_drawn_does_not_depend_on_the_batch() -> None:
    model = build(**SHAPES[0])
    requests = [Request(prompt, 12, key=number) for number, prompt in enumerate(prompts())]
    options: dict[str, Any] = {"context": CONTEXT, "end": END, "temperature": 1.0, "top_p": 0.9}
    together = generate(model, requests, **options)
    assert together == generate(model, requests, rows=2, **options)
    assert together[3] == generate(model, [requests[3]], **options)[0]
    again = [Request(requests[3].prompt, 12, key=100 + number) for number in range(8)]
    drawn = generate(model, again, **options)
    assert len({tuple(each.ids) for each in drawn}) > 4


def test_why_each_ended() -> None:
    model = build(**SHAPES[0])
    free = without_cache(model, prompts()[3], 30)
    found = generate(
        model,
        [
            Request(prompts()[3], 3),
            Request(prompts()[3], 30, stop=lambda ids: len(ids) == 2),
            Request(prompts()[6] + prompts()[3][:15], 30),
        ],
        context=CONTEXT, end=free[4],
    )  # fmt: skip
    assert [each.ended_by for each in found[:2]] == ["limit", "stop"]
    assert found[0].ids == free[:3]
    assert found[1].ids == free[:2]
    assert found[2].ended_by in ("context", "end")
    assert len(found[2].ids) <= CONTEXT - 46
    ended = generate(model, [Request(prompts()[3], 30)], context=CONTEXT, end=free[4])[0]
    assert (ended.ids, ended.ended_by) == (free[: free.index(free[4])], "end")


def test_ids_beyond_the_vocabulary_are_never_chosen() -> None:
    model = build(**SHAPES[1])
    requests = [Request(prompt, 20, key=number) for number, prompt in enumerate(prompts())]
    found = generate(model, requests, context=CONTEXT, end=END, vocab_size=9, temperature=3.0)
    assert {id_ for each in found for id_ in each.ids} <= set(range(9))


@pytest.mark.parametrize("length", [0, CONTEXT, CONTEXT + 5])
def test_a_prompt_that_does_not_fit_is_an_error(length: int) -> None:
    with pytest.raises(DataError, match=f"prompt of {length} tokens .* context of {CONTEXT}"):
        generate(build(**SHAPES[0]), [Request([5] * length, 3)], context=CONTEXT, end=END)


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40),
    draw=st.floats(0, 1, exclude_max=True),
    top_p=st.floats(0, 1),
    temperature=st.floats(0.05, 3),
)
@settings(max_examples=200)
def test_only_the_likeliest_tokens_are_drawn(
    logits: list[float], draw: float, top_p: float, temperature: float
) -> None:
    row = torch.tensor([logits])
    chosen = int(choose(row, [draw], temperature, top_p))
    chances = torch.softmax(row[0] / temperature, -1)
    likelier = float(chances[chances > chances[chosen]].sum())
    assert likelier <= top_p + 1e-5


def test_draws_follow_the_probabilities() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = [float(number) / 4000 for number in range(4000)]
    chosen = choose(chances.log().repeat(4000, 1), draws, 1.0, 1.0)
    assert torch.bincount(chosen, minlength=4).tolist() == pytest.approx([2000, 1200, 600, 200], abs=2)
    assert set(choose(chances.log().repeat(4000, 1), draws, 1.0, 0.75).tolist()) == {0, 1}


def test_uniform_numbers_differ_by_key_and_step() -> None:
    drawn = [value for step in range(50) for value in uniform(range(50), step)]
    assert len(set(drawn)) == 2500
    assert 0.47 < sum(drawn) / 2500 < 0.53
    assert min(drawn) >= 0
    assert max(drawn) < 1
