"""Standard output and error: without control characters, closed early or full, bars as lines."""

import io
import os
import re
import sys
from typing import Any, TextIO

LINE_UP = "\x1b[A"  # what tqdm writes between bars
# Characters that control a terminal or the text direction, and surrogates; not newlines and tabs.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def without_controls(text: str) -> str:
    """The text with its control characters escaped: it may come from any file or server."""
    return CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


class Outlet:
    """Standard output that may be closed early, without ending the program.

    Control characters are escaped. A closed pipe (`| head -1`) is not an error; another error, such
    as a full disk, is stored in `fault`.
    """

    def __init__(self, stream: TextIO):
        self.fault: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(self._cleaned(text))
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _cleaned(self, text: str) -> str:
        return without_controls(text)

    def _drop(self, error: OSError) -> None:
        """Replace the file by the null device, also for libraries that write to it directly."""
        if not isinstance(error, BrokenPipeError):
            self.fault = self.fault or error
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, self._stream.fileno())
        os.close(null_device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class BarOutlet(Outlet):
    """Standard error with progress bars: in a file or pipe each update is a line."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self._terminal = stream.isatty()
        self._after_bar = False

    def _cleaned(self, text: str) -> str:
        if self._terminal:
            return text
        text = text.replace(LINE_UP, "")
        if text.startswith("\r"):
            self._after_bar = True
            line = text.strip(" \r\n")
            return f"{line}\n" if line else ""
        if self._after_bar and not text.strip("\n"):
            return ""  # tqdm's line end after a bar
        self._after_bar = False
        return text


def open_standard_files() -> None:
    """Open closed standard files as the null device, before other files get their numbers.

    What the locale's encoding lacks is escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
