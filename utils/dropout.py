"""Dropout whose masks are cheap: one 64-bit draw serves four elements.

On a CPU a good part of a training step goes into drawing one random number per element. Here each
element gets 16 bits; the share of dropped elements is `p` to within 1/65536, and the scaling of the
kept ones makes the expectation exact. On other devices, and compiled, PyTorch's own is used.
"""

import torch
import torch.nn.functional as F
from torch import nn

LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zeroes elements with probability `p` in training and scales the others; shape unchanged."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        return x * keep_mask(x.shape, self.p, x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """0 with probability `p`, else the factor that keeps the expectation at 1."""
    count = shape.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = round(p * LEVELS)
    kept = draws.view(torch.int16)[:count].view(shape) >= dropped - LEVELS // 2
    return kept.to(dtype).mul_(LEVELS / (LEVELS - dropped))
