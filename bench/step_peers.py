"""Training steps of the peers and ours: the same shape, weights and tokens, each as a user would write it.

Each builder gives a function that makes one step (forward, backward, clip, AdamW) and returns the loss before
it. Peers train in fp32 on CPUs, and on GPUs in bf16 by autocast with fp32 weights, their own recipe for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpctrain.engine.base import OptimizerConfig
from hpctrain.model.attention import choose_attention
from hpctrain.model.config import ModelConfig, layer_costs
from hpctrain.model.huggingface import huggingface_name, to_huggingface_config
from hpctrain.model.transformer import Transformer, build_layers
from hpctrain.tokenizer.codec import SpecialTokens

Step = Callable[[], float]
RATE = 1e-4


class Setting:
    """What is trained: `task` has preset, vocabulary, sequence, micro_batch, documents."""

    def __init__(self, task: dict[str, Any], device: torch.device) -> None:
        self.model = ModelConfig(preset=task["preset"])
        self.vocabulary, self.device = task["vocabulary"], device
        self.precision = "bf16" if device.type == "cuda" else "fp32"
        rows, length = task["micro_batch"], task["sequence"]
        generator = torch.Generator().manual_seed(7)
        tokens = torch.randint(1, self.vocabulary, (rows, length + 1), generator=generator)
        tokens[:, : length : length // task["documents"]] = 0  # the mark that begins a document
        self.rows = tokens

    def layers(self) -> list[Any]:
        """Our layer list; its initial weights are everybody's."""
        attention = choose_attention("auto", self.device.type, self.precision)
        return build_layers(self.model, self.vocabulary, 1, attention)

    def weights(self) -> dict[str, Tensor]:
        """The initial weights by our names, the head's too where it is tied."""
        found = {name: each.detach() for name, each in Transformer(self.layers()).named_parameters()}
        return found | ({"head.weight": found["embedding.weight"]} if self.model.tied else {})

    def peer_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of all positions: peers attend across documents."""
        rows = self.rows.to(self.device)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    @property
    def products(self) -> contextlib.AbstractContextManager[Any]:
        """How a peer's forward runs in the precision of this device."""
        on_gpu = self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext()


def hpctrain(setting: Setting, compiled: bool = False) -> Step:
    """Our DeepSpeed engine under ZeRO 1, as `hpctrain train` builds it."""
    from hpctrain.engine.build import build_engine
    from hpctrain.loader.batches import make_batch
    from hpctrain.parallel.topology import ParallelConfig, Topology

    batch = make_batch(setting.rows.numpy(), document_mark=0)
    engine = build_engine(
        setting.layers(), layer_costs(setting.model, setting.vocabulary), ParallelConfig(),
        Topology(1, 0, 1), OptimizerConfig(), device=setting.device, precision=setting.precision,
        micro_batch_size=len(batch.tokens), accumulation_steps=1, compiled=compiled,
    )  # fmt: skip
    return lambda: engine.train_step([batch], RATE).loss


def plain(setting: Setting) -> Step:
    """Our model in a plain PyTorch loop: logits, torch's cross-entropy, no DeepSpeed."""
    from hpctrain.loader.batches import make_batch

    model = Transformer(setting.layers()).to(setting.device)
    tokens, targets, boundaries = (each.to(setting.device) for each in make_batch(setting.rows.numpy(), 0))
    return partial(_step, setting, model, lambda: _loss(model(tokens, boundaries), targets))


def transformers(setting: Setting) -> Step:
    """Hugging Face's Llama with SDPA attention in a plain loop, its own loss."""
    model = _transformers_model(setting)
    tokens, targets = setting.peer_batch()
    return partial(_step, setting, model, lambda: model(tokens, shift_labels=targets, labels=targets).loss)


def transformers_deepspeed(setting: Setting) -> Step:
    """The same under DeepSpeed ZeRO 1, set up as its documentation does, with torch's fused AdamW."""
    import deepspeed

    model = _transformers_model(setting)
    tokens, targets = setting.peer_batch()
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=_adamw(model),
        config={
            "train_micro_batch_size_per_gpu": len(tokens), "gradient_accumulation_steps": 1,
            "gradient_clipping": 1.0, "bf16": {"enabled": setting.precision == "bf16"},
            "zero_optimization": {"stage": 1}, "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        },
    )  # fmt: skip

    def step() -> float:
        loss = engine(tokens, shift_labels=targets, labels=targets).loss
        engine.backward(loss)
        engine.step()
        return float(loss.detach())

    return step


def litgpt(setting: Setting) -> Step:
    """LitGPT's model in a plain loop, with its chunked loss."""
    from litgpt.model import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    shape = setting.model
    model = GPT(Config(
        block_size=setting.rows.shape[1], padded_vocab_size=setting.vocabulary, n_layer=shape.layers,
        n_head=shape.heads, n_query_groups=shape.kv_heads, n_embd=shape.hidden_size,
        head_size=shape.head_size, rotary_percentage=1.0, parallel_residual=False, bias=False,
        norm_class_name="RMSNorm", norm_eps=shape.norm_epsilon, mlp_class_name="LLaMAMLP",
        intermediate_size=shape.mlp_size, rope_base=int(shape.rope_theta),
    ))  # fmt: skip
    model.load_state_dict(_litgpt_names(setting.weights(), shape.layers))
    if shape.tied:
        model.lm_head.weight = model.transformer.wte.weight
    model = model.to(setting.device)
    tokens, targets = setting.peer_batch()
    return partial(_step, setting, model, lambda: chunked_cross_entropy(model(tokens), targets))


def weight_products(setting: Setting) -> Step:
    """Only the products of the step's weights, forward and backward: what no implementation can beat here."""
    shape, dtype = setting.model, torch.bfloat16 if setting.precision == "bf16" else torch.float32
    kv, width = shape.kv_size, shape.hidden_size
    block = [(width, shape.query_size), (width, kv), (width, kv), (shape.query_size, width),
             (width, shape.mlp_size), (width, shape.mlp_size), (shape.mlp_size, width)]  # fmt: skip
    sizes = block * shape.layers + [(width, setting.vocabulary)]
    count = setting.rows[:, 1:].numel()
    make = partial(torch.randn, dtype=dtype, device=setting.device)
    tensors = {
        size: (make(count, size[0]), make(size[1], size[0]), make(count, size[1])) for size in {*sizes}
    }
    outs = {size: tuple(torch.empty_like(each) for each in group) for size, group in tensors.items()}

    def step() -> float:
        for size in sizes:
            (inputs, weight, gradient), (of_inputs, of_weight, output) = tensors[size], outs[size]
            torch.mm(inputs, weight.T, out=output)
            torch.mm(gradient, weight, out=of_inputs)
            torch.mm(gradient.T, inputs, out=of_weight)
        return float("nan")

    return step


BUILDERS: dict[str, Callable[[Setting], Step]] = {
    "products": weight_products,
    "hpctrain": hpctrain,
    "hpctrain+compile": partial(hpctrain, compiled=True),
    "plain": plain,
    "transformers": transformers,
    "transformers+deepspeed": transformers_deepspeed,
    "litgpt": litgpt,
}


def _step(setting: Setting, model: nn.Module, loss_of: Callable[[], Tensor]) -> float:
    """One step of a plain loop; the optimizer is made at the first."""
    if not hasattr(model, "bench_optimizer"):
        model.bench_optimizer = _adamw(model)
    with setting.products:
        loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    model.bench_optimizer.step()
    model.bench_optimizer.zero_grad()
    return float(loss.detach())


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def _transformers_model(setting: Setting) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    special = SpecialTokens(*range(9))
    tree = to_huggingface_config(setting.model, setting.vocabulary, setting.rows.shape[1], special)
    config = AutoConfig.for_model(**{key: value for key, value in tree.items() if key != "architectures"})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    weights = {huggingface_name(name): each for name, each in setting.weights().items()}
    model.load_state_dict(weights)
    model.config.use_cache = False
    return model.to(setting.device).train()


def _litgpt_names(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    ours = {
        "norm_1": "attention_norm", "attn.proj": "attention.output", "norm_2": "mlp_norm",
        "mlp.fc_1": "mlp.gate", "mlp.fc_2": "mlp.up", "mlp.proj": "mlp.down",
    }  # fmt: skip
    found = {
        "lm_head.weight": weights["head.weight"],
        "transformer.wte.weight": weights["embedding.weight"],
        "transformer.ln_f.weight": weights["norm.weight"],
    }
    for number in range(layers):
        stem, block = f"transformer.h.{number}", f"block_{number}"
        found |= {
            f"{stem}.{theirs}.weight": weights[f"{block}.{mine}.weight"] for theirs, mine in ours.items()
        }
        parts = [weights[f"{block}.attention.{name}.weight"] for name in ("query", "key", "value")]
        found[f"{stem}.attn.qkv.weight"] = torch.cat(parts)
    return found
