"""A Hugging Face directory that any downstream tool loads as a Llama, proven before it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hpctrain.errors import DataError
from hpctrain.export.card import model_card
from hpctrain.manifest import Manifest, StageWriter, find_finished, read_manifest, write_stage
from hpctrain.progress import say
from hpctrain.tokenizer.huggingface import to_tokenizer_json, tokenizer_config
from hpctrain.train.generate import generate
from hpctrain.train.metrics import EVENTS_NAME, JsonLines, now
from hpctrain.train.trained import Trained, load_trained

EXPORT_KIND = "export"
EXPORT_FORMAT = 1
_LAYER_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}
_OUTER_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_LOGIT_TOLERANCE = 1e-4
_PROOF_TOKENS = 32
_PROOF_TEXT = b"subroutine axpy(n, a, x, y)\n  integer, intent(in) :: n\n  real, intent(in) :: a, x(n)\n"


def export_huggingface(run: Path, out: Path) -> Manifest:
    """Write a run's newest whole checkpoint as `LlamaForCausalLM` in fp32, with tokenizer and model card.

    The written directory is loaded with transformers and compared: logits, the tokenizer's ids and greedy
    text. Raises DataError, and publishes nothing, if they differ.
    """
    trained = load_trained(run)
    inputs = {
        "checkpoint": trained.checkpoint.manifest.fingerprint,
        "tokenizer": trained.tokenizer.fingerprint,
    }
    if finished := find_finished(out, EXPORT_KIND, EXPORT_FORMAT, inputs):
        say(f"{out}: up to date")
        return finished
    with write_stage(out, EXPORT_KIND, EXPORT_FORMAT) as stage:
        _write_weights(trained, stage)
        _write_tokenizer(trained, stage)
        stage.write_json("config.json", llama_config(trained))
        stage.path("README.md").write_text(model_card(trained, out.name), encoding="utf-8")
        difference = _prove(trained, stage.directory)
        stage.inputs = inputs
        stage.counts = {
            "step": trained.checkpoint.state.step,
            "parameters": trained.checkpoint.manifest.counts["parameters"],
        }
        stage.details = {"largest_logit_difference": difference, "run": str(run)}
    _note_in_run(run, out, trained.checkpoint.state.step)
    say(f"{out}: reloaded with transformers; logits differ by at most {difference:.1e}, greedy text is equal")
    return read_manifest(out, EXPORT_KIND, EXPORT_FORMAT)


def _note_in_run(run: Path, out: Path, step: int) -> None:
    """Let the run know where it was exported to."""
    events = JsonLines(run / EVENTS_NAME)
    events.append({"time": now(), "event": "export", "step": step, "path": str(out)})
    events.close()


def huggingface_name(name: str) -> str:
    """Llama's spelling of a name: `model.layers.3.mlp.up_proj.weight` for `block_3.mlp.up.weight`."""
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    block, rest = name.split(".", 1)
    return f"model.layers.{block.removeprefix('block_')}.{_LAYER_NAMES[rest]}"


def llama_config(trained: Trained) -> dict[str, Any]:
    """The content of `config.json`."""
    model, special = trained.config.model, trained.tokenizer.special
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": trained.tokenizer.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.mlp_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "max_position_embeddings": trained.config.data.sequence_length,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "rope_theta": model.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": model.tied,
        "bos_token_id": special.document,
        "eos_token_id": special.end,
        "pad_token_id": special.pad,
        "dtype": "float32",
    }


def _write_weights(trained: Trained, stage: StageWriter) -> None:
    weights = {
        huggingface_name(name): parameter.detach().contiguous()
        for name, parameter in trained.model.named_parameters()
    }
    save_file(weights, stage.path("model.safetensors"), metadata={"format": "pt"})


def _write_tokenizer(trained: Trained, stage: StageWriter) -> None:
    stage.path("tokenizer.json").write_text(to_tokenizer_json(trained.tokenizer), encoding="utf-8")
    limits = {"model_max_length": trained.config.data.sequence_length}
    stage.write_json("tokenizer_config.json", tokenizer_config(trained.tokenizer) | limits)


def _prove(trained: Trained, directory: Path) -> float:
    """Load what was written with transformers and compare; returns the largest difference of a logit."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True
    ).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    ours, special = trained.tokenizer, trained.tokenizer.special
    context = trained.config.data.sequence_length
    prompt = ours.encode_document("fortran-free", "axpy.f90", _PROOF_TEXT)[:-1].tolist()[: context // 2]
    new = min(_PROOF_TOKENS, context - len(prompt))  # past its context each side cuts in its own way
    if their_tokenizer.encode(_PROOF_TEXT.decode(), add_special_tokens=False) != ours.encode(_PROOF_TEXT):
        raise DataError(f"{directory}: the exported tokenizer gives other ids; nothing was published")
    with torch.no_grad():
        tokens = torch.tensor([prompt])
        boundaries = torch.tensor([0, len(prompt)], dtype=torch.int32)
        difference = float((theirs(tokens).logits - trained.model(tokens, boundaries)).abs().max())
        if not difference <= _LOGIT_TOLERANCE:
            raise DataError(
                f"{directory}: logits differ by {difference:.1e} after reloading; nothing was published"
            )
        generated = theirs.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, do_sample=False,
            eos_token_id=special.end, pad_token_id=special.pad,
        )[0, len(prompt) :].tolist()  # fmt: skip
    generated = generated[: generated.index(special.end)] if special.end in generated else generated
    mine = generate(trained.model, prompt, new, context, special.end)
    if generated != mine:
        raise DataError(f"{directory}: greedy text differs after reloading; nothing was published")
    return difference
