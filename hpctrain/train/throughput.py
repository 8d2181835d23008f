"""What a step's seconds come to: tokens per second, the share spent waiting for data, and MFU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hpctrain.train.config import RunConfig

# Dense bf16 matrix products in TFLOP/s, by the vendors' data sheets; a device is one of an MI250X's two dies.
# The first pattern that is found in the device's name counts. Leonardo's A100 is not that of the data sheet.
_PEAKS = (
    (r"\bB200\b", 2250.0),
    (r"\bGH200\b", 989.4),
    (r"\bH200 NVL\b", 835.5),
    (r"\bH200\b", 989.4),
    (r"\bH100 PCIe\b", 756.5),
    (r"\bH100 NVL\b", 835.5),
    (r"\bH100\b", 989.4),
    (r"\bA100\b(?!-SXM-64GB)", 312.0),
    (r"\bL40S\b", 362.0),
    (r"\bA40\b", 149.7),
    (r"\bMI300X\b", 1307.4),
    (r"\bMI300A\b", 980.6),
    (r"\bMI250X\b", 191.5),
    (r"\bMI250\b", 181.0),
    (r"\bMI210\b", 181.0),
)


def peak_tflops(device_name: str) -> float | None:
    """The bf16 peak of a device in TFLOP/s by its name, without sparsity; None if it is not known."""
    return next((peak for pattern, peak in _PEAKS if re.search(pattern, device_name)), None)


@dataclass(frozen=True)
class Throughput:
    """Turns the seconds of a step into its numbers. MFU is left out where `peak` is None."""

    tokens: int
    """Of a global batch."""
    peak: float | None
    """FLOP/s of all devices together."""
    flops: int
    """Of forward and backward for one token: 6 P + 12 L D S."""
    causal_flops: int
    """The same with half of the attention's products, all that a causal mask leaves: 6 P + 6 L D S."""

    def of_step(self, seconds: float, waited: float) -> dict[str, float]:
        """The numbers of a step that took so long, `waited` seconds of it for data."""
        rate = self.tokens / seconds
        numbers = {
            "tokens_per_second": round(rate, 1),
            "step_seconds": round(seconds, 5),
            "data_wait_share": round(min(1.0, waited / seconds), 5),
        }
        if self.peak is not None:
            numbers["mfu"] = round(rate * self.flops / self.peak, 5)
            numbers["mfu_causal"] = round(rate * self.causal_flops / self.peak, 5)
        return numbers


def measure(config: RunConfig, vocab_size: int, ranks: int, device_name: str) -> Throughput:
    """How the steps of a run are measured. `device_name`: of each rank's device, empty on a CPU.

    In fp8 MFU is by the bf16 peak, as only the products of the blocks are in fp8. There is no MFU where the
    peak is not known: in fp32 it is only what `log.peak_tflops` says. Neither is there with an adapter, whose
    frozen weights need fewer operations.
    """
    known = peak_tflops(device_name) if config.train.precision != "fp32" else None
    each = config.log.peak_tflops or known
    length, model = config.data.sequence_length, config.model
    flops = model.flops_per_token(vocab_size, length)
    return Throughput(
        tokens=config.train.global_batch_size * length,
        peak=None if each is None or config.adapter is not None else each * 1e12 * ranks,
        flops=flops,
        causal_flops=flops - 6 * model.layers * model.query_size * length,
    )


def describe(record: dict[str, Any]) -> str:
    """The numbers of a step in words, those that its line of metrics has."""
    words = [f"{record['tokens_per_second']:,.0f} tokens/s"]
    if "mfu" in record:
        words.append(f"MFU {record['mfu']:.1%}")
    words.append(f"{record['data_wait_share']:.1%} waiting for data")
    return ", ".join(words)
