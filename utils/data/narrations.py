"""Read EgoClip's narrations of given videos as columns, and find those inside a clip.

The file `egoclip.csv` is tab-separated and has 3.85 M rows.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.base.cores import usable_cores
from utils.base.errors import UserError, in_brief
from utils.base.files import open_text
from utils.base.lazy import polars as pl
from utils.base.machine import ahead

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
BLOCK = 1 << 23  # bytes read at a time; a longer line is skipped
TAB = "\0"  # replaces a tab inside quotes while lines are split


@dataclass(frozen=True)
class Narrations:
    """N narrations of some videos in the order of the file, with an index for searching."""

    starts: np.ndarray  # (N,) seconds in the video
    ends: np.ndarray  # (N,)
    texts: pl.Series  # (N,)
    malformed: pl.DataFrame  # skipped rows: number, fault
    by_start: np.ndarray  # (N,) row numbers sorted by video, then start
    extents: dict[str, tuple[int, int]]  # video uid -> start and stop in by_start
    item: str = "line"  # what the numbers of malformed rows count

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def faults(self) -> dict[str, tuple[int, int]]:
        """Why rows are malformed -> how many are, and the number of the first one."""
        counts = self.malformed.group_by("fault").agg(pl.len(), pl.col("row").min())
        counts = counts.sort("len", "row", descending=[True, False])
        return {fault: (rows, first) for fault, rows, first in counts.iter_rows()}

    def describe_skipped(self) -> str:
        reasons = ", ".join(
            f"{rows} with {fault} (first: {self.item} {first})"
            for fault, (rows, first) in self.faults.items()
        )
        return f"{len(self.malformed)} malformed rows skipped" + (reasons and f": {reasons}")

    def inside(self, video_uid: str, start: float, end: float) -> np.ndarray:
        """Numbers of the rows of a video that lie entirely in [start, end] s, in file order."""
        rows = self.by_start[slice(*self.extents.get(video_uid, (0, 0)))]
        starts = self.starts[rows]
        low = np.searchsorted(starts, start, side="left")
        high = np.searchsorted(starts, end, side="right")
        rows = rows[low:high]
        return np.sort(rows[self.ends[rows] <= end])


def index_narrations(
    video_uids: Sequence[str], table: pl.DataFrame, malformed: pl.DataFrame, item: str
) -> Narrations:
    """Index narrations for searching.

    Args:
        video_uids: (V,) names of the videos.
        table: N rows of video (number), start, end (seconds in the video), text.
    """
    video, start, end, text = table.get_columns()
    by_start = table.select(pl.arg_sort_by("video", "start")).to_series().to_numpy()
    numbers = np.arange(len(video_uids) + 1)
    bounds = np.searchsorted(video.to_numpy(), numbers, sorter=by_start).tolist()
    extents = dict(zip(video_uids, pairwise(bounds), strict=True))
    return Narrations(start.to_numpy(), end.to_numpy(), text, malformed, by_start, extents, item)


def read_narrations(path: str | Path, video_uids: Sequence[str]) -> Narrations:
    """Read EgoClip's narrations of `video_uids` (distinct).

    Fields in double quotes are read as in pandas, if the quotes are closed on the same line.
    Malformed rows are skipped and counted by reason: too many fields, times that are missing or not
    finite, an end before the start, an empty text, a NUL byte, a quote that is not closed on its
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
    with bar, path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:

        def read(part: slice) -> tuple[RowBlock, int]:
            length = part.stop - part.start
            if length > BLOCK:
                return RowBlock([], _faulty({0: f"more than {BLOCK >> 20} MiB"}), 0, 1), part.stop
            # Unlike a slice of `content`, pread releases the GIL.
            lines = os.pread(file.fileno(), length, part.start)
            return parse_block(path, lines, columns, videos), part.stop

        def blocks() -> Iterator[RowBlock]:
            for block, end in ahead(read, _blocks(content), usable_cores()):
                bar.update(end - bar.n)
                yield block

        return join_blocks(blocks(), video_uids, str(path), 2, "line")


def join_blocks(
    blocks: Iterable[RowBlock], video_uids: Sequence[str], source: str, first: int, item: str
) -> Narrations:
    """Join blocks of narrations, whose rows are numbered from `first` on.

    Blocks hold only rows of the videos, so that memory is bounded.

    Raises:
        UserError: no row is well-formed; the message begins with `source`.
    """
    tables, malformed, well_formed, number = [], [], 0, first
    for block in blocks:
        tables += block.tables
        malformed.append(block.malformed.with_columns(pl.col("row") + number))
        well_formed += block.well_formed
        number += block.rows
    if not well_formed:
        raise UserError(f"{source}: none of its {number - first} {item}s can be read")
    return index_narrations(video_uids, pl.concat(tables), pl.concat(malformed), item)


def _header(path: Path) -> list[str]:
    with open_text(path) as file:
        line = file.readline(1 << 16).rstrip("\r\n")
    columns = [name.strip('"') for name in line.split("\t")]
    if missing := [name for name in COLUMNS if name not in columns]:
        remedy = "NaQ is made from EgoClip's egoclip.csv"
        if line.lstrip().startswith(("{", "[")):
            raise UserError(f"{path}: JSON, such as Ego4D's narration.json: give its --format")
        if all(name in line for name in COLUMNS):
            raise UserError(f"{path}: its columns are not separated by tabs; {remedy}, as released")
        raise UserError(f"{path}: column {', '.join(missing)} is missing from its header")
    return columns


def _blocks(content: mmap) -> Iterator[slice]:
    """Slices of complete lines after the first one; a long line is a slice of its own."""
    start = content.find(b"\n") + 1 or len(content)
    while start < len(content):
        end = content.rfind(b"\n", start, start + BLOCK) + 1
        end = end or content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield slice(start, end)
        start = end


class RowBlock(NamedTuple):
    """The content of consecutive rows of a file."""

    tables: list[pl.DataFrame]  # well-formed rows of the videos: video number, start, end, text
    malformed: pl.DataFrame  # row (from 0), fault
    well_formed: int  # rows, of all videos
    rows: int


def parse_block(path: Path, content: bytes, columns: list[str], videos: pl.Enum) -> RowBlock:
    content, line_faults = _plain_fields(content)
    # An additional column detects rows with too many fields.
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
    blank = fields.select(pl.all_horizontal(pl.all() == "")).to_series()
    table = pl.DataFrame({"video": video, "start": start, "end": end, "text": text})
    block = sort_out(table, videos, {"": blank, "a field too many": surplus != ""})
    return block._replace(malformed=pl.concat([block.malformed, _faulty(line_faults)]))


def sort_out(
    table: pl.DataFrame, videos: pl.Enum, more_checks: Mapping[str, pl.Series]
) -> RowBlock:
    """Select the well-formed rows of the videos; of malformed ones the first fault is kept.

    Args:
        table: video (uid), start, end (seconds; null if invalid), text.
        more_checks: faults -> (N,) bool, the rows that have them; rows of "" are no narrations.
    """
    video, start, end, text = table.get_columns()
    checks = {
        **more_checks,
        "times that are no numbers": ~(start.is_finite() & end.is_finite()).fill_null(False),
        "an end before its start": (start > end).fill_null(False),
        "no text": ~text.str.contains(r"\S"),
    }
    fault = pl.select(
        pl.coalesce(*(pl.when(bad).then(pl.lit(name)) for name, bad in checks.items()))
    ).to_series()
    malformed = pl.DataFrame({"fault": fault}).with_row_index("row").filter(pl.col("fault") != "")
    number = video.cast(videos, strict=False).to_physical()
    well_formed = fault.is_null()
    selected = table.with_columns(number.alias("video")).filter(well_formed & number.is_not_null())
    return RowBlock([selected], malformed, well_formed.sum(), len(table))


def _faulty(faults: dict[int, str]) -> pl.DataFrame:
    """Malformed rows, from the faults of rows by number."""
    columns = {"row": list(faults), "fault": list(faults.values())}
    return pl.DataFrame(columns, schema={"row": pl.UInt32, "fault": pl.String})


def _plain_fields(content: bytes) -> tuple[bytes, dict[int, str]]:
    """Remove quotes around fields; lines that can't be split become blank, and have a fault.

    A tab inside quotes becomes `TAB`. A quote inside an unquoted field is text.
    """
    has_nul = b"\0" in content
    has_quotes = b'\t"' in content or b'\n"' in content or content.startswith(b'"')
    if not has_nul and not has_quotes:
        return content, {}
    faults: dict[int, str] = {}
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        if has_nul and b"\0" in line:
            faults[number] = "a NUL byte"
        elif b'"' in line and (b'\t"' in line or line.startswith(b'"')):
            # With an open quote both rows are read as one.
            text = line.decode("utf-8", "replace").removesuffix("\r") + "\n"
            try:
                rows = list(csv.reader([text, "end"], delimiter="\t"))
            except csv.Error:  # a field of more than 131,072 characters
                rows = []
            if len(rows) == 2:
                fields = [field.replace("\t", TAB) for field in rows[0]]
                lines[number] = "\t".join(fields).encode()
            else:
                faults[number] = "a quote that is not closed"
    for number in faults:
        lines[number] = b""
    return b"\n".join(lines), faults


def _seconds(column: pl.Series) -> pl.Series:
    """Times as numbers, null where they are invalid."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():  # perhaps surrounded by spaces
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers
