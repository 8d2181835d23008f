"""The one place that spells DeepSpeed's config keys."""

from __future__ import annotations

from typing import Any

from hpctrain.engine.base import Precision
from hpctrain.parallel.topology import ParallelConfig, Topology

BUCKET_ELEMENTS = 100_000_000
"""Of a buffer that gradients are summed in. DeepSpeed's 500 million would take gigabytes of each GPU, and
leave a model of a billion parameters little to overlap with its backward."""


def deepspeed_config(
    parallel: ParallelConfig,
    topology: Topology,
    precision: Precision,
    micro_batch_size: int,
    accumulation_steps: int,
    clip_norm: float,
) -> dict[str, Any]:
    """The dictionary that `deepspeed.initialize` takes.

    ZeRO-1 is the least that is offered: stage 0 is wrong in bf16 with a client's Adam, and in a pipeline it
    clips by the norm of one stage only.
    """
    return {
        "train_batch_size": micro_batch_size * accumulation_steps * topology.data_parallel_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": clip_norm,
        "bf16": {"enabled": precision != "fp32"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": parallel.zero_stage,
            "overlap_comm": parallel.zero_stage > 1,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "memory_efficient_linear": False,
        },
        "zero_allow_untested_optimizer": True,  # torch's fused AdamW, which needs no compiler at run time
        "steps_per_print": 1_000_000_000,  # the loop reports, not DeepSpeed
    }
