"""Attention: every backend is the written-out one, and no document sees another."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from hpctrain.errors import ConfigError
from hpctrain.loader.batches import make_batch
from hpctrain.model.attention import (
    FlexAttention,
    available_backends,
    choose_attention,
    document_block_mask,
    document_ids,
    document_positions,
    eager_attention,
    sdpa_attention,
    varlen_attention,
)
from hpctrain.model.config import ModelConfig
from hpctrain.model.recompute import recompute_layers
from hpctrain.model.transformer import Transformer, build_layers

VOCABULARY = 31
DOCUMENT = 0  # the mark that begins a document


@st.composite
def layouts(draw: st.DrawFn, length: int | None = None) -> tuple[int, int, list[int]]:
    """Batch, sequence length, and the lengths of all documents: none spans two sequences."""
    batch = draw(st.integers(1, 3))
    length = length or draw(st.integers(1, 24))
    documents: list[int] = []
    for _ in range(batch):
        cuts = draw(st.sets(st.integers(1, length - 1))) if length > 1 else set()
        documents += [stop - start for start, stop in itertools.pairwise([0, *sorted(cuts), length])]
    return batch, length, documents


def boundaries_of(documents: list[int], padding: int = 3) -> Tensor:
    edges = [0, *itertools.accumulate(documents)]
    return torch.tensor(edges + [edges[-1]] * padding, dtype=torch.int32)


def random_heads(
    batch: int, length: int, heads: int, kv_heads: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, count, 8) for count in (heads, kv_heads, kv_heads)]
    query, key, value = (torch.randn(shape, generator=generator).mul(2).requires_grad_() for shape in shapes)
    return query, key, value


@given(layouts())
def test_document_ids_and_positions_are_those_of_a_plain_loop(layout: tuple[int, int, list[int]]) -> None:
    batch, length, documents = layout
    boundaries = boundaries_of(documents, padding=batch * length + 1 - len(documents))
    ids = [number for number, size in enumerate(documents) for _ in range(size)]
    positions = [place for size in documents for place in range(size)]
    assert document_ids(boundaries, batch * length).tolist() == ids
    assert document_positions(boundaries, batch * length).tolist() == positions
    assert document_ids(boundaries, batch * length).dtype == torch.int32


@settings(max_examples=60)
@given(layouts(), st.sampled_from([(4, 4), (4, 2), (6, 2), (3, 1)]), st.integers(0, 3))
def test_sdpa_is_eager_forward_and_backward(
    layout: tuple[int, int, list[int]], heads: tuple[int, int], seed: int
) -> None:
    batch, length, documents = layout
    boundaries = boundaries_of(documents)
    inputs = random_heads(batch, length, *heads, seed)
    upstream = torch.randn(batch, length, heads[0], 8, generator=torch.Generator().manual_seed(seed + 100))
    results = []
    for attend in (eager_attention, sdpa_attention):
        output = attend(*inputs, boundaries)
        assert output.shape == upstream.shape
        results.append((output, *torch.autograd.grad(output, inputs, upstream)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("documents", [[1] * 12, [12], [1, 10, 1], [12, 12], [5, 7, 1, 11]])
def test_sdpa_at_the_extremes(documents: list[int]) -> None:
    batch = sum(documents) // 12
    inputs = random_heads(batch, 12, 4, 2, seed=9)
    boundaries = boundaries_of(documents, padding=0)
    torch.testing.assert_close(
        sdpa_attention(*inputs, boundaries), eager_attention(*inputs, boundaries), rtol=1e-5, atol=1e-5
    )


def test_eager_is_the_definition_in_a_plain_loop() -> None:
    documents = [3, 1, 4, 2, 6]
    query, key, value = (tensor.detach() for tensor in random_heads(2, 8, 4, 2, seed=1))
    found = eager_attention(query, key, value, boundaries_of(documents)).reshape(16, 4, 8)
    flat = [tensor.reshape(16, -1, 8).double() for tensor in (query, key, value)]
    starts = [start for start, size in zip(itertools.accumulate([0, *documents]), documents, strict=False)
              for _ in range(size)]  # fmt: skip
    for place, head in itertools.product(range(16), range(4)):
        seen = slice(starts[place], place + 1)
        weights = (flat[1][seen, head // 2] @ flat[0][place, head] / 8**0.5).softmax(0)
        expected = weights @ flat[2][seen, head // 2]
        torch.testing.assert_close(found[place, head].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_flex_is_eager_forward(heads: tuple[int, int]) -> None:
    """It has no backward on CPUs."""
    documents = [100, 1, 27, 64, 64]
    inputs = [tensor.detach() for tensor in random_heads(2, 128, *heads, seed=2)]
    boundaries = boundaries_of(documents)
    torch.testing.assert_close(
        FlexAttention("cpu")(*inputs, boundaries), eager_attention(*inputs, boundaries),
        rtol=2e-5, atol=2e-5,
    )  # fmt: skip


@settings(max_examples=60)
@given(layouts(), st.sampled_from([1, 4, 16]))
def test_the_mask_by_arithmetic_is_torchs(layout: tuple[int, int, list[int]], size: int) -> None:
    batch, length, documents = layout
    found = document_block_mask(boundaries_of(documents), batch, length, size)
    expected = create_block_mask(found.mask_mod, batch, None, length, length, device="cpu", BLOCK_SIZE=size)
    assert torch.equal(found.to_dense(), expected.to_dense())
    if size > 1:  # of blocks of one position torch calls the diagonal full; here it is partial
        for kind in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
            assert torch.equal(getattr(found, kind), getattr(expected, kind)), kind
            q_kind = kind.replace("kv", "q")
            assert torch.equal(getattr(found, q_kind), getattr(expected, q_kind)), q_kind
    assert found.seq_lengths == expected.seq_lengths


def test_flex_makes_one_mask_for_the_same_boundaries() -> None:
    flex = FlexAttention("cpu")
    boundaries = boundaries_of([5, 7, 12])
    first = flex.mask(boundaries, 2, 12)
    assert flex.mask(boundaries, 2, 12) is first
    assert flex.mask(boundaries.detach(), 2, 12) is first, "hooks pass views of the same memory"
    assert flex.mask(boundaries.clone(), 2, 12) is not first
    assert flex.mask(boundaries, 1, 24) is not first
    second = flex.mask(boundaries, 2, 12)
    boundaries[1] = 4  # a buffer that is used again for the next micro-batch
    changed = flex.mask(boundaries, 2, 12)
    assert changed is not second
    assert torch.equal(changed.to_dense(), document_block_mask(boundaries, 2, 12).to_dense())
    query, key = torch.tensor(4), torch.tensor(0)
    masks = [each.mask_mod(torch.tensor(0), torch.tensor(0), query, key) for each in (first, changed)]
    assert [bool(each) for each in masks] == [True, False]


class Recording(FlexAttention):
    """Notes which mask each call would take; computes by sdpa, as flex has no backward on CPUs."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.masks: list[BlockMask] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
        self.masks.append(self.mask(boundaries, *query.shape[:2]))
        return sdpa_attention(query, key, value, boundaries)


@pytest.mark.parametrize("recompute", [False, True])
def test_all_blocks_of_a_forward_pass_share_one_mask(recompute: bool) -> None:
    config = ModelConfig(hidden_size=32, layers=3, heads=2, kv_heads=1, mlp_size=48, tied=True)
    attention = Recording()
    layers = build_layers(config, VOCABULARY, 1, attention)
    model = Transformer(recompute_layers(layers, ["all"] * 3) if recompute else layers)
    for seed in (1, 2):
        tokens, boundaries = pack(random_documents([9, 3, 12], seed), 12)
        model(tokens, boundaries).sum().backward()
    calls = 3 * (1 + recompute)
    assert len(attention.masks) == 2 * calls
    assert {id(mask) for mask in attention.masks[:calls]} == {id(attention.masks[0])}
    assert {id(mask) for mask in attention.masks[calls:]} == {id(attention.masks[calls])}
    assert attention.masks[0] is not attention.masks[-1]


def tiny(attention: str = "sdpa", seed: int = 1) -> Transformer:
    config = ModelConfig(
        hidden_size=32, layers=2, heads=4, kv_heads=2, mlp_size=48, tied=True, initial_deviation=0.3
    )
    return Transformer(build_layers(config, VOCABULARY, seed, choose_attention(attention, "cpu", "fp32")))


def pack(documents: list[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Documents that begin with their mark, packed by the loader's own rule: tokens [B,S], boundaries."""
    sequences = torch.cat(documents).view(-1, length)
    batch = make_batch(torch.nn.functional.pad(sequences, (0, 1)).numpy(), DOCUMENT)
    return batch.tokens, batch.boundaries


def random_documents(sizes: list[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    documents = [torch.randint(1, VOCABULARY, (size,), generator=generator) for size in sizes]
    for document in documents:
        document[0] = DOCUMENT
    return documents


def loss_weights(count: int) -> Tensor:
    """A different weight for each logit, so that no error cancels out."""
    return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("sizes", [[5, 1, 9, 17], [1] * 32, [32], [16, 16], [31, 1], [10, 6, 3, 13]])
def test_a_packed_document_gives_the_logits_and_gradients_it_gives_alone(
    attention: str, sizes: list[int]
) -> None:
    model, length = tiny(attention), 16 if sizes in ([16, 16], [10, 6, 3, 13]) else 32
    documents = random_documents(sizes, seed=4)
    weights = loss_weights(32)
    packed = model(*pack(documents, length)).flatten(0, 1)
    (packed * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    start = 0
    for document in documents:
        stop = start + len(document)
        alone = model(document[None], torch.tensor([0, len(document)], dtype=torch.int32))[0]
        torch.testing.assert_close(packed[start:stop], alone, rtol=1e-4, atol=1e-4)
        (alone * weights[start:stop]).sum().backward()
        start = stop
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=2e-4, msg=name)


@settings(max_examples=30)
@given(layouts(length=12), st.data())
def test_changed_tokens_of_one_document_never_reach_another(
    layout: tuple[int, int, list[int]], data: st.DataObject
) -> None:
    _, length, sizes = layout
    model = tiny()
    changed = data.draw(st.integers(0, len(sizes) - 1), "changed document")
    documents, others = random_documents(sizes, seed=5), random_documents(sizes, seed=6)
    before = model(*pack(documents, length)).flatten(0, 1)
    after = model(*pack([*documents[:changed], others[changed], *documents[changed + 1 :]], length)).flatten(
        0, 1
    )
    start = sum(sizes[:changed])
    stop = start + sizes[changed]
    assert torch.equal(before[:start], after[:start])
    assert torch.equal(before[stop:], after[stop:])
    same = torch.equal(documents[changed], others[changed])
    assert same == torch.equal(before[start:stop], after[start:stop])


def test_no_logit_depends_on_a_later_token() -> None:
    model = tiny()
    (document,) = random_documents([20], seed=7)
    boundaries = torch.tensor([0, 20], dtype=torch.int32)
    whole = model(document[None], boundaries)[0]
    for cut in (1, 7, 19):
        changed = document.clone()
        changed[cut:] = (changed[cut:] + 1) % VOCABULARY
        changed = model(changed[None], boundaries)[0]
        torch.testing.assert_close(changed[:cut], whole[:cut], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(changed[cut:], whole[cut:], atol=1e-2)


def test_the_padding_of_the_boundaries_changes_nothing() -> None:
    model = tiny()
    tokens = torch.cat(random_documents([6, 10], seed=8))[None]
    few, many = boundaries_of([6, 10], padding=0), boundaries_of([6, 10], padding=14)
    assert torch.equal(model(tokens, few), model(tokens, many))


@pytest.mark.parametrize("name", ["varlen", "flex", "nonsense"])
def test_what_cannot_train_here_names_what_can(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"model.attention: {name} cannot train on cpu in fp32; it has sdpa, eager"
    ):
        choose_attention(name, "cpu", "fp32")


def test_the_choice_of_the_backend() -> None:
    assert choose_attention("auto", "cpu", "bf16") is sdpa_attention
    assert choose_attention("eager", "cpu", "fp32") is eager_attention
    assert available_backends("cuda", "fp32") == ["flex", "sdpa", "eager"], "varlen has 16-bit kernels only"
    on_gpu = available_backends("cuda", "bf16")
    assert on_gpu in (["varlen", "flex", "sdpa", "eager"], ["flex", "sdpa", "eager"])
    if on_gpu[0] == "varlen":
        assert choose_attention("auto", "cuda", "bf16") is varlen_attention
    with pytest.raises(ConfigError, match="varlen cannot train on cuda in fp32; it has flex, sdpa, eager"):
        choose_attention("varlen", "cuda", "fp32")
