"""The machine: its devices, work done in threads, and freed memory."""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from utils.base.errors import UserError, in_brief
from utils.base.lazy import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# What glibc calls them; see mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT, IN_ONE_PIECE = 2**30, 2**25  # bytes; the second is the most that glibc takes


def keep_freed_memory() -> bool:
    """Ask the C library not to hand freed memory back; False if it is not glibc, or refuses.

    By default it returns large freed tensors to the system, and each step pays for zeroed pages
    again: up to a fifth of a step on a CPU in bfloat16. Threads share one arena, because arenas of
    their own would be returned all the same.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {TRIM_THRESHOLD: KEPT, MMAP_THRESHOLD: IN_ONE_PIECE, ARENA_MAX: 1}
    return not [name for name, value in settings.items() if not mallopt(name, value)]


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU if there is one.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # a known kind may still not be here
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        known = "cpu, cuda or auto" if torch.cuda.is_available() else "cpu or auto"
        raise UserError(
            f"--device {name} is not available here ({in_brief(error, 60)}); give {known}"
        ) from None
    return device


def each_on_a_core(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """`work` of each item, in their order: on a CPU a core each, elsewhere one after another.

    Cores that share each small product wait for each other, above all in bfloat16: with two of them
    ReLER's inference gains a third. Modes that belong to a thread (inference, autocast) have to be
    entered within `work`.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        yield from map(work, items)
        return
    try:
        yield from ahead(work, items, cores, begin=lambda: torch.set_num_threads(1))
    finally:
        torch.set_num_threads(cores)  # the number is this thread's own, and what others start with


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    begin: Callable[[], object] | None = None,
    waiting: int | None = None,
) -> Iterator[Result]:
    """`work` of each item, in their order, done ahead: at most `waiting` items (two a thread).

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
