"""The machine: devices, threads and freed memory."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from utils.base.errors import UserError, in_brief
from utils.base.lazy import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MALLOC_OPTIONS = {  # of mallopt(3)
    -1: 2**30,  # M_TRIM_THRESHOLD: keep 1 GiB of freed memory
    -3: 2**25,  # M_MMAP_THRESHOLD: map no block below 32 MiB, the most that glibc accepts
    -8: 1,  # M_ARENA_MAX
}


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory; False if it does not accept this.

    By default glibc returns large freed tensors to the system, and each step waits for zeroed pages
    again: up to a fifth of a step on a CPU in bfloat16. Further arenas of threads would be returned
    regardless.
    """
    library = ctypes.CDLL(None)
    return all(library.mallopt(option, value) for option, value in MALLOC_OPTIONS.items())


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU if there is one.

    Raises UserError if the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # fails if there is no such device
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        names = "cpu, cuda or auto" if torch.cuda.is_available() else "cpu or auto"
        raise UserError(
            f"--device {name} is not available here ({in_brief(error, 60)}); give {names}"
        ) from None
    return device


def each_on_a_core(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """Map `work` over the items in order: on a CPU one item per core, elsewhere one at a time.

    Cores that share a small matrix product wait for each other: on two cores this saves a third of
    ReLER's inference time. `work` must enter the modes of its thread (inference, autocast).
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        yield from map(work, items)
        return
    try:
        yield from ahead(work, items, cores, begin=lambda: torch.set_num_threads(1))
    finally:
        torch.set_num_threads(cores)  # of this thread, and of threads that start later


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    begin: Callable[[], object] | None = None,
    waiting: int | None = None,
) -> Iterator[Result]:
    """Map `work` over the items in order, in threads that are `waiting` (2 * threads) items ahead.

    Each thread calls `begin` first.
    """
    waiting = waiting or 2 * threads
    pending: deque = deque()
    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > waiting:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()
