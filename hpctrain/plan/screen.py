"""A forecast as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hpctrain.plan.cost import predict_step, volumes
from hpctrain.plan.forecast import Forecast
from hpctrain.plan.layouts import Candidate, candidates
from hpctrain.train.memory import Layout

SCALES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_GIB = 2**30
_PARTS = (
    "weights", "gradients", "optimizer", "activations", "logits", "head_gradient", "gathered", "reduction",
    "buckets",
)  # fmt: skip


def name_of(layout: Layout) -> str:
    """A layout in a few words."""
    spread = f"ZeRO {layout.zero_stage}"
    if layout.pipeline_stages > 1:
        spread += f", {layout.pipeline_stages} stages"
    micro = f"micro-batch {layout.micro_batch_size}"
    again = {False: "", "cheap": ", recompute cheap", True: ", recompute"}[layout.recompute]
    return f"{spread}, {micro}{again}"


def as_dict(forecast: Forecast) -> dict[str, Any]:
    """The forecast as JSON: all layouts that fit, or the ten nearest, memory by stage in bytes."""
    chosen = forecast.fitting or sorted(forecast.found, key=lambda each: each.peak)[:10]
    return {
        "predicted": True,
        "fits": bool(forecast.fitting),
        "gpu_memory_bytes": forecast.memory_bytes,
        "rates": asdict(forecast.rates),
        "layouts": [_row(forecast, each) for each in chosen],
    }


def _row(forecast: Forecast, candidate: Candidate) -> dict[str, Any]:
    jobs = forecast.jobs(candidate)
    return {
        **asdict(candidate.layout),
        "peak_bytes": candidate.peak,
        "stages": [asdict(memory) for memory in candidate.memory],
        "step_seconds": candidate.step.seconds,
        **{f"{part}_seconds": getattr(candidate.step, part) for part in ("compute", "bubble", "exchange")},
        "sent_bytes": candidate.step.sent,
        "node_hours": jobs.node_hours,
        "jobs": jobs.jobs,
        "earliest_end": jobs.end.isoformat(timespec="seconds"),
    }


def lines(forecast: Forecast, most: int = 12) -> Iterator[str]:
    """The forecast for a terminal."""
    job, rates = forecast.job, forecast.rates
    count = job.model.parameter_count(job.vocab_size)
    yield f"predicted, not measured: {count / 1e6:,.1f}M parameters in {job.precision}"
    yield (
        f"assumed a rank: {rates.flops / 1e12:g} TFLOP/s sustained, {rates.inside / 1e9:g} GB/s in a node, "
        f"{rates.outside / 1e9:g} GB/s between nodes, no overlap; "
        f"{forecast.memory_bytes / _GIB:.1f} GiB usable"
    )
    ranks = rates.ranks_per_node
    yield f"nodes of {forecast.site.name}: {forecast.nodes}, with {ranks} ranks each; {job.steps} steps"
    if not forecast.fitting:
        yield from _nothing(forecast)
        return
    yield f"{len(forecast.fitting)} of {len(forecast.found)} layouts fit; the quickest:"
    yield f"{'layout':52}{'GiB':>8}{'s/step':>10}{'bubble':>8}{'exchange':>9}{'node-h':>11}{'jobs':>6}  end"
    for each in forecast.fitting[:most]:
        step, jobs = each.step, forecast.jobs(each)
        yield (
            f"{name_of(each.layout):52}{each.peak / _GIB:8.1f}{step.seconds:10.4g}"
            f"{step.bubble / step.seconds:8.0%}{step.exchange / step.seconds:9.0%}"
            f"{jobs.node_hours:11,.1f}{jobs.jobs:6d}  {jobs.end:%Y-%m-%d}"
        )
    limit = forecast.limit_seconds
    known = "no time limit is known" if limit is None else f"{limit / 3600:g} h a job"
    yield f"node-hours, jobs and end: {known}, nothing waits in the queue, the first starts now"
    yield from _parts(forecast.fitting[0])


def _parts(candidate: Candidate) -> Iterator[str]:
    yield f"memory of a rank in GiB: {name_of(candidate.layout)}"
    yield f"{'stage':>6}" + "".join(f"{part.replace('_', ' '):>14}" for part in _PARTS) + f"{'peak':>10}"
    for memory in candidate.memory:
        numbers = "".join(f"{getattr(memory, part) / _GIB:14.3f}" for part in _PARTS)
        yield f"{memory.stage:6d}{numbers}{memory.peak / _GIB:10.3f}"
    yield "not all parts are there at once, so the peak is less than their sum"


def _nothing(forecast: Forecast) -> Iterator[str]:
    least = min(forecast.found, key=lambda each: each.peak)
    short = least.peak - forecast.memory_bytes
    yield (
        f"nothing fits: {name_of(least.layout)} comes nearest, with {least.peak / _GIB:.1f} GiB a rank, "
        f"{short / _GIB:.1f} GiB too much"
    )
    yield from _parts(least)
    yield f"what would fit: {_remedy(forecast)}"


def _remedy(forecast: Forecast) -> str:
    ranks = forecast.nodes * forecast.rates.ranks_per_node
    for factor in (2, 4, 8, 16, 32, 64):
        more = candidates(forecast.job, ranks * factor, forecast.rates)
        fitting = [each for each in more if each.peak <= forecast.memory_bytes]
        if fitting:
            return f"--nodes {forecast.nodes * factor} with {name_of(fitting[0].layout)}"
    return "no number of nodes up to 64 times as many: a smaller model, shorter sequences or larger GPUs"


def scaling_lines(forecast: Forecast) -> Iterator[str]:
    """Traffic and step of 8 to 4,096 ranks, with micro-batches of one sequence, two a pipeline stage."""
    job, rates = forecast.job, forecast.rates
    where = f"{rates.ranks_per_node} ranks a node of {forecast.site.name}"
    yield f"predicted, not measured: weak scaling, {where}"
    yield f"{'ranks':>6}{'layout':>20}{'GB sent a rank':>16}{'s/step':>10}{'exchange':>10}"
    for ranks in SCALES:
        for zero, stages in ((1, 1), (2, 1), (3, 1), (1, 4)):
            if stages > job.model.layers + 1:
                continue
            pieces = 2 * stages
            layout = Layout(ranks // stages, stages, zero, 1, pieces, False)
            shape = (job.model, job.vocab_size, job.sequence_length, job.precision, layout)
            step = predict_step(*shape, rates)
            spread = f"ZeRO {zero}" + (f", {stages} stages" if stages > 1 else "")
            yield (
                f"{ranks:6d}{spread:>20}{sum(volumes(*shape)) / 1e9:16.3f}{step.seconds:10.4g}"
                f"{step.exchange / step.seconds:10.0%}"
            )
