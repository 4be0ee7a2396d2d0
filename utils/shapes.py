"""Tensors of few different shapes: a compiled model is compiled anew for each."""

import torch
import torch.nn.functional as F

STEP = 16  # query tokens; most queries have fewer


def in_steps(length: int, most: int | None = None) -> int:
    """The next multiple of `STEP`, and no more than `most`."""
    stepped = -(-length // STEP) * STEP
    return stepped if most is None else min(stepped, most)


def pad_to(x: torch.Tensor, length: int) -> torch.Tensor:
    """(B, N, ...) -> (B, length, ...), zeros after what is there."""
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, length - x.shape[1]))
