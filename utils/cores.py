"""Independent pieces of inference on a CPU: a core each, rather than all cores on every piece."""

from collections.abc import Callable, Iterable, Iterator

import torch

from utils.threads import Item, Result, ahead


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
