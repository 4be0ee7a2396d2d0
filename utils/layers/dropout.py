"""Dropout whose masks are cheap on a CPU: one 64-bit draw serves eight elements.

There a good part of a training step goes into drawing one random number per element. Here each
element gets 8 bits: the share of dropped elements is `p` to within 1/512, and the scaling of the
kept ones makes the expectation exact. On other devices, compiled, and for a `p` next to 0 or 1,
PyTorch's own is used.
"""

import torch
import torch.nn.functional as F
from torch import nn

LEVELS = 1 << 8


class Dropout(nn.Dropout):
    """`nn.Dropout` with cheap masks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return drop(x, self.p) if self.training and self.p else x


def drop(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zeroes elements with probability `p` and scales the others; shape unchanged."""
    on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and 0 < round(p * LEVELS) < LEVELS:
        return x * keep_mask(x.shape, p, x.dtype)
    return F.dropout(x, p)


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """0 with probability `p`, else the factor that keeps the expectation at 1."""
    count, dropped_levels = shape.numel(), round(p * LEVELS)
    draws = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    # Bytes are uniform in [-128, 127]. Arithmetic in place is faster than comparing them.
    highest_dropped = dropped_levels - LEVELS // 2 - 1
    bits = draws.view(torch.int8)[:count].clamp_(highest_dropped, highest_dropped + 1)
    keep = bits.sub_(highest_dropped).view(shape).to(dtype)
    return keep.mul_(LEVELS / (LEVELS - dropped_levels))
