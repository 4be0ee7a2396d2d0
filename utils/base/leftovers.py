"""Unfinished files and folders, and which of them a program left that has ended."""

import os
import re
import shutil
import socket
import time
from functools import cache
from pathlib import Path

TEMPORARY = ".tmp"  # ends the names of unfinished files and folders
WEEK = 7 * 24 * 3600.0  # seconds


def temporary_prefix(name: str) -> str:
    """The prefix of an unfinished file or folder: its final name, and the process that makes it."""
    return f".{name}.{machine_name()}-{os.getpid()}."


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files and folders of programs that have ended."""
    for path in folder.glob(f".*{TEMPORARY}"):
        try:
            if not is_left_over(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except OSError:
            pass  # removed by another process, or of another user


def is_left_over(path: Path) -> bool:
    """Whether the process that made an unfinished file or folder has ended.

    That of another machine or container is taken to have ended after a week.
    """
    process = re.fullmatch(rf"\..+-\d+-(\d+)\.\w+{re.escape(TEMPORARY)}", path.name)
    if process is None:
        return False
    if f".{machine_name()}-{process[1]}." in path.name:
        return not is_running(int(process[1]))
    return time.time() - path.stat().st_mtime > WEEK


@cache
def machine_name() -> str:
    """A name of the host or container within which process numbers are unique."""
    return f"{socket.gethostname()}-{Path('/proc/self/ns/pid').stat().st_ino}"


def is_running(process: int) -> bool:
    """Whether a process with this number is running on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
