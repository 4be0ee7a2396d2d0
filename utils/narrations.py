"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of the videos asked for, as columns.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from utils.errors import UserError, in_brief

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
SEPARATORS = "\0\1\2\3"  # of which one is in no honest file
BLOCK = 1 << 24  # bytes read at once


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
    by_start = np.lexsort((starts, videos))
    bounds = np.searchsorted(videos, np.arange(len(video_uids) + 1), sorter=by_start).tolist()
    extents = dict(zip(video_uids, pairwise(bounds), strict=True))
    return Narrations(starts, ends, texts, skipped, by_start, extents)


def read_narrations(path: str | Path, video_uids: Sequence[str]) -> Narrations:
    """Read the narrations of `video_uids` (distinct).

    Rows with a wrong number of fields, times that aren't finite numbers, an end before the start,
    an empty text or a NUL byte are skipped and counted. Quotes are plain text.

    Raises:
        UserError: the file or one of its columns is missing, or no row can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    rows = _rows(path, _header(path), pl.Enum(list(video_uids)))
    print(f"reading {path} ({path.stat().st_size / 1e6:.0f} MB)", file=sys.stderr, flush=True)
    # One pass in pieces, in the order of the file; only the rows wanted stay in memory.
    wanted = rows.filter(pl.col("good") & pl.col("video").is_not_null())
    counts = rows.select(pl.len(), pl.col("good").sum().alias("good"))
    try:
        table, counts = pl.collect_all([wanted, counts], engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: damaged ({in_brief(error)}); fetch it again") from None
    total, good = counts.row(0)
    if not good:
        raise UserError(f"{path}: none of its {total} rows can be read; fetch it again")
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


def _absent(path: Path) -> str:
    """A separator that the file doesn't hold; what follows one in a row would be lost uncounted."""
    left = SEPARATORS
    with path.open("rb") as file:
        while left and (block := file.read(BLOCK)):
            left = "".join(byte for byte in left if byte.encode() not in block)
    if not left:
        raise UserError(
            f"{path}: damaged: not a text, it holds bytes that no text does; fetch it again"
        )
    return left[0]


def _rows(path: Path, columns: list[str], videos: pl.Enum) -> pl.LazyFrame:
    """All rows but blank ones: video (its number, if it is one of `videos`), start, end, text.

    The column `good` says whether the row is well formed.
    """
    lines = pl.scan_csv(
        path,
        skip_rows=1,
        has_header=False,
        schema={"line": pl.String},
        separator=_absent(path),  # a table of one column, so that fields can be counted
        truncate_ragged_lines=True,
        quote_char=None,
        encoding="utf8-lossy",
    ).filter(pl.col("line") != "")

    def field(name: str) -> pl.Expr:
        return pl.col("fields").list.get(columns.index(name), null_on_oob=True)

    def seconds(name: str) -> pl.Expr:
        return field(name).str.strip_chars().cast(pl.Float64, strict=False)

    fields = lines.select("line", fields=pl.col("line").str.split("\t")).select(
        complete=pl.col("fields").list.len() == len(columns),
        torn=pl.col("line").str.contains("\0", literal=True),
        video=field("video_uid").cast(videos, strict=False).to_physical(),
        start=seconds("clip_start"),
        end=seconds("clip_end"),
        text=field("clip_text"),
    )
    good = (
        pl.col("complete")
        & ~pl.col("torn")
        & pl.col("start").is_finite()
        & pl.col("end").is_finite()
        & (pl.col("start") <= pl.col("end"))
        & (pl.col("text").str.strip_chars() != "")
    )
    return fields.select("video", "start", "end", "text", good=good.fill_null(False))
