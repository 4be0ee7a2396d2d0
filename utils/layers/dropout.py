"""Dropout whose masks are cheap: one 64-bit draw serves eight elements.

On a CPU a good part of a training step goes into drawing one random number per element. Here each
element gets 8 bits: the share of dropped elements is `p` to within 1/512, and the scaling of the
kept ones makes the expectation exact. On other devices, compiled, and for a `p` next to 0 or 1,
PyTorch's own is used.
"""

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

LEVELS = 1 << 8


class Linear(Protocol):
    """Anything with the weight (outputs, inputs) and the bias (outputs,) of a linear layer."""

    @property
    def weight(self) -> torch.Tensor: ...
    @property
    def bias(self) -> torch.Tensor: ...


def for_products(x: torch.Tensor) -> torch.Tensor:
    """`x` in the precision that autocast computes matrix products in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def joint(x: torch.Tensor, *layers: Linear) -> tuple[torch.Tensor, ...]:
    """What each layer makes of `x`: (..., inputs) -> (..., outputs) each, parts of one tensor."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).split([len(layer.bias) for layer in layers], -1)


class Dropout(nn.Module):
    """Zeroes elements with probability `p` in training and scales the others; shape unchanged."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        if not is_cheap(x, self.p):
            return F.dropout(x, self.p)
        return x * keep_mask(x.shape, self.p, x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def is_cheap(x: torch.Tensor, p: float) -> bool:
    """Whether the masks below serve to drop elements of `x` with probability `p`."""
    return 0 < round(p * LEVELS) < LEVELS and eager_on_cpu(x)


def eager_on_cpu(x: torch.Tensor) -> bool:
    """Whether `x` is computed on a CPU, operator by operator as written."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """0 with probability `p`, else the factor that keeps the expectation at 1."""
    return keep_bits(shape, p).to(dtype).mul_(keep_scale(p))


def keep_bits(shape: torch.Size, p: float) -> torch.Tensor:
    """0 with probability `p`, else 1, as int8."""
    count = shape.numel()
    # Torch's seed decides, NumPy draws: its SFC64 takes a quarter of the time, and torch's own is
    # drawn by one core alone while the others wait.
    seed = int(torch.empty((), dtype=torch.int64).random_())
    random = np.random.Generator(np.random.SFC64(seed))
    draws = random.integers(-(2**63), 2**63, -(-count // 8), np.int64)
    highest_dropped = round(p * LEVELS) - LEVELS // 2 - 1
    # Arithmetic in place on bytes is many times as fast as comparing them.
    bits = torch.from_numpy(draws.view(np.int8)).clamp_(highest_dropped, highest_dropped + 1)
    return bits.sub_(highest_dropped)[:count].view(shape)


def keep_scale(p: float) -> float:
    """One over the share of elements that are kept."""
    return LEVELS / (LEVELS - round(p * LEVELS))
