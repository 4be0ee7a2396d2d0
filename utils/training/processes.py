"""Processes: the same program on one CPU, one GPU, or many of either under torchrun.

Launched plainly a program is one process. Under `torchrun` or `torch.distributed.launch --use_env`
each process finds its rank in the environment; GPUs talk over nccl, CPUs over gloo. Small things
that the programs themselves agree on always go over gloo, so that they do not wait for a GPU.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# How long processes wait for each other: stores may be built by one of them for hours. One that
# dies is noticed at once.
PATIENCE = timedelta(hours=12)


# SIGUSR1 and SIGUSR2 are what clusters send some time before they take the machine away.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal came in the middle of something that can be left at once.

    Like `KeyboardInterrupt` no `Exception`, so that nothing on the way takes it for an error.
    """


class StopSignals:
    """Remembers the signal that came; as a context it takes the handlers over, and gives them back.

    A SIGTERM that somebody else listens to is left to them: under SLURM it precedes the signal
    that asks for a requeue.
    """

    def __init__(self) -> None:
        self.received = 0  # the signal's number, 0 for none
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        usual = (signal.SIG_DFL, signal.SIG_IGN)
        for number in STOPPING:
            before = signal.getsignal(number)
            if number != signal.SIGTERM or before in usual:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._at_once:
            self._at_once = False
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises `Stopped` wherever the program is."""
        self._at_once = True
        try:
            if self.received:
                raise Stopped
            yield
        finally:
            self._at_once = False


@dataclass(frozen=True)
class Processes:
    """This process among its peers: `rank` of `size`, computing on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    def shard(self, rows: np.ndarray) -> np.ndarray:
        """This process's equal share of a batch; rows that do not divide evenly are left out."""
        share = len(rows) // self.size
        return rows[self.rank * share : (self.rank + 1) * share]

    def gather(self, value: Any) -> list:
        """The values of all processes, in rank order, on each of them."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def hand_on(self, value: Any) -> Any:
        """The main process's value, on each of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather_rows(self, rows: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
        """All processes' columns in the order of their row numbers, on each of them."""
        shares = zip(*self.gather((rows, *columns)), strict=True)
        rows, *columns = (np.concatenate(share) for share in shares)
        order = np.argsort(rows)
        return tuple(column[order] for column in columns)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def largest(self, *values: int) -> list[int]:
        """The largest of each value over all processes; all of them get the same answer."""
        if self.size == 1:
            return list(values)
        agreed = torch.tensor(values)
        dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
        return agreed.tolist()

    def share_largest(self, value: torch.Tensor) -> None:
        """The same for a tensor on the device, in place, without waiting for it."""
        if self.size > 1:
            dist.all_reduce(value, op=dist.ReduceOp.MAX)

    def close(self) -> None:
        """Leave the group; the program may end."""
        if self.size > 1:
            dist.destroy_process_group()


def start_processes() -> Processes:
    """Join the peers that the launcher's environment names, or stand alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_launcher()
    if size > 1:
        _meet("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", rank, size)
    return Processes(rank, size, device)


def restarted() -> bool:
    """Whether torchrun or SLURM started this program again, after a process or a machine died."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(os.environ.get(name, "0")) > 0 for name in counts)


def lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _meet(backend: str, rank: int, size: int) -> None:
    """Join the group, away from what the processes of an earlier start told each other.

    When torchrun starts processes again their addresses may still be in its store, and whoever is
    first would knock at the door of a dead one.
    """
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"start {start}", store)
    dist.init_process_group(backend, timeout=PATIENCE, store=own, rank=rank, world_size=size)


def _end_with_launcher() -> None:
    """Get a SIGTERM when torchrun dies: killed, it could not send one."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
