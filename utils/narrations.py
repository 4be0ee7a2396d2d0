"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of the videos asked for, as columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from utils.errors import UserError

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
BLOCK = 1 << 22  # bytes read at a time: bounds the memory, whatever the size of the file


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
    or an empty text are skipped and counted. Quotes are plain text.

    Raises:
        UserError: the file or one of its columns is missing, or no row can be read.
    """
    videos = pl.Enum(list(video_uids))
    parts, rows, skipped = [], 0, 0
    for lines, columns in _blocks(Path(path)):
        table = _parse(lines, columns)
        rows += len(table)
        skipped += len(table) - int(table["good"].sum())
        table = table.with_columns(video=table["video"].cast(videos, strict=False).to_physical())
        parts.append(table.filter(table["good"] & table["video"].is_not_null()).drop("good"))
    if rows == skipped:
        raise UserError(f"{path}: none of its {rows} rows can be read; is it tab-separated?")
    table = pl.concat(parts, rechunk=True)
    return index_narrations(
        video_uids,
        table["video"].to_numpy(),
        table["start"].to_numpy(),
        table["end"].to_numpy(),
        table["text"],
        skipped,
    )


def _blocks(path: Path) -> Iterator[tuple[pl.Series, list[str]]]:
    """The file's lines, some 30,000 at a time, with the names of its columns."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    with (
        path.open("rb") as file,
        tqdm(
            total=path.stat().st_size, unit="B", unit_scale=True, desc=f"reading {path.name}"
        ) as progress,
    ):
        header = file.readline()
        columns = header.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
        if missing := [name for name in COLUMNS if name not in columns]:
            raise UserError(f"{path}: column {', '.join(missing)} is missing from its header")
        progress.update(len(header))
        while block := file.read(BLOCK):
            block += file.readline()
            yield _lines(block), columns
            progress.update(len(block))


def _lines(block: bytes) -> pl.Series:
    """The lines of a block that aren't empty."""
    text = pl.Series([block.decode("utf-8", "replace")])
    lines = text.str.split("\n").explode().str.strip_chars_end("\r")
    return lines.filter(lines != "")


def _parse(lines: pl.Series, columns: list[str]) -> pl.DataFrame:
    """Columns video, start, end, text, and good: whether the row is well formed."""
    fields = lines.str.split("\t")

    def field(name: str) -> pl.Series:
        return fields.list.get(columns.index(name), null_on_oob=True)

    def seconds(name: str) -> pl.Series:
        return field(name).str.strip_chars().cast(pl.Float64, strict=False)

    table = pl.DataFrame(
        {
            "video": field("video_uid"),
            "start": seconds("clip_start"),
            "end": seconds("clip_end"),
            "text": field("clip_text"),
        }
    )
    good = (
        (fields.list.len() == len(columns))
        & table["start"].is_finite()
        & table["end"].is_finite()
        & (table["start"] <= table["end"])
        & (table["text"].str.strip_chars() != "")
    )
    return table.with_columns(good=good.fill_null(False))
