"""Tables of figures, and of the findings of checks."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from terminaltables import AsciiTable

from utils.base.errors import UserError

COLUMN = 62  # characters of a column of the table
UNITS = ("B", "kB", "MB", "GB", "TB")


class Finding(NamedTuple):
    """The result of one check: a line of the table."""

    check: str
    verdict: str  # ok, warning or error
    what: str
    remedy: str = ""


class Findings(list[Finding]):
    """All findings, in the order of the checks."""

    def ok(self, check: str, what: str) -> None:
        self.append(Finding(check, "ok", what))

    def warning(self, check: str, what: str, remedy: str = "") -> None:
        """Add something that does not stop a run."""
        self.append(Finding(check, "warning", what, remedy))

    def error(self, check: str, what: str, remedy: str = "") -> None:
        """Add something that stops a run or makes its scores meaningless."""
        self.append(Finding(check, "error", what, remedy))

    def missing(self, check: str, path: Path, remedy: str, reason: str = "") -> None:
        """Add a missing file: an error, or a warning if `reason` says why a run works without."""
        if reason:
            self.warning(check, f"{path}: missing; {reason}", remedy)
        else:
            self.error(check, f"{path}: missing", remedy)

    def tried(self, check: str, work: Callable, *arguments: object) -> object | None:
        """Call `work`; its `UserError` or `OSError` becomes a finding, and None is returned."""
        try:
            return work(*arguments)
        except UserError as fault:
            self.error(check, str(fault))
        except OSError as fault:
            self.error(check, f"{fault.strerror or fault} ({fault.filename})")
        return None

    def count(self, verdict: str) -> int:
        return sum(finding.verdict == verdict for finding in self)

    def table(self) -> str:
        """The findings as a table with wrapped columns."""
        wrapped = [[textwrap.fill(text, COLUMN, break_on_hyphens=False) for text in finding]
                   for finding in self]  # fmt: skip
        return AsciiTable([["check", "verdict", "what", "what to do"], *wrapped]).table


def figure_table(rows: Sequence[Sequence]) -> str:
    """A table with right-aligned columns after the first."""
    table = AsciiTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), "right")
    return table.table


def show_size(size: float) -> str:
    """Bytes in words: `1.5 GB`."""
    power = 0
    while size >= 1000 and power < len(UNITS) - 1:
        size, power = size / 1000, power + 1
    digits = 0 if not power or size >= 100 else 1
    return f"{size:.{digits}f} {UNITS[power]}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
