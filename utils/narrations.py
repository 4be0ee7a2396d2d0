"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of the videos asked for, as columns.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from tqdm import tqdm

from utils.errors import UserError, in_brief
from utils.threads import ahead

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
SEPARATORS = "\0\1\2\3"  # of which one is in no honest file
BLOCK = 1 << 24  # bytes read at once
CORES = os.cpu_count() or 1


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
    columns, videos = _header(path), pl.Enum(list(video_uids))
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, mininterval=0.5)
    parts, total, good = [], 0, 0
    with bar, path.open("rb") as file:
        file.readline()
        # Malformed and foreign rows go at once: a few blocks are all that memory holds of them.
        read = ahead(lambda block: _read_block(path, block, columns, videos), _blocks(file), CORES)
        for part, rows, fine in read:
            parts.append(part)
            total, good = total + rows, good + fine
            bar.update(file.tell() - bar.n)
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


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file in blocks of whole lines."""
    begun = b""
    while block := file.read(BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield begun + block[:end]
            begun = b""
        begun += block[end:]
    if begun:
        yield begun


def _read_block(
    path: Path, block: bytes, columns: list[str], videos: pl.Enum
) -> tuple[pl.DataFrame, int, int]:
    """The rows wanted of some lines, how many rows there are, and how many are well formed."""
    # A table of one column, so that fields can be counted. What follows a separator in a row would
    # be lost uncounted, so it is a byte that isn't there.
    absent = next((byte for byte in SEPARATORS if byte.encode() not in block), None)
    if absent is None:
        raise UserError(
            f"{path}: damaged: not a text, it holds bytes that no text does; fetch it again"
        )
    try:
        lines = pl.read_csv(
            block,
            has_header=False,
            schema={"line": pl.String},
            separator=absent,
            truncate_ragged_lines=True,
            quote_char=None,
            encoding="utf8-lossy",
        )
    except pl.exceptions.NoDataError:  # blank lines alone
        lines = pl.DataFrame({"line": []}, schema={"line": pl.String})
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: damaged ({in_brief(error)}); fetch it again") from None
    rows = _rows(lines.lazy().filter(pl.col("line") != ""), columns, videos).collect()
    wanted = rows.filter(pl.col("good") & pl.col("video").is_not_null()).drop("good")
    return wanted, len(rows), int(rows["good"].sum())


def _rows(lines: pl.LazyFrame, columns: list[str], videos: pl.Enum) -> pl.LazyFrame:
    """All rows: video (its number, if it is one of `videos`), start, end, text.

    The column `good` says whether the row is well formed.
    """

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
