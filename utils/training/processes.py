"""Processes: the same program on one CPU, one GPU, or many of either under torchrun.

Launched plainly a program is one process. Under `torchrun` or `torch.distributed.launch --use_env`
each process finds its rank in the environment; GPUs talk over nccl, CPUs over gloo. Small things
that the programs themselves agree on always go over gloo, so that they do not wait for a GPU.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from utils.base.errors import LAUNCHED, PEER_LOST, UserError, complain, in_brief
from utils.training.peers import FOLLOWED, Peers

# How long processes wait for each other; one that dies is noticed at once.
START_PATIENCE = timedelta(hours=12)  # one of them may build stores for hours
STEP_PATIENCE = timedelta(minutes=30)

# SIGUSR1 and SIGUSR2 are what clusters send some time before they take the machine away.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal came in the middle of something that can be left at once.

    Like `KeyboardInterrupt` it is not an `Exception`, so that no handler takes it for an error.
    """


class StopSignals:
    """Remembers the signal that came; as a context it takes the handlers over, and gives them back.

    A SIGTERM that somebody else listens to is left to them: under SLURM it precedes the signal
    that asks for a requeue. A SIGHUP that is ignored (`nohup`) stays so.
    """

    def __init__(self) -> None:
        self.received = 0  # the signal's number, 0 for none
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        usual = (signal.SIG_DFL, signal.SIG_IGN)
        for number in STOPPING:
            before = signal.getsignal(number)
            taken = number == signal.SIGTERM and before not in usual
            if not (taken or (number == signal.SIGHUP and before == signal.SIG_IGN)):
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


class Share(NamedTuple):
    """Queries that one process computes at once, of a batch that all processes take a step on."""

    rows: np.ndarray  # (N,) row numbers of the batch, of all processes
    mine: np.ndarray  # (n,) places in it
    processes: int

    @property
    def weight(self) -> float:
        """Share of this process's queries: what a mean over these counts in the mean over all."""
        return len(self.mine) * self.processes / len(self.rows)


class LostPeer(Exception):
    """Another process has gone or did not answer; the message says what was kept."""


@dataclass
class Processes:
    """This process among its peers: `rank` of `size`, computing on `device`.

    As a context it leaves the group at the end. When another process was lost it says which, and
    ends the program with `PEER_LOST`.
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
            code = isinstance(error, SystemExit)
            self.peers.end(f"exit code {error.code}" if code else in_brief(error))

    def give_up(self, error: BaseException) -> NoReturn:
        """End the program, because of what `is_lost_peer` or a `LostPeer` says."""
        late = re.search("timed out|timeout", str(error.__cause__ or error), re.IGNORECASE)
        # The launcher, if there is one, says how a process ended.
        if late or LAUNCHED not in os.environ:
            kept = [str(error)] if isinstance(error, LostPeer) and str(error) else []
            if account := self.peers.account(self.patience):
                complain("; ".join([account, *kept, "give the same command again"]))
        self.peers.end(FOLLOWED)
        sys.exit(PEER_LOST)

    def tell(self, activity: str) -> None:
        """Let the others know what this process does, for the case that they wait for it."""
        if self.peers is not None:
            self.peers.activity = activity

    def expect_soon(self) -> None:
        """All are ready: from now on none of them is waited for longer than `STEP_PATIENCE`."""
        self.patience = STEP_PATIENCE
        if self.size > 1:
            self.group = dist.new_group(timeout=self.patience)

    @property
    def main(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    def shard(self, rows: np.ndarray) -> np.ndarray:
        """This process's equal share of a batch; rows that do not divide evenly are left out."""
        share = len(rows) // self.size
        return rows[self.rank * share : (self.rank + 1) * share]

    def shares(self, rows: np.ndarray, pieces: int = 1) -> list[Share]:
        """This process's share of a batch, cut into so many pieces, fewer if queries are fewer."""
        rows = rows[: len(rows) // self.size * self.size]
        mine = self.shard(np.arange(len(rows)))
        cut = np.array_split(mine, min(pieces, len(mine)))
        return [Share(rows, piece, self.size) for piece in cut]

    def gather(self, value: Any) -> list:
        """The values of all processes, in rank order, on each of them."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def hand_on(self, value: Any) -> Any:
        """The main process's value, on each of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, self.group, torch.device("cpu"))
        return values[0]

    def gather_rows(self, rows: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
        """All processes' columns in the order of their row numbers, on each of them."""
        shares = zip(*self.gather((rows, *columns)), strict=True)
        rows, *columns = (np.concatenate(share) for share in shares)
        order = np.argsort(rows)
        return tuple(column[order] for column in columns)

    def average(self, tensors: Sequence[torch.Tensor | None]) -> None:
        """Replace tensors by their means over all processes.

        They travel in one piece: with the same layout every time, sums are rounded the same way,
        in a run that was stopped and continued too.
        """
        if self.size == 1:
            return
        kept = [tensor for tensor in tensors if tensor is not None]
        joined = torch.cat([tensor.flatten() for tensor in kept])
        dist.all_reduce(joined, group=self.group)
        parts = (joined / self.size).split([tensor.numel() for tensor in kept])
        for tensor, part in zip(kept, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def meet(self) -> None:
        """Wait until every process is here."""
        self.largest(0)

    def largest(self, *values: int) -> list[int]:
        """The largest of each value over all processes; all of them get the same answer."""
        if self.size == 1:
            return list(values)
        agreed = torch.tensor(values)
        dist.all_reduce(agreed, dist.ReduceOp.MAX, self.group)
        return agreed.tolist()


def start_processes() -> Processes:
    """Join the peers that the launcher's environment names, or stand alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        # Under SLURM a process may see its own GPU alone.
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_launcher()
    return _meet(rank, size, device) if size > 1 else Processes(rank, size, device)


def restarted() -> bool:
    """Whether torchrun or SLURM started this program again, after a process or a machine died."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(os.environ.get(name, "0")) > 0 for name in counts)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process has gone or did not answer."""
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, dist.DistError)


def _meet(rank: int, size: int, device: torch.device) -> Processes:
    """Join the group, with names of its own in the store that processes meet in.

    When torchrun starts processes again, addresses of dead ones may still be in the store.
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
    """Get a SIGTERM when torchrun dies: killed, it could not send one."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
