"""Processes that kill themselves ahead of a change of a file, and what watches for such changes."""

import importlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.simulated import run

CHANGES = ("open", "os.rename", "os.remove", "os.truncate", "os.chmod", "os.mkdir")  # audit events

_watched: tuple[Path, Callable[[], None]] | None = None


def _audit(event: str, arguments: tuple) -> None:
    """Call the watcher's action ahead of what changes a file in its folder."""
    if _watched is None or event not in CHANGES:
        return
    folder, action = _watched
    reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
    ours = str(arguments[0]).startswith(str(folder))
    if ours and not reads and threading.current_thread() is threading.main_thread():
        action()


sys.addaudithook(_audit)  # for good: a hook can't be removed


def watch(folder: Path, action: Callable[[], None]) -> None:
    """From now on, call the action ahead of each operation that changes files in a folder."""
    global _watched
    _watched = folder, action


@contextmanager
def file_operations(folder: Path, action: Callable[[], None]) -> Iterator[None]:
    """The same within the context; the action may raise."""
    global _watched
    watch(folder, action)
    try:
        yield
    finally:
        _watched = None


def at(number: int, action: Callable[[], None]) -> Callable[..., None]:
    """A function that calls the action the `number`-th time it is called."""
    calls = itertools.count(1)

    def count(*_: Any) -> None:
        if next(calls) == number:
            action()

    return count


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def started(words: Iterable[object], file: Path) -> Iterator[subprocess.Popen]:
    """A process that has written a file already."""
    pipe = subprocess.PIPE
    with subprocess.Popen(list(map(str, words)), stdout=pipe, stderr=pipe) as job:
        while not file.exists():
            assert job.poll() is None
            time.sleep(0.05)
        yield job


def run_killed(program: str, words: list[str], folder: Path, number: int) -> None:
    """Run a program that is killed ahead of its `number`-th change of a file in a folder."""
    done = run(sys.executable, "-m", "tests.killing", program, folder, number, *words)
    assert done.returncode == -signal.SIGKILL, done.stderr


if __name__ == "__main__":
    program, folder, number, *words = sys.argv[1:]
    watch(Path(folder), at(int(number), die))
    importlib.import_module(program.removesuffix(".py").replace("/", ".")).main(words)
