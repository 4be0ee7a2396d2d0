"""How something was made: command, time, versions, commit, and hashes of what went in."""

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "transformers")
CODE = Path(__file__).resolve().parents[1]


def how_made(inputs: Iterable[Path]) -> dict:
    """What to write down beside a result; JSON-able."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "folder": str(Path.cwd()),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "machine": _machine(),
        "inputs": {str(file): _hash(file) for file in inputs if file.is_file()},
    }


def _commit() -> str | None:
    """The checkout's commit, with a mark if files differ from it; None outside of git."""
    git = ("git", "-C", str(CODE))
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except OSError:
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def _machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} threads"


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=10)).hexdigest()
