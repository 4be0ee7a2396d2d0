"""One process at a time writes in a run folder.

A file in the folder names the writer, which touches it every few seconds. This works across
machines and on disks without locks.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from utils.base.errors import UserError, warn
from utils.base.leftovers import is_running, machine_name

TOUCH_SECONDS = 2.0
WATCH_SECONDS = 30.0  # a writer that does not touch its file for so long has died


class SoleWriter:
    """A context in which no other process can write in the folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = folder / ".writer"
        self._name = f"{os.getpid()} on {machine_name()}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._touch)

    def __enter__(self) -> "SoleWriter":
        """Raises UserError if another process is writing there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        writer = self._read()
        if writer and self._is_alive(writer):
            raise UserError(
                f"{self._folder}: process {_shown(writer)} is writing here; wait until it has "
                "ended, or give another folder"
            )
        self._file.write_text(self._name)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # the disk may be gone
            if self._read() == self._name:
                self._file.write_text("")

    def check(self) -> None:
        """Raise UserError if another process took over while this one was halted."""
        if self._read() != self._name:
            raise UserError(
                f"{self._folder}: process {_shown(self._read())} writes here now; this process "
                "ended without writing"
            )

    def _is_alive(self, writer: str) -> bool:
        process, _, machine = writer.partition(" on ")
        if machine == machine_name() and not is_running(int(process)):
            return False
        warn(f"{self._folder}: waiting whether process {_shown(writer)} is still writing here")
        times = {self._touched_at()}
        end = time.monotonic() + WATCH_SECONDS
        while len(times) == 1 and time.monotonic() < end:
            time.sleep(TOUCH_SECONDS / 5)
            times.add(self._touched_at())
        return len(times) > 1

    def _touch(self) -> None:
        while threading.main_thread().is_alive() and not self._ended.wait(TOUCH_SECONDS):
            with suppress(OSError):  # `check` reports a missing disk
                os.utime(self._file)

    def _touched_at(self) -> int:
        with self._file.open() as file:  # opened again: a shared disk may cache its attributes
            return os.fstat(file.fileno()).st_mtime_ns

    def _read(self) -> str:
        try:
            return self._file.read_text()
        except OSError:
            return ""


def _shown(writer: str) -> str:
    """`812 on HOST`, without the number of the container."""
    return writer.rpartition("-")[0] or writer or "?"
