"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of the videos asked for, as columns.
"""

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
BLOCK = 1 << 23  # bytes read at once


@dataclass(frozen=True)
class Narrations:
    """Narrations of some videos (N rows, in the order of the file), ready to be searched."""

    starts: np.ndarray  # (N,) seconds in the video
    ends: np.ndarray  # (N,)
    texts: pl.Series  # (N,)
    skipped: int  # malformed rows of the whole file
    by_start: np.ndarray  # (N,) row numbers sorted by video, then start
    extents: dict[str, tuple[int, int]]  # video uid -> its part of by_start

    def __len__(self) -> int:
        return len(self.starts)

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
    skipped: int = 0,
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
    return Narrations(starts, ends, texts, skipped, by_start, extents)


def read_narrations(path: str | Path, video_uids: Sequence[str]) -> Narrations:
    """Read the narrations of `video_uids` (distinct).

    Rows with more fields than the header, times that are missing or no finite numbers, an end
    before the start, an empty text or a NUL byte are skipped and counted. Quotes are plain text.

    Raises:
        UserError: the file or one of its columns is missing, or no row can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    columns, videos = _header(path), pl.Enum(list(video_uids))
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, mininterval=0.5)
    parts, total, good = [], 0, 0
    with bar, path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:

        def read(block: slice) -> tuple[pl.DataFrame, int, int, int]:
            # Unlike a slice of `content`, this leaves the other threads running.
            lines = os.pread(file.fileno(), block.stop - block.start, block.start)
            return *_read_block(path, lines, columns, videos), block.stop

        # Malformed and foreign rows go at once: a few blocks are all that memory holds of them.
        for part, rows, fine, end in ahead(read, _blocks(content), CORES):
            parts.append(part)
            total, good = total + rows, good + fine
            bar.update(end - bar.n)
    if not good:
        raise UserError(f"{path}: none of its {total} rows can be read; fetch it again")
    table = pl.concat(parts)
    return index_narrations(
        video_uids,
        table["video"].to_numpy(),
        table["start"].to_numpy(),
        table["end"].to_numpy(),
        table["text"],
        skipped=total - good,
    )


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        columns = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    if missing := [name for name in COLUMNS if name not in columns]:
        raise UserError(f"{path}: column {', '.join(missing)} is missing from its header")
    return columns


def _blocks(content: mmap) -> Iterator[slice]:
    """Whole lines after the first, as parts of the file's content."""
    start = content.find(b"\n") + 1 or len(content)
    while start < len(content):
        end = content.rfind(b"\n", start, start + BLOCK) + 1
        end = end or content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield slice(start, end)
        start = end


def _read_block(
    path: Path, block: bytes, columns: list[str], videos: pl.Enum
) -> tuple[pl.DataFrame, int, int]:
    """The rows wanted of some lines, how many rows there are, and how many are well formed."""
    torn = 0
    if b"\0" in block:
        lines = block.split(b"\n")
        whole = [line for line in lines if b"\0" not in line]
        torn, block = len(lines) - len(whole), b"\n".join(whole)
    # A first line with names gives all rows room for a field too many.
    names = [str(number) for number in range(len(columns) + 1)]
    wanted = [names[columns.index(name)] for name in COLUMNS]
    try:
        fields = pl.read_csv(
            b"\n".join(("\t".join(names).encode(), block)),
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
    rows = _rows(*fields.get_columns(), videos)
    part = rows.filter(pl.col("good") & pl.col("video").is_not_null()).drop("good")
    return part, len(rows) + torn - blank.sum(), rows["good"].sum()


def _rows(
    video: pl.Series, start: pl.Series, end: pl.Series, text: pl.Series, surplus: pl.Series,
    videos: pl.Enum,
) -> pl.DataFrame:  # fmt: skip
    """All rows: video (its number, if it is one of `videos`), start, end, text.

    The column `good` says whether the row is well formed.
    """
    start, end = _seconds(start), _seconds(end)
    whole = (surplus == "") & text.str.contains(r"\S")
    return pl.DataFrame(
        {
            "video": video.cast(videos, strict=False).to_physical(),
            "start": start,
            "end": end,
            "text": text,
            "good": (whole & start.is_finite() & end.is_finite() & (start <= end)).fill_null(False),
        }
    )


def _seconds(column: pl.Series) -> pl.Series:
    """Times as numbers, null where they are none."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():  # perhaps there are spaces about some
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers
