"""Freed memory stays with the process, so that the next step's tensors need no new pages."""

import ctypes
import sys

# What glibc calls them; see mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT, IN_ONE_PIECE = 2**30, 2**25  # bytes; the second is the most that glibc takes


def keep_freed_memory() -> bool:
    """Ask the C library not to hand freed memory back; False if it is not glibc, or refuses.

    By default it gives large tensors back to the system when they are freed, and each step pays
    for zeroed pages anew: up to a fifth of a step on a CPU in bfloat16. Threads share one arena,
    for those of their own would be handed back all the same.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wishes = {TRIM_THRESHOLD: KEPT, MMAP_THRESHOLD: IN_ONE_PIECE, ARENA_MAX: 1}
    return not [name for name, value in wishes.items() if not mallopt(name, value)]
