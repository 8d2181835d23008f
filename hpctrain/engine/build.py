"""The only switch between engines."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Iterator, Sequence
from functools import partial

import deepspeed
import torch
import torch._dynamo
from torch import nn

from hpctrain.engine.base import Engine, OptimizerConfig, Precision
from hpctrain.engine.deepspeed_config import deepspeed_config
from hpctrain.engine.muon import Muon
from hpctrain.engine.optimizer import make_optimizer
from hpctrain.engine.pipeline import LayerPipeline, PipelineEngine
from hpctrain.engine.zero import ZeroEngine
from hpctrain.model.compiled import compile_blocks
from hpctrain.model.loss import next_token_loss
from hpctrain.model.transformer import Layer, Transformer
from hpctrain.parallel.topology import ParallelConfig, Topology


def build_engine(
    layers: Sequence[Layer],
    layer_costs: Sequence[int],
    parallel: ParallelConfig,
    topology: Topology,
    optimizer: OptimizerConfig,
    *,
    device: torch.device,
    precision: Precision,
    micro_batch_size: int,
    accumulation_steps: int,
    counted_share: float = 1.0,
    compiled: bool = False,
) -> Engine:
    """Build the model, its optimizer and the DeepSpeed engine for this rank; a collective call.

    `layer_costs`: relative cost of each layer, by which a pipeline is cut. `counted_share`: of the positions,
    see `next_token_loss`. `compiled`: whether blocks are, see `compile_blocks`.
    """
    loss = partial(next_token_loss, counted_share=counted_share)
    # DeepSpeed keeps the last pipeline's groups in a global, and would place the next engine by them.
    deepspeed.utils.groups.mpu = None
    _import_muon()
    with _quiet():
        model: nn.Module = (
            LayerPipeline(layers, layer_costs, parallel.pipeline_stages, loss)
            if parallel.pipeline_stages > 1
            else Transformer(layers, loss).to(device)
        )
        if compiled:
            compile_blocks(model, gathers_weights=parallel.zero_stage == 3)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=make_optimizer(model, optimizer),
            config=deepspeed_config(
                parallel, topology, precision, micro_batch_size, accumulation_steps, optimizer.clip_norm
            ),
            dist_init_required=False,
        )
    if isinstance(engine.optimizer.optimizer, Muon):
        engine.optimizer.optimizer.attach(engine.optimizer)
    if parallel.pipeline_stages > 1:
        return PipelineEngine(engine, topology, layers)
    return ZeroEngine(engine, topology, device)


def _import_muon() -> None:
    """Import DeepSpeed's Muon, as `initialize` does, without the whole compiler that its decorators import.

    That import was nearly half of `initialize`, on every rank, for an optimizer that is not used here.
    """
    compile_as_usual = torch.compile
    torch.compile = lambda function=None, **options: function or (lambda each: each)  # type: ignore[assignment]
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
    finally:
        torch.compile = compile_as_usual


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep DeepSpeed's chatter out of the log; its warnings and errors stay."""
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_news)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning tells anything: it does not know our Muon, which `verify layouts` proves."""
    return "untested optimizer" not in record.getMessage()
