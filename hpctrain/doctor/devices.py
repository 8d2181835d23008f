"""What the ranks compute on, and whether it computes right."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpctrain.doctor.finding import Finding, amount
from hpctrain.doctor.subject import Subject

if TYPE_CHECKING:
    import torch

_MATRIX = 512
_FREE_SHARE = 0.9
# Relative errors of a product against fp64: far above rounding (TF32 included), far below a flipped exponent.
_TOLERANCES = {"float32": 2e-3, "bfloat16": 2e-2}


def accelerator(subject: Subject) -> Iterator[Finding]:
    """The GPU that this rank takes: it is there, it has a rank, and nobody else fills it."""
    import torch

    if not torch.cuda.is_available():
        yield _no_gpu(subject)
        return
    count, local = torch.cuda.device_count(), subject.world.local_rank
    if local >= count:
        remedy = "each rank must see all GPUs of its node: no --gpus-per-task or --gpu-bind; or start fewer"
        yield Finding("GPU", f"local rank {local} sees only {count}", "wrong", remedy)
        return
    properties = torch.cuda.get_device_properties(local)
    text = f"{count} a node: {properties.name}, {amount(properties.total_memory)}"
    ranks = len(subject.here)
    if ranks < count:
        text = f"{text}; {count - ranks} without a rank"
        yield Finding("GPU", text, "warning", f"start {count} ranks a node")
    else:
        yield Finding("GPU", text)


def memory(subject: Subject) -> Iterator[Finding]:
    """Whether the GPU's memory is free for this rank."""
    import torch

    if not _has_gpu(subject):
        return
    free, total = torch.cuda.mem_get_info(subject.world.local_rank)
    if free > _FREE_SHARE * total:
        yield Finding("GPU memory", f"over {100 * _FREE_SHARE:.0f}% free")
    else:
        text = f"{100 * free // total}% free"
        yield Finding("GPU memory", text, "warning", "another process uses this GPU: nvidia-smi, rocm-smi")


def _has_gpu(subject: Subject) -> bool:
    import torch

    return torch.cuda.is_available() and subject.world.local_rank < torch.cuda.device_count()


def _no_gpu(subject: Subject) -> Finding:
    """CPU ranks are fine, unless the node has GPUs that torch cannot use."""
    import torch

    promised = subject.environment.get("SLURM_GPUS_ON_NODE", "0")
    present = [path for path in ("/dev/nvidia0", "/dev/kfd") if Path(path).exists()]
    if not present and promised in ("", "0"):
        return Finding("GPU", "none: ranks compute on the CPU")
    why = f"the job has {promised} on this node" if not present else f"{present[0]} is there"
    built = torch.version.cuda or torch.version.hip
    remedy = (
        "its driver is too old for this torch, or the GPUs are hidden (CUDA_VISIBLE_DEVICES)"
        if built
        else "this torch is a CPU build: install one for the GPUs (TORCH=site launch/install.sh)"
    )
    return Finding("GPU", f"{why}, but torch {torch.__version__} sees none", "wrong", remedy)


def product(subject: Subject) -> Iterator[Finding]:
    """Multiply two matrices as training would, and compare with fp64 on the CPU."""
    import torch

    device = torch.device("cuda", subject.world.local_rank) if _has_gpu(subject) else torch.device("cpu")
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(_MATRIX, _MATRIX, generator=generator, dtype=torch.float64) for _ in "ab")
    exact = a @ b
    errors = {name: _error(a, b, exact, getattr(torch, name), device) for name in _TOLERANCES}
    bad = [f"{name} is off by {error:.1e}" for name, error in errors.items() if not error < _TOLERANCES[name]]
    if bad:
        remedy = f"this device computes wrong: leave node {subject.host} out (sbatch --exclude) and report it"
        yield Finding("product", f"{device}: {', '.join(bad)}", "wrong", remedy)
    else:
        yield Finding(
            "product", f"matrix products in {' and '.join(errors)} on {device.type} agree with fp64"
        )


def _error(
    a: torch.Tensor, b: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype, device: torch.device
) -> float:
    result = (a.to(device, dtype) @ b.to(device, dtype)).cpu().to(exact.dtype)
    return float((result - exact).norm() / exact.norm())


def health(subject: Subject) -> Iterator[Finding]:
    """What nvidia-smi knows of this rank's GPU: driver, memory errors, other processes."""
    import torch

    if not _has_gpu(subject):
        return
    if shutil.which("nvidia-smi") is None:
        remedy = "driver, memory errors and other processes can be seen only with nvidia-smi"
        yield Finding("GPU health", "no nvidia-smi here", "skipped", remedy)
        return
    uuid = f"GPU-{torch.cuda.get_device_properties(subject.world.local_rank).uuid}"
    rows = _smi(subject, "--query-gpu=uuid,driver_version,ecc.errors.uncorrected.volatile.total")
    mine = [row for row in rows if row[0] == uuid]
    if not mine:
        yield Finding(
            "GPU health", f"nvidia-smi does not list {uuid}", "skipped", "is it a part of a GPU (MIG)?"
        )
        return
    _, driver, uncorrected = mine[0]
    yield Finding("GPU driver", driver)
    if uncorrected.isdigit() and int(uncorrected) > 0:
        remedy = f"the GPU's memory fails: leave node {subject.host} out (sbatch --exclude) and report it"
        yield Finding("GPU health", f"{uncorrected} uncorrected memory errors", "wrong", remedy)
    else:
        state = (
            "no uncorrected memory errors"
            if uncorrected.isdigit()
            else "memory errors are not counted (ECC off)"
        )
        yield Finding("GPU health", state)
    yield from _others(subject, uuid)


def _others(subject: Subject, uuid: str) -> Iterator[Finding]:
    """Processes on the GPU that are none of this world's ranks."""
    rows = _smi(subject, "--query-compute-apps=gpu_uuid,pid,process_name")
    pids = [int(row[1]) for row in rows if row[0] == uuid and row[1].isdigit()]
    ours = {each.pid for each in subject.here}
    if not ours & set(pids):
        return  # in a container, nvidia-smi shows no processes or other numbers for them
    if others := sorted(set(pids) - ours):
        text = f"process {', '.join(map(str, others))} is on it too"
        yield Finding("GPU sharing", text, "warning", f"end it, or ask for whole nodes (node {subject.host})")


def _smi(subject: Subject, query: str) -> list[list[str]]:
    said = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True, timeout=subject.request.patience_seconds,
    )  # fmt: skip
    return [[cell.strip() for cell in line.split(",")] for line in said.stdout.splitlines() if line.strip()]
