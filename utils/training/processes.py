"""Processes: the same program on one CPU, one GPU, or many of either under torchrun.

Without a launcher a program is one process. Under `torchrun` or `torch.distributed.launch
--use_env` each process finds its rank in the environment. GPU tensors are exchanged over nccl, CPU
tensors and Python objects over gloo, which does not wait for a GPU.
"""

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from utils.base.errors import LAUNCHED, PEER_LOST, UserError, complain, in_brief
from utils.training.peers import FOLLOWED, Peers

# How long processes wait for each other. A process that dies is noticed immediately.
START_PATIENCE = timedelta(hours=12)  # a process may build stores for hours
STEP_PATIENCE = timedelta(minutes=30)
DEVICE_PATIENCE = timedelta(minutes=1)  # for the steps that a GPU was given

# Clusters send SIGUSR1 or SIGUSR2 some time before they end a job.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal arrived where the program may be interrupted.

    Like `KeyboardInterrupt` it is not an `Exception`, so that no handler takes it for an error.
    """


class StopSignals:
    """A context that handles stop signals, and remembers the first one.

    A SIGTERM that already has a handler keeps it: under SLURM it precedes the signal that asks for
    a requeue. A SIGHUP that is ignored (`nohup`) stays ignored.
    """

    def __init__(self) -> None:
        self.received = 0  # the signal's number, 0 for none
        self._interrupts = False
        self._handlers: dict[int, object] = {}  # to restore

    def __enter__(self) -> "StopSignals":
        defaults = (signal.SIG_DFL, signal.SIG_IGN)
        for number in STOPPING:
            handler = signal.getsignal(number)
            is_handled = number == signal.SIGTERM and handler not in defaults
            is_ignored = number == signal.SIGHUP and handler == signal.SIG_IGN
            if not (is_handled or is_ignored):
                self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._interrupts:
            self._interrupts = False
            raise Stopped

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise `Stopped` when a signal arrives, or has arrived before."""
        self._interrupts = True
        try:
            if self.received:
                raise Stopped
            yield
        finally:
            self._interrupts = False


class Share(NamedTuple):
    """The part of a batch that one process computes in one piece."""

    rows: np.ndarray  # (N,) row numbers of the whole batch
    positions: np.ndarray  # (n,) of the part, in `rows`
    processes: int

    @property
    def weight(self) -> float:
        """Weight of a mean over the part in the process's share of the mean over the batch."""
        return len(self.positions) * self.processes / len(self.rows)


class LostPeer(Exception):
    """Another process ended or did not answer; the message says what was saved."""


@dataclass
class Processes:
    """This process among its peers: `rank` of `size`, computing on `device`.

    As a context it leaves the group at the end. When another process was lost, it prints which and
    ends the program with exit code `PEER_LOST`.
    """

    rank: int
    size: int
    device: torch.device
    peers: Peers | None = None
    group: dist.ProcessGroup | None = None  # None: the default one
    patience: timedelta = START_PATIENCE

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, _: type | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.peers is None:
            return
        if error is None:
            self.peers.end("done")
            dist.destroy_process_group()
        elif isinstance(error, LostPeer) or is_lost_peer(error):
            self.give_up(error)
        else:
            exits = isinstance(error, SystemExit)
            self.peers.end(f"exit code {error.code}" if exits else in_brief(error))

    def give_up(self, error: BaseException) -> NoReturn:
        """End the program because of a lost process."""
        is_timeout = re.search("timed out|timeout", str(error.__cause__ or error), re.IGNORECASE)
        # The launcher, if there is one, reports how a process ended.
        if is_timeout or LAUNCHED not in os.environ:
            saved = [str(error)] if isinstance(error, LostPeer) and str(error) else []
            if account := self.peers.account(self.patience):
                complain("; ".join([account, *saved, "give the same command again"]))
        self.peers.end(FOLLOWED)
        sys.exit(PEER_LOST)

    def tell(self, activity: str) -> None:
        """Report what this process does, for the message of a process that waits for it."""
        if self.peers is not None:
            self.peers.activity = activity

    def shorten_patience(self) -> None:
        """Wait for another process no longer than `STEP_PATIENCE` from now on."""
        self.patience = STEP_PATIENCE
        if self.size > 1:
            self.group = dist.new_group(timeout=self.patience)

    def device_finishes(self) -> bool:
        """Whether the device completes what it was given.

        A GPU that waits for the gradients of a lost process does not; its group is aborted.
        """
        if self.device.type == "cpu":
            return True
        end = torch.cuda.Event()
        end.record()
        deadline = time.monotonic() + DEVICE_PATIENCE.total_seconds()
        while not end.query():
            if time.monotonic() > deadline:
                dist.group.WORLD.abort()
                return False
            time.sleep(0.1)
        return True

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def shard(self, rows: np.ndarray) -> np.ndarray:
        """This process's equal part of a batch; the remainder of the division is left out."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def shares(self, rows: np.ndarray, pieces: int = 1) -> list[Share]:
        """This process's part of a batch in at most `pieces` pieces, none of them empty."""
        rows = rows[: len(rows) // self.size * self.size]
        positions = self.shard(np.arange(len(rows)))
        parts = np.array_split(positions, min(pieces, len(positions)))
        return [Share(rows, part, self.size) for part in parts]

    def gather(self, value: Any) -> list:
        """The values of all processes in rank order, on each process."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: Any) -> Any:
        """The main process's value, on each process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, self.group, torch.device("cpu"))
        return values[0]

    def gather_rows(self, rows: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
        """The columns of all processes, sorted by row number, on each process."""
        parts = zip(*self.gather((rows, *columns)), strict=True)
        rows, *columns = map(np.concatenate, parts)
        order = np.argsort(rows)
        return tuple(column[order] for column in columns)

    def average(self, tensors: Sequence[torch.Tensor | None]) -> None:
        """Replace tensors by their means over all processes.

        They are reduced as one tensor: with the same layout every time sums are rounded in the same
        way, also in a run that was stopped and continued.
        """
        if self.size == 1:
            return
        present = [tensor for tensor in tensors if tensor is not None]
        joined = parameters_to_vector(present)
        dist.all_reduce(joined, group=self.group)
        vector_to_parameters(joined / self.size, present)

    def barrier(self) -> None:
        self.largest(0)

    def largest(self, *values: int) -> list[int]:
        """The maximum of each value over all processes, on each process."""
        if self.size == 1:
            return list(values)
        maxima = torch.tensor(values)
        dist.all_reduce(maxima, dist.ReduceOp.MAX, self.group)
        return maxima.tolist()


def start_processes() -> Processes:
    """Join the processes that the launcher's environment describes, or be the only one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        # Under SLURM a process may see one GPU only.
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_launcher()
    return _join(rank, size, device) if size > 1 else Processes(rank, size, device)


def restarted() -> bool:
    """Whether torchrun or SLURM restarted this program after a process or a machine died."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(os.environ.get(name, "0")) > 0 for name in counts)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process ended or did not answer."""
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, dist.DistError)


def _join(rank: int, size: int, device: torch.device) -> Processes:
    """Form the process group.

    Keys in its store begin with the number of restarts: those of dead processes may still be there.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", timeout=START_PATIENCE)))
        peers = Peers(address, port, start, rank, size)
    except RuntimeError as error:
        raise UserError(
            f"process {rank} of {size} can't reach process 0 at {address}, port {port} "
            f"({in_brief(error)})"
        ) from None
    processes = Processes(rank, size, device, peers, patience=START_PATIENCE)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    prefixed = dist.PrefixStore(f"start {start}", store)
    try:
        dist.init_process_group(
            backend, timeout=START_PATIENCE, store=prefixed, rank=rank, world_size=size,
            device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
    except RuntimeError as error:
        processes.give_up(error)
    return processes


def _end_with_launcher() -> None:
    """Get a SIGTERM when torchrun dies, even if it was killed and could not send one."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
