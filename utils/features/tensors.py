"""Tensors that batches are gathered from: mapped on the host, or copied to a GPU.

Either way a batch is `tensor[index]`. On the host the tensor is a view of the mapped file, of which
only the indexed rows are read. On a GPU only row numbers are sent to the device in a step.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from utils.base.lazy import torch

RESERVE = 0.4  # of a GPU's memory that arrays leave free, for the steps
STEP = 16  # query tokens; most queries have fewer


class Inputs(NamedTuple):
    """What a model reads: B clips of T rows or units, queries of Q tokens."""

    video: torch.Tensor  # (B, T, F)
    video_mask: torch.Tensor  # (B, T)
    text: torch.Tensor  # (B, Q, E)
    text_mask: torch.Tensor  # (B, Q)


def in_steps(length: int, most: int | None = None) -> int:
    """The next multiple of `STEP`, and no more than `most`."""
    stepped = -(-length // STEP) * STEP
    return stepped if most is None else min(stepped, most)


def pad_to(x: torch.Tensor, length: int) -> torch.Tensor:
    """(B, N, ...) -> (B, length, ...), zeros after what is there."""
    return torch.nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, length - x.shape[1]))


def to_device(values: np.ndarray | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The values on the device; a GPU copies them from pinned memory, and nothing waits for it."""
    device = torch.device(device)
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == tensor.device.type:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def resident(
    array: np.ndarray, device: torch.device | str = "cpu", policy: str = "cpu"
) -> torch.Tensor:
    """The array as a tensor, mapped on the host or copied to the device.

    `policy`: `cpu` keeps it on the host, `cuda` brings it to the device, `auto` does so if the
    device is a GPU that has room.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the mapping is read-only, and only read
        mapped = torch.from_numpy(array)
    device = torch.device(device)
    if policy == "cpu" or device.type == "cpu":
        return mapped
    if policy == "auto":
        free, total = torch.cuda.mem_get_info(device)
        if array.nbytes > free - RESERVE * total:
            return mapped
    return mapped.to(device)


def take(
    table: torch.Tensor, rows: np.ndarray, device: torch.device | str, length: int | None = None
) -> torch.Tensor:
    """`table[rows]` on the device, indexed where the table lies.

    `length`: only so much of the second dimension.
    """
    index = to_device(rows, table.device)
    return to_device(table[index] if length is None else table[index, :length], device)
