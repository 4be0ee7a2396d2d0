"""Errors and exit codes: a user's mistake is one clear line and exit code 2, never a traceback."""

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.base.outlets import BarOutlet, Outlet, open_standard_files, without_controls

LAUNCHED = "NAQ_LAUNCHED"  # set by utils/launch.py
PEER_LOST = 75  # exit code of a process that ends because another one did
NAMED = 3  # items named in a message
# Messages of PyTorch (GPU, host), the system, C++, cuBLAS and cuDNN.
OUT_OF_MEMORY = re.compile(
    "out of memory|can't allocate memory|not enough memory|cannot allocate memory|bad_alloc|"
    "alloc_failed",
    re.IGNORECASE,
)


class UserError(Exception):
    """An error that the user can correct; the message says what, where and how in one line."""


def warn(message: str) -> None:
    """Print a warning on stderr, above any progress bar."""
    line = without_controls(" ".join(message.split()))
    tqdm.write(f"warning: {line}", file=sys.stderr)
    sys.stderr.flush()


def in_brief(error: BaseException, width: int = 120) -> str:
    """The first line of an error's message, shortened at a word to `width` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = textwrap.shorten(lines[0], width, placeholder="...")
    return line if line.endswith("...") else line.rstrip(".")


def complain(line: str) -> None:
    """Print an error on stderr, or write it to the launcher's file: it prints one error for all."""
    line = without_controls(line)
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and LAUNCHED in os.environ:
        Path(file).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    else:
        print(f"error: {line}", file=sys.stderr, flush=True)


def run_program(main: Callable[[], None], takes_memory: str = "") -> None:
    """Run `main` and exit: with code 0, with 2 after a `UserError`, or with 130 if interrupted.

    `takes_memory` names the options to lower when the program runs out of memory.
    """
    open_standard_files()
    output, errors = Outlet(sys.stdout), BarOutlet(sys.stderr)
    sys.stdout, sys.stderr = output, errors
    code = _run(main, takes_memory)
    output.flush()
    if not code and output.fault is not None:
        complain(f"standard output can't be written: {output.fault.strerror}")
        code = 2
    errors.flush()
    if code:
        sys.exit(code)


def _run(main: Callable[[], None], takes_memory: str) -> Any:
    """Run `main`, print one line if it fails, and return the exit code."""
    try:
        main()
    except SystemExit as end:
        return end.code
    except UserError as error:
        complain(" ".join(str(error).split()))
        return 2
    except (MemoryError, RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            complain(_out_of_memory(error, takes_memory))
        elif isinstance(error, OSError):
            # The system's message is clear enough: disk full, no permission, is a directory.
            file = f" ({error.filename})" if error.filename else ""
            complain(f"{error.strerror or error}{file}")
        else:
            raise
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    return 0


def _out_of_memory(error: BaseException, takes_memory: str) -> str:
    message = str(error)
    device = "GPU" if "CUDA" in message or "CUDNN" in message else "machine"
    request = re.search(r"tried to allocate [\d.]+ \w+", message, re.IGNORECASE)
    reason = request.group().lower() if request else in_brief(error)
    remedy = "run fewer processes"
    if takes_memory:
        remedy = f"lower {takes_memory}, or try --amp bf16, --feature_device cpu, fewer processes"
    return f"the {device} is out of memory ({reason}); {remedy}; what was saved is intact"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the host or a GPU is out of memory."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def named(items: Iterable[str], separator: str = ", ") -> str:
    """The first few items, for a message."""
    names = list(islice(items, NAMED + 1))
    if len(names) > NAMED:
        names[NAMED] = "..."
    return separator.join(names)
