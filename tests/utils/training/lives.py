"""Lives of a training run: forked, killed at a chosen point, compared with one left alone."""

import io
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from tqdm import tqdm

import utils.base.files
from utils.base.errors import run_program
from utils.training.loop import Training

# Options name the folder, and `made.json` has an entry for each start.
UNLIKE = ("made.json", "configs.json", "opt.json", "options.json")
PATIENCE = 60.0  # seconds until all processes have to have ended


class Kill(NamedTuple):
    """Where one process is killed: at the start of the so-manieth of these."""

    kind: str  # step, evaluation or file operation
    number: int  # from 1
    rank: int = 0


def live(
    train: Callable[[], None],
    processes: int = 1,
    kill: Kill | None = None,
    patience: float = PATIENCE,
    impatience: int = 0,
) -> list[int]:
    """Run `train` in forked processes; returns exit codes, negative for a signal.

    After `patience` seconds all get the signal `impatience`, or it is an error.
    """
    port = free_port() if processes > 1 else 0
    pids = [_fork(train, rank, processes, port, kill) for rank in range(processes)]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + patience
    end = time.monotonic() + max(patience, PATIENCE)
    while len(codes) < processes:
        for rank, pid in enumerate(pids):
            if rank not in codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[rank] = os.waitstatus_to_exitcode(status)
        if impatience and time.monotonic() > deadline:
            deadline = float("inf")
            for rank in set(range(processes)) - set(codes):
                os.kill(pids[rank], impatience)
        if time.monotonic() > end:
            for rank in set(range(processes)) - set(codes):
                os.kill(pids[rank], signal.SIGKILL)
                os.waitpid(pids[rank], 0)
            raise AssertionError(f"processes still ran after {PATIENCE:.0f} s: {codes}")
        time.sleep(0.005)
    return [codes[rank] for rank in range(processes)]


def operations(train: Callable[[], None], processes: int, file: Path) -> int:
    """Run `train` to its end; returns how many file operations its first process made."""
    count = Counter(lambda: None, at=0)

    def counted() -> None:
        try:
            with file_operations(count) if os.environ["RANK"] == "0" else ExitStack():
                train()
        finally:
            if os.environ["RANK"] == "0":
                file.write_text(str(count.count))

    codes = live(counted, processes)
    assert not any(codes), codes
    return int(file.read_text())


def differences(whole: Path, other: Path) -> list[str]:
    """Files of two folders of runs that are not the same: tensors bit by bit, text by text."""
    names = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (whole, other)
    ]
    names = [{name for name in some if "events.out" not in name} for some in names]
    found = [f"{name} only in one" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if name.endswith((".pt", ".t7")):
            # A previous state may be of another step: it depends on where the run was stopped.
            if ".previous" not in name and not same(_load(whole / name), _load(other / name)):
                found.append(f"{name} differs")
        elif not name.endswith((".json", ".txt", ".jsonl")) or Path(name).name in UNLIKE:
            continue
        elif (whole / name).read_bytes() != (other / name).read_bytes():
            found.append(f"{name} differs")
    return found


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal, tensors to the last bit; options (which name folders) may
    differ."""
    if torch.is_tensor(one):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        kept = [key for key in one if key not in ("options", "opt")]
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in kept)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def _load(file: Path) -> Any:
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, weights_only=True)


def free_port() -> int:
    """A port nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _fork(train: Callable, rank: int, processes: int, port: int, kill: Kill | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
        # The bars' own lock is shared by forks: one killed while it holds it would stop us all.
        tqdm.set_lock(threading.RLock())
        log = io.StringIO()
        sys.stdout = sys.stderr = log
        with killing(kill if kill and kill.rank == rank else None):
            run_program(train)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        if code in (1, 2):
            os.write(2, sys.stderr.getvalue().encode())
        os._exit(code)  # none of the parent's own business at exit


@contextmanager
def killing(kill: Kill | None) -> Iterator[None]:
    """Kill this process when it gets there."""
    if kill is None:
        yield
        return
    counter = Counter(lambda: os.kill(os.getpid(), signal.SIGKILL), kill.number)
    if kill.kind == "file operation":
        with file_operations(counter):
            yield
        return
    owner, name = (Training, "losses") if kill.kind == "step" else (Training, "evaluate")
    original = getattr(owner, name)

    def counted(*arguments: Any) -> Any:
        if kill.kind == "step":
            counter()
        result = original(*arguments)
        return result

    def evaluated(self: Training) -> None:
        inner = self.recipe.evaluate

        def then_die(*arguments: Any) -> Any:
            result = inner(*arguments)
            counter()
            return result

        with mock.patch.object(self.recipe, "evaluate", then_die):
            original(self)

    with mock.patch.object(owner, name, counted if kill.kind == "step" else evaluated):
        yield


class Counter:
    """Calls `act` at the so-manieth time it is called (0: never)."""

    def __init__(self, act: Callable[[], None], at: int):
        self.act = act
        self.at = at
        self.count = 0

    def __call__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.count += 1
            if self.count == self.at:
                self.act()


@contextmanager
def file_operations(before: Callable[[], None]) -> Iterator[None]:
    """Call `before` ahead of each operation that changes files; writes are torn in the middle."""
    with ExitStack() as patches:

        def watch(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def watched(*arguments: Any, **settings: Any) -> Any:
                before()
                return original(*arguments, **settings)

            patches.enter_context(mock.patch.object(owner, name, watched))

        for name in ("fsync", "replace", "rename", "unlink", "chmod", "truncate"):
            watch(os, name)
        watch(tempfile, "mkstemp")
        opened = os.fdopen
        patches.enter_context(
            mock.patch.object(utils.base.files.os, "fdopen", lambda *a: Torn(opened(*a), before))
        )
        path_open = Path.open

        def appended(self: Path, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
            file = path_open(self, mode, *arguments, **settings)
            return Torn(file, before) if mode == "a" else file

        patches.enter_context(mock.patch.object(Path, "open", appended))
        yield


class Torn:
    """A file whose writes come in two halves, with `before` called ahead of each.

    Of the hundreds of small writes of a checkpoint the 1st, 2nd, 4th, 8th, ... are treated so.
    """

    def __init__(self, file: Any, before: Callable[[], None]):
        self.file = file
        self.before = before
        self.writes = 0

    def write(self, content: Any) -> int:
        self.writes += 1
        if self.writes & (self.writes - 1):
            return self.file.write(content)
        half = len(content) // 2
        content = content if isinstance(content, str) else bytes(content)
        for part in (content[:half], content[half:]):
            self.before()
            self.file.write(part)
            self.file.flush()
        return len(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
