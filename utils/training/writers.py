"""One writer a folder: a second one is refused, unless the first one has died.

A file in the folder names the writer's process and host. The writer holds a lock on it, which goes
with the process, and touches it every few seconds: on a shared disk, where locks may hold on one
machine only or not be given at all, a file that is touched tells of a writer elsewhere.
"""

import errno
import fcntl
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from utils.base.errors import UserError, warn

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a disk that gives none
TOUCH_SECONDS = 5.0
WATCH_SECONDS = 30.0  # a writer that does not touch its file for so long is dead


class SoleWriter:
    """The claim of this process to write in a folder, for as long as the context lasts."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = folder / ".writer"
        self._host = socket.gethostname()
        self._name = f"{os.getpid()} on {self._host}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._touch)

    def __enter__(self) -> "SoleWriter":
        """Raises UserError if another process is writing there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._refuse_another()
            self._write(self._name)
        except BaseException:
            os.close(self._handle)
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # of a disk that is gone
            if self._read() == self._name:
                self._write("")
            os.close(self._handle)

    def check(self) -> None:
        """Raise UserError if another process took over, as from one that was halted for long."""
        if self._read() != self._name:
            raise UserError(
                f"{self._folder}: process {self._read() or '?'} writes here now; this process "
                "ended without writing"
            )

    def _refuse_another(self) -> None:
        locked = True
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal() from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            locked = False
        before = self._read()
        known_dead = locked and before.endswith(f" on {self._host}")
        if before and not known_dead and self._is_touched():
            raise self._refusal()

    def _refusal(self) -> UserError:
        return UserError(
            f"{self._folder}: process {self._read() or '?'} is writing here; wait until it has "
            "ended, or name another folder"
        )

    def _is_touched(self) -> bool:
        warn(f"{self._folder}: waiting whether process {self._read()} is still writing here")
        times = {self._touched_at()}
        end = time.monotonic() + WATCH_SECONDS
        while len(times) == 1 and time.monotonic() < end:
            time.sleep(TOUCH_SECONDS / 5)
            times.add(self._touched_at())
        return len(times) > 1

    def _touch(self) -> None:
        while threading.main_thread().is_alive() and not self._ended.wait(TOUCH_SECONDS):
            with suppress(OSError):  # if the disk is away, `check` says so
                os.utime(self._handle)

    def _touched_at(self) -> int:
        with self._file.open() as file:  # reopened: a shared disk may cache its attributes
            return os.fstat(file.fileno()).st_mtime_ns

    def _read(self) -> str:
        try:
            return self._file.read_text()
        except OSError:
            return ""

    def _write(self, name: str) -> None:
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, name.encode(), 0)
