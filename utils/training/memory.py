"""Into how many pieces a batch is cut to fit a GPU's memory."""

import math
from collections.abc import Callable

import torch

from utils.base.errors import UserError

FEW_QUERIES, MORE_QUERIES = 4, 8  # sizes of the measured steps
USABLE = 0.9  # share of the free memory: the allocator loses some, and some batches are larger


def pieces_that_fit(queries: int, peak: Callable[[int], int], free: int) -> int:
    """The fewest pieces of `queries` that fit into `free` bytes.

    `peak(n)` measures the bytes that a step on n queries takes beside the weights, which grow
    linearly with n. Raises UserError if one query does not fit.
    """
    if queries <= MORE_QUERIES:
        return 1
    few_bytes, more_bytes = peak(FEW_QUERIES), peak(MORE_QUERIES)
    query_bytes = max(1, (more_bytes - few_bytes) / (MORE_QUERIES - FEW_QUERIES))
    fixed_bytes = few_bytes - FEW_QUERIES * query_bytes
    most_queries = int((USABLE * free - fixed_bytes) / query_bytes)
    if most_queries < 1:
        raise UserError(
            f"a step on one query takes {(fixed_bytes + query_bytes) / 1e9:.1f} GB of GPU memory, "
            f"and {free / 1e9:.1f} GB are free"
        )
    return math.ceil(queries / most_queries)


def measured_peak(device: torch.device, work: Callable[[], object]) -> int:
    """The most bytes of GPU memory that `work()` takes at a time, beside those allocated before."""
    allocated = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - allocated


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on the GPU."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
