"""Muon's arithmetic on one whole matrix.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024,
https://kellerjordan.github.io/posts/muon/); scaled after Liu et al., "Muon is Scalable for LLM Training"
(arXiv 2502.16982).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_SMALLEST_NORM = 1e-7


def working_dtype(device: torch.device) -> torch.dtype:
    """bf16 on GPUs, where it is enough and fast; fp32 on CPUs, most of which have no bf16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def orthogonalize(matrix: Tensor) -> Tensor:
    """[R,C] -> [R,C]: singular vectors kept, singular values brought near one (about 0.7 to 1.2).

    Newton-Schulz iterations in the dtype of `matrix`; singular values below a thousandth of the matrix's
    norm come out smaller, and zeros stay zeros.
    """
    linear, cubic, quintic = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if is_tall else matrix
    # In fp64 on CPUs: torch's own fp32 norm there depends on the number of threads.
    precise = torch.float64 if matrix.dtype == torch.float32 else torch.float32
    norm = torch.linalg.vector_norm(wide, dtype=precise).clamp(min=_SMALLEST_NORM)
    wide = wide / norm.to(wide.dtype)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        polynomial = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        wide = torch.addmm(wide, polynomial, wide, beta=linear)
    return wide.T if is_tall else wide


def update_scale(shape: Sequence[int]) -> float:
    """Factor by which an orthogonal matrix gets the root mean square of a typical AdamW update, 0.2."""
    return 0.2 * math.sqrt(max(shape))


def cost(shape: Sequence[int]) -> int:
    """Multiplications of `orthogonalize`, up to a constant."""
    narrow, wide = sorted(shape)
    return narrow * narrow * (2 * wide + narrow)
