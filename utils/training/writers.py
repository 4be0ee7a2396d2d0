"""One writer a folder: a second one is refused, and one that died bars nobody.

A lock of the system keeps programs on one machine apart; it goes with its process. A file beside it
names the host and process, and is touched now and then: on a shared disk, where locks may hold on
one machine only or not be given at all, a fresh one tells of a writer elsewhere.
"""

import os
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.base.errors import UserError
from utils.base.files import NO_LOCKS

TOUCH_SECONDS = 30.0
STALE_SECONDS = 150.0  # a writer that did not touch its file for so long is dead


class SoleWriter:
    """The claim of this process to write in a folder, until `release` or its end."""

    def __init__(self, folder: Path):
        """Raises UserError if another process is writing there, or nobody can."""
        self._name = folder / ".writer"
        self._lock = FileLock(folder / ".writer.lock")
        self._touched = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            self._lock.release()
            raise UserError(f"{folder}: can't be written ({error.strerror or error})") from None

    def _claim(self) -> None:
        locked = self._take_lock()
        here = socket.gethostname()
        host, number = self._read_name()
        if host is not None and (host != here or not locked) and self._is_fresh():
            raise UserError(self._refusal(host, number))
        self._name.write_text(f"{here} {os.getpid()}")

    def touch(self) -> None:
        """Say that the writer lives; cheap enough for every step of a training."""
        now = time.monotonic()
        if now - self._touched > TOUCH_SECONDS:
            self._touched = now
            with suppress(OSError):  # what matters is written elsewhere, and is told of there
                self._name.touch()

    def release(self) -> None:
        """Let others write."""
        with suppress(OSError):  # a full disk or one that is gone
            self._name.unlink(missing_ok=True)
        self._lock.release()

    def _take_lock(self) -> bool:
        """Whether the disk gives locks and this process has it now."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(self._refusal(*self._read_name())) from None
        except NotImplementedError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        return True

    def _read_name(self) -> tuple[str | None, str]:
        """Host and process number of the last writer; None if there is none."""
        try:
            host, _, number = self._name.read_text().partition(" ")
        except OSError:
            return None, ""
        return host or None, number

    def _is_fresh(self) -> bool:
        """Whether the last writer touched its file a short while ago, by the disk's own clock."""
        with tempfile.NamedTemporaryFile(dir=self._name.parent, prefix=".now.") as now:
            age = os.fstat(now.fileno()).st_mtime - self._name.stat().st_mtime
        return age < STALE_SECONDS

    def _refusal(self, host: str | None, number: str) -> str:
        who = f"process {number} on {host}" if host else "another process"
        return (
            f"{self._name.parent}: {who} is writing here; wait for it, or stop it (if it is dead, "
            f"wait {STALE_SECONDS:g} s), or name another folder"
        )
