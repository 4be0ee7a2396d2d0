"""EgoClip narrations: which of them lie inside a clip.

In: `egoclip.csv`, tab-separated, 3.85 M rows. Out: the rows of the videos asked for, as columns.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from tqdm import tqdm

from utils.errors import UserError

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
BLOCK = 1 << 24  # bytes read at a time: bounds the memory, whatever the size of the file
WORKERS = 2  # polars has threads of its own; a second block at work fills their pauses

Result = TypeVar("Result")


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
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    parse = partial(_parse, columns=_header(path), videos=pl.Enum(list(video_uids)))
    parts, rows, skipped = [], 0, 0
    for table, row_count, malformed in _in_parallel(parse, _blocks(path)):
        parts.append(table)
        rows += row_count
        skipped += malformed
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


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        columns = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    if missing := [name for name in COLUMNS if name not in columns]:
        raise UserError(f"{path}: column {', '.join(missing)} is missing from its header")
    return columns


def _blocks(path: Path) -> Iterator[bytes]:
    """The file after its header, in blocks of whole lines."""
    size = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {path.name}") as progress,
    ):
        progress.update(len(file.readline()))
        while block := file.read(BLOCK):
            block += file.readline()
            yield block
            progress.update(len(block))


def _parse(block: bytes, columns: list[str], videos: pl.Enum) -> tuple[pl.DataFrame, int, int]:
    """Well-formed rows of the videos: video (its number), start, end, text.

    Also returns how many rows there are, and how many of them are malformed.
    """
    lines = pl.read_csv(
        block.replace(b"\r\n", b"\n").replace(b"\0", b" "),
        separator="\0",  # which is nowhere: a table of one column
        has_header=False,
        schema={"line": pl.String},
        quote_char=None,
        encoding="utf8-lossy",
    )["line"]
    lines = lines.filter(lines != "")

    def field(name: str) -> pl.Expr:
        return pl.col("fields").list.get(columns.index(name), null_on_oob=True)

    def seconds(name: str) -> pl.Expr:
        return field(name).str.strip_chars().cast(pl.Float64, strict=False)

    table = lines.str.split("\t").alias("fields").to_frame()
    table = table.select(
        complete=pl.col("fields").list.len() == len(columns),
        video=field("video_uid").cast(videos, strict=False).to_physical(),
        start=seconds("clip_start"),
        end=seconds("clip_end"),
        text=field("clip_text"),
    )
    well_formed = (
        pl.col("complete")
        & pl.col("start").is_finite()
        & pl.col("end").is_finite()
        & (pl.col("start") <= pl.col("end"))
        & (pl.col("text").str.strip_chars() != "")
    )
    good = table.select(well_formed.fill_null(False)).to_series()
    kept = table.filter(good & table["video"].is_not_null()).drop("complete")
    return kept, len(table), len(table) - int(good.sum())


def _in_parallel(work: Callable[[bytes], Result], blocks: Iterable[bytes]) -> Iterator[Result]:
    """`work(block)` of each block, in order, with only a few blocks in memory."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future[Result]] = deque()
        for block in blocks:
            waiting.append(pool.submit(work, block))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
