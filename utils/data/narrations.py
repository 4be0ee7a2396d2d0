"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of given videos, as columns.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.base.cores import usable_cores
from utils.base.errors import UserError, in_brief
from utils.base.files import UTF_16
from utils.base.lazy import polars as pl
from utils.base.machine import ahead

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
BLOCK = 1 << 23  # bytes read at once; a longer line is skipped
TAB = "\0"  # stands for a tab inside quotes while lines are split

# Why a row is skipped -> how many are, and the first one's line in the file, counted from 1.
Faults = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Narrations:
    """Narrations of some videos (N rows, in the order of the file), ready to be searched."""

    starts: np.ndarray  # (N,) seconds in the video
    ends: np.ndarray  # (N,)
    texts: pl.Series  # (N,)
    faults: Faults  # malformed rows of the whole file
    by_start: np.ndarray  # (N,) row numbers sorted by video, then start
    extents: dict[str, tuple[int, int]]  # video uid -> its part of by_start

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def skipped(self) -> int:
        """How many rows are malformed."""
        return sum(rows for rows, _ in self.faults.values())

    def describe_skipped(self) -> str:
        """How many rows are malformed, and why."""
        reasons = [
            f"{rows} with {fault} (first: line {line})"
            for fault, (rows, line) in sorted(self.faults.items(), key=lambda item: -item[1][0])
        ]
        return f"{self.skipped} malformed rows skipped" + ": " * bool(reasons) + ", ".join(reasons)

    def inside(self, video_uid: str, start: float, end: float) -> np.ndarray:
        """Numbers of the rows of a video that lie entirely in [start, end] s, in file order."""
        first, last = self.extents.get(video_uid, (0, 0))
        rows = self.by_start[first:last]
        starts = self.starts[rows]
        low = np.searchsorted(starts, start, side="left")
        high = np.searchsorted(starts, end, side="right")
        rows = rows[low:high]
        return np.sort(rows[self.ends[rows] <= end])


def index_narrations(
    video_uids: Sequence[str],
    videos: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    texts: pl.Series,
    faults: Faults | None = None,
) -> Narrations:
    """Sort narrations for searching.

    Args:
        video_uids: (V,) names of the videos; videos: (N,) numbers of the narrations' videos;
        starts, ends: (N,) seconds in the video; texts: (N,).
    """
    columns = pl.DataFrame({"video": videos, "start": starts})
    by_start = columns.select(pl.arg_sort_by("video", "start")).to_series().to_numpy()
    bounds = np.searchsorted(videos, np.arange(len(video_uids) + 1), sorter=by_start).tolist()
    extents = dict(zip(video_uids, pairwise(bounds), strict=True))
    return Narrations(starts, ends, texts, faults or {}, by_start, extents)


def read_narrations(path: str | Path, video_uids: Sequence[str]) -> Narrations:
    """Read the narrations of `video_uids` (distinct).

    Fields in double quotes are read as pandas reads them, if the quotes close on the same line.
    Malformed rows are skipped and counted by reason: a surplus field, times that are missing or not
    finite, an end before the start, an empty text, a NUL byte, a quote that does not close on its
    line, a line longer than `BLOCK` bytes.

    Raises:
        UserError: the file or one of its columns is missing, or all rows are malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    columns, videos = _header(path), pl.Enum(list(video_uids))
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, mininterval=0.5)
    tables, faults, well_formed, line = [], {}, 0, 2
    with bar, path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:

        def read(part: slice) -> tuple[Block, int]:
            length = part.stop - part.start
            if length > BLOCK:
                return Block([], 0, 1, {f"more than {BLOCK >> 20} MiB": (1, 0)}), part.stop
            # Unlike a slice of `content`, pread lets the other threads run.
            lines = os.pread(file.fileno(), length, part.start)
            return parse_block(path, lines, columns, videos), part.stop

        # Each block is reduced to the rows of the videos at once, so that memory stays bounded.
        for block, end in ahead(read, _blocks(content), usable_cores()):
            tables += block.tables
            well_formed += block.well_formed
            for fault, (rows, first) in block.faults.items():
                _add_fault(faults, fault, rows, line + first)
            line += block.lines
            bar.update(end - bar.n)
    if not well_formed:
        raise UserError(f"{path}: none of its {line - 2} lines can be read; fetch it again")
    table = pl.concat(tables)
    return index_narrations(
        video_uids,
        table["video"].to_numpy(),
        table["start"].to_numpy(),
        table["end"].to_numpy(),
        table["text"],
        faults,
    )


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        content = file.readline(1 << 16)
    if content.startswith(UTF_16):
        raise UserError(f"{path}: is text in UTF-16; save it as UTF-8")
    line = content.decode("utf-8-sig", "replace").rstrip("\r\n")
    columns = [name.strip('"') for name in line.split("\t")]
    if missing := [name for name in COLUMNS if name not in columns]:
        remedy = "NaQ is made from EgoClip's egoclip.csv"
        if line.lstrip().startswith(("{", "[")):
            raise UserError(f"{path}: JSON, such as Ego4D's own narration.json; {remedy}")
        if all(name in line for name in COLUMNS):
            raise UserError(f"{path}: its columns are not separated by tabs; {remedy}, as released")
        raise UserError(f"{path}: column {', '.join(missing)} is missing from its header")
    return columns


def _blocks(content: mmap) -> Iterator[slice]:
    """Whole lines after the first, as parts of the file's content; a long line is a part alone."""
    start = content.find(b"\n") + 1 or len(content)
    while start < len(content):
        end = content.rfind(b"\n", start, start + BLOCK) + 1
        end = end or content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield slice(start, end)
        start = end


class Block(NamedTuple):
    """What some lines of the file hold."""

    tables: list[pl.DataFrame]  # well-formed rows of the videos: video number, start, end, text
    well_formed: int  # rows, of all videos
    lines: int
    faults: Faults  # lines counted from 0


def parse_block(path: Path, content: bytes, columns: list[str], videos: pl.Enum) -> Block:
    """Parse whole lines of the file at `path`; returns their well-formed rows and their faults."""
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    faults: Faults = {}
    content = _plain_fields(content, faults)
    # The header has a name too many, so that a surplus field shows.
    names = [str(number) for number in range(len(columns) + 1)]
    needed = [names[columns.index(name)] for name in COLUMNS]
    try:
        fields = pl.read_csv(
            b"\n".join(("\t".join(names).encode(), content)),
            schema=dict.fromkeys(names, pl.String),
            columns=[*needed, names[-1]],
            separator="\t",
            quote_char=None,
            encoding="utf8-lossy",
            empty_string_is_null=False,
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: damaged ({in_brief(error)}); fetch it again") from None
    video, start, end, text, surplus = fields.get_columns()
    start, end = _seconds(start), _seconds(end)
    if TAB.encode() in content:
        text = text.str.replace_all(TAB, "\t", literal=True)
    checks = {
        "a field too many": surplus != "",
        "times that are no numbers": ~(start.is_finite() & end.is_finite()).fill_null(False),
        "an end before its start": (start > end).fill_null(False),
        "no text": ~text.str.contains(r"\S"),
    }
    blank = fields.select(pl.all_horizontal(pl.all() == "")).to_series()
    fault = pl.select(
        pl.coalesce(*(pl.when(bad).then(pl.lit(name)) for name, bad in checks.items()))
    ).to_series()
    malformed = pl.DataFrame({"fault": fault}).with_row_index("line")
    malformed = malformed.filter(pl.col("fault").is_not_null() & ~blank)
    for name, rows, first in malformed.group_by("fault").agg(
        pl.len(), pl.col("line").min()
    ).iter_rows():  # fmt: skip
        _add_fault(faults, name, rows, first)
    number = video.cast(videos, strict=False).to_physical()
    table = pl.DataFrame({"video": number, "start": start, "end": end, "text": text})
    well_formed = fault.is_null()
    return Block(
        [table.filter(well_formed & number.is_not_null())], well_formed.sum(), lines, faults
    )


def _add_fault(faults: Faults, fault: str, rows: int, line: int) -> None:
    """Count malformed rows, the first of them in this line."""
    counted, first = faults.get(fault, (0, line))
    faults[fault] = counted + rows, min(first, line)


def _plain_fields(content: bytes, faults: Faults) -> bytes:
    """Lines with quotes about fields taken off; lines that cannot be split are blanked and counted.

    A tab inside quotes becomes `TAB`. A quote inside an unquoted field is text.
    """
    has_nul = b"\0" in content
    has_quotes = b'\t"' in content or b'\n"' in content or content.startswith(b'"')
    if not has_nul and not has_quotes:
        return content
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        if has_nul and b"\0" in line:
            _add_fault(faults, "a NUL byte", 1, number)
            lines[number] = b""
        elif b'"' in line and (b'\t"' in line or line.startswith(b'"')):
            # The second row shows whether the first one's quotes are closed.
            text = line.decode("utf-8", "replace").removesuffix("\r") + "\n"
            try:
                rows = list(csv.reader([text, "end"], delimiter="\t"))
            except csv.Error:  # a field of more than 131,072 characters
                rows = []
            if len(rows) == 2:
                fields = [field.replace("\t", TAB) for field in rows[0]]
                lines[number] = "\t".join(fields).encode()
            else:
                _add_fault(faults, "a quote that is not closed", 1, number)
                lines[number] = b""
    return b"\n".join(lines)


def _seconds(column: pl.Series) -> pl.Series:
    """Times as numbers, null where they are invalid."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():  # perhaps surrounded by spaces
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers
