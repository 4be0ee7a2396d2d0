"""How many pieces a batch has to be computed in to fit a GPU's memory."""

import math
from collections.abc import Callable

import torch

from utils.base.errors import UserError

FEW, MORE = 4, 8  # queries that are measured
USABLE = 0.9  # of what is free: the allocator loses some, and some batches are larger


def pieces_that_fit(queries: int, peak: Callable[[int], int], free: int) -> int:
    """The fewest pieces of `queries` that fit into `free` bytes.

    `peak` gives the bytes that a step on so many queries takes beside the weights; what it takes
    grows evenly with their number.
    """
    if queries <= MORE:
        return 1
    few, more = peak(FEW), peak(MORE)
    each = max(1, (more - few) / (MORE - FEW))
    fixed = few - FEW * each
    fit = int((USABLE * free - fixed) / each)
    if fit < 1:
        raise UserError(
            f"a step on one query takes {(fixed + each) / 1e9:.1f} GB of GPU memory, and "
            f"{free / 1e9:.1f} GB are free"
        )
    return math.ceil(queries / fit)


def measured_peak(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes that the work takes on a GPU at once, beside what is there before."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on the GPU."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
