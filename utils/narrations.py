"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of the videos asked for, as columns.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from utils.errors import UserError, in_brief
from utils.threads import CORES, ahead

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
BLOCK = 1 << 23  # bytes read at once; a longer line is skipped

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

    Skipped and counted are rows with more fields than the header, times that are missing or no
    finite numbers, an end before the start, an empty text, a NUL byte, a quote that is not closed
    on its line, and lines longer than `BLOCK` bytes. Quotes about a whole field are taken off.

    Raises:
        UserError: the file or one of its columns is missing, or no row can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    columns, videos = _header(path), pl.Enum(list(video_uids))
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, mininterval=0.5)
    parts, faults, rows, line = [], {}, 0, 2
    with bar, path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:

        def read(block: slice) -> tuple["Block", int]:
            if block.stop - block.start > BLOCK:
                return Block.of_long_line(columns, videos), block.stop
            # Unlike a slice of `content`, this leaves the other threads running.
            lines = os.pread(file.fileno(), block.stop - block.start, block.start)
            return Block.parse(path, lines, columns, videos), block.stop

        # Malformed and foreign rows go at once: a few blocks are all that memory holds of them.
        for block, end in ahead(read, _blocks(content), CORES):
            parts.append(block.wanted)
            rows += block.rows
            for fault, (count, first) in block.faults.items():
                before, earliest = faults.get(fault, (0, line + first))
                faults[fault] = before + count, earliest
            line += block.lines
            bar.update(end - bar.n)
    skipped = sum(count for count, _ in faults.values())
    if rows == skipped:
        raise UserError(f"{path}: none of its {rows} rows can be read; fetch it again")
    table = pl.concat(parts)
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
        line = file.readline(1 << 16).decode("utf-8-sig", "replace").rstrip("\r\n")
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


@dataclass(frozen=True)
class Block:
    """What some lines of the file hold."""

    wanted: pl.DataFrame  # well formed rows of the videos asked for
    lines: int
    rows: int  # lines that are not blank
    faults: Faults  # lines counted from 0

    @classmethod
    def parse(cls, path: Path, content: bytes, columns: list[str], videos: pl.Enum) -> "Block":
        """Read the lines; those that can't be split into fields are blanked, and counted."""
        lines = content.count(b"\n") + (not content.endswith(b"\n"))
        faults: Faults = {}
        content = _blank(content, b"\0", "a NUL byte", faults)
        content = _unquote(content, faults)
        # A first line with names gives all rows room for a field too many.
        names = [str(number) for number in range(len(columns) + 1)]
        wanted = [names[columns.index(name)] for name in COLUMNS]
        try:
            fields = pl.read_csv(
                b"\n".join(("\t".join(names).encode(), content)),
                schema=dict.fromkeys(names, pl.String),
                columns=[*wanted, names[-1]],
                separator="\t",
                quote_char=None,
                encoding="utf8-lossy",
                empty_string_is_null=False,
                truncate_ragged_lines=True,
            )
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{path}: damaged ({in_brief(error)}); fetch it again") from None
        blank = fields.select(pl.all_horizontal(pl.all() == "")).to_series()
        table = _rows(*fields.get_columns(), videos)
        malformed = table.with_row_index("line").filter(~pl.col("good") & ~blank)
        for fault, count, first in malformed.group_by("fault").agg(
            pl.len(), pl.col("line").min()
        ).iter_rows():  # fmt: skip
            faults[fault] = count, first
        rows = len(table) - blank.sum() + sum(faults[name][0] for name in UNREAD if name in faults)
        part = table.filter(pl.col("good") & pl.col("video").is_not_null())
        return cls(part.drop("good", "fault"), lines, rows, faults)

    @classmethod
    def of_long_line(cls, columns: list[str], videos: pl.Enum) -> "Block":
        """A line that is skipped without being read."""
        empty = cls.parse(Path(), b"", columns, videos).wanted
        return cls(empty, 1, 1, {f"more than {BLOCK >> 20} MiB": (1, 0)})


UNREAD = ("a NUL byte", "a quote that is not closed")  # faults of lines that are blanked


def _blank(content: bytes, sign: bytes, fault: str, faults: Faults) -> bytes:
    """The content with nothing in the lines that hold the sign; they are counted."""
    if sign not in content:
        return content
    lines = content.split(b"\n")
    found = [number for number, line in enumerate(lines) if sign in line]
    for number in found:
        lines[number] = b""
    faults[fault] = len(found), found[0]
    return b"\n".join(lines)


def _unquote(content: bytes, faults: Faults) -> bytes:
    """The content without the quotes about whole fields, as pandas reads the published file.

    A tab within quotes becomes a space. A quote that does not begin a field is plain text.
    """
    if b'\t"' not in content and not content.startswith(b'"') and b'\n"' not in content:
        return content
    lines = content.split(b"\n")
    unclosed = []
    for number, line in enumerate(lines):
        if b'"' not in line or not (b'\t"' in line or line.startswith(b'"')):
            continue
        # At the end of an open quote the reader would go on with a next line.
        text = line.decode("utf-8", "replace").rstrip("\r") + "\r\n"
        try:
            fields, *beyond = csv.reader([text, "end"], delimiter="\t")
        except csv.Error:  # a field of more than 131,072 characters
            beyond = []
        if beyond:
            lines[number] = "\t".join(field.replace("\t", " ") for field in fields).encode()
        else:
            unclosed.append(number)
            lines[number] = b""
    if unclosed:
        faults["a quote that is not closed"] = len(unclosed), unclosed[0]
    return b"\n".join(lines)


def _rows(
    video: pl.Series, start: pl.Series, end: pl.Series, text: pl.Series, surplus: pl.Series,
    videos: pl.Enum,
) -> pl.DataFrame:  # fmt: skip
    """All rows: video (its number, if it is one of `videos`), start, end, text.

    The column `good` says whether the row is well formed, `fault` what is wrong with it.
    """
    start, end = _seconds(start), _seconds(end)
    known = (start.is_finite() & end.is_finite()).fill_null(False)
    faults = {
        "a field too many": surplus != "",
        "times that are no numbers": ~known,
        "an end before its start": (start > end).fill_null(False),
        "no text": ~text.str.contains(r"\S"),
    }
    reason = pl.coalesce(*(pl.when(bad).then(pl.lit(name)) for name, bad in faults.items()))
    table = pl.DataFrame(
        {
            "video": video.cast(videos, strict=False).to_physical(),
            "start": start,
            "end": end,
            "text": text,
        }
    )
    return table.with_columns(fault=reason).with_columns(good=pl.col("fault").is_null())


def _seconds(column: pl.Series) -> pl.Series:
    """Times as numbers, null where they are none."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():  # perhaps there are spaces about some
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers
