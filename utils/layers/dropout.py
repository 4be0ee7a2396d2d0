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
        if not self.training or self.p == 0:
            return x
        if not is_cheap(x, self.p):
            return F.dropout(x, self.p)
        return x * keep_mask(x.shape, self.p, x.dtype)


def is_cheap(x: torch.Tensor, p: float) -> bool:
    """Whether elements of `x` can be dropped with probability `p` by the masks below."""
    eager_on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return eager_on_cpu and 0 < round(p * LEVELS) < LEVELS


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """0 with probability `p`, else the factor that keeps the expectation at 1."""
    return keep_bits(shape, p).to(dtype).mul_(keep_scale(p))


def keep_bits(shape: torch.Size, p: float) -> torch.Tensor:
    """0 with probability `p`, else 1, as int8."""
    count = shape.numel()
    draws = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    # Bytes are uniform in [-128, 127]. Arithmetic in place is faster than comparing them.
    highest_dropped = round(p * LEVELS) - LEVELS // 2 - 1
    bits = draws.view(torch.int8)[:count].clamp_(highest_dropped, highest_dropped + 1)
    return bits.sub_(highest_dropped).view(shape)


def keep_scale(p: float) -> float:
    """One over the share of elements that are kept."""
    return LEVELS / (LEVELS - round(p * LEVELS))
