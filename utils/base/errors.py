"""How a program ends: a user's mistake is one clear line and exit code 2, never a traceback."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

if sys.stderr is None or not sys.stderr.isatty():  # read when tqdm is imported
    os.environ.update(TQDM_MININTERVAL="30", TQDM_MAXINTERVAL="30", TQDM_DELAY="5")
from tqdm import tqdm

LAUNCHED = "NAQ_LAUNCHED"  # set by utils/launch.py
PEER_LOST = 75  # exit code: another process has gone, and is the one to blame
NAMED = 3  # clips named in a message
LINE_UP = "\x1b[A"  # what tqdm writes between bars
# Steer a terminal, turn the direction of writing, or can't be encoded; line ends and tabs stay.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """Something the user can mend; the message says what, where and how, in one line."""


def without_controls(text: str) -> str:
    """The text with its control characters escaped: it may come from any file or server."""
    return CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def warn(message: str) -> None:
    """Print one line of warning on stderr, where progress bars and tables are not disturbed."""
    line = without_controls(" ".join(message.split()))
    tqdm.write(f"warning: {line}", file=sys.stderr)  # on a line of its own, above the bars
    sys.stderr.flush()


def in_brief(error: BaseException, most: int = 120) -> str:
    """A library's message in at most `most` characters: whole sentences, or else words."""
    lines = str(error).strip().splitlines()
    message = " ".join(lines[0].split()) if lines else type(error).__name__
    if len(message) <= most:
        return message if message.endswith("...") else message.rstrip(".")
    sentences, end, _ = message[:most].rpartition(". ")
    if end:
        return sentences
    words = message[: most - 3].rpartition(" ")[0] or message[: most - 3]
    return words.rstrip(" ,;:") + "..."


def complain(line: str) -> None:
    """Report an error on stderr, or to the launcher, which reports once for all its processes."""
    line = without_controls(line)
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and LAUNCHED in os.environ:
        Path(file).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    else:
        print(f"error: {line}", file=sys.stderr, flush=True)


def run_program(main: Callable[[], None], takes_memory: str = "") -> None:
    """Run `main` and leave with its exit code: 0, or 2 for a `UserError`, 130 when interrupted.

    `takes_memory` are the options that a user can lower when memory is used up.
    """
    _open_standard_files()
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
    """Run `main`, say in a line why it failed, and return the exit code."""
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
            # Disk full, no permission, a folder where a file should be: the system's own words do.
            where = f" ({error.filename})" if error.filename else ""
            complain(f"{error.strerror or error}{where}")
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


OUT_OF_MEMORY = (
    "out of memory",  # PyTorch, of a GPU
    "can't allocate memory",  # PyTorch, of the host
    "not enough memory",  # the same elsewhere
    "cannot allocate memory",  # the system
    "bad_alloc",  # C++
    "alloc_failed",  # cuBLAS and cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the host or of a GPU is used up."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(words in message for words in OUT_OF_MEMORY)


class Outlet:
    """Standard output that a program outlives: what nobody reads is lost, no more.

    Control characters are escaped. A reader that has gone (`| head -1`) is not a fault; a full disk
    behind it is kept in `fault`.
    """

    def __init__(self, stream: TextIO):
        self.fault: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        """As a text file's; returns the number of characters."""
        try:
            self._stream.write(self._cleaned(text))
        except OSError as error:
            self._let_go(error)
        return len(text)

    def flush(self) -> None:
        """As a text file's."""
        try:
            self._stream.flush()
        except OSError as error:
            self._let_go(error)

    def _cleaned(self, text: str) -> str:
        return without_controls(text)

    def _let_go(self, error: OSError) -> None:
        """Replace the file by the null device, for this program and those that share it."""
        if not isinstance(error, BrokenPipeError):
            self.fault = self.fault or error
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class BarOutlet(Outlet):
    """Standard error, where progress bars are: in a file or pipe they are lines of their own."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self._terminal = stream.isatty()
        self._in_bar = False  # the last line is one, and not ended

    def _cleaned(self, text: str) -> str:
        if self._terminal:
            return text
        text = text.replace(LINE_UP, "")
        is_bar = text.startswith("\r")
        line = text.strip(" \r\n") if is_bar else text
        ended = "\n" if self._in_bar and line and not line.startswith("\n") else ""
        if line:
            self._in_bar = is_bar
        return ended + line


def _open_standard_files() -> None:
    """Give closed standard files the null device, before other files take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def quiet_libraries() -> None:
    """Keep libraries from talking over our own progress bars, and from calling home."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of lost connections, at length


def named(things: Iterable[str]) -> str:
    """The first few of the things, for a message."""
    first = list(islice(things, NAMED + 1))
    return ", ".join(first[:NAMED]) + (", ..." if len(first) > NAMED else "")
