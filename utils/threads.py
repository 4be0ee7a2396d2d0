"""Independent pieces of inference on a CPU: a core each, rather than all cores on every piece.

Cores that share each small product wait for each other, above all in bfloat16: with two of them
ReLER's inference gains a third. On other devices the pieces are done one after another.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_on_a_core(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """`work` of each item, in their order, as many at once as torch has threads.

    Only a few items are done ahead. Modes that belong to a thread (inference, autocast) have to be
    entered within `work`.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        yield from map(work, items)
        return
    waiting: deque = deque()
    try:
        with ThreadPoolExecutor(cores, initializer=lambda: torch.set_num_threads(1)) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(work, item))
                    if len(waiting) > 2 * cores:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for task in waiting:
                    task.cancel()
    finally:
        torch.set_num_threads(cores)  # the number is this thread's own, and what others start with
