"""Narrations of videos as columns, and those that lie inside a clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from utils.base.errors import UserError
from utils.base.lazy import polars as pl


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


class RowBlock(NamedTuple):
    """The content of consecutive rows of a file."""

    tables: list[pl.DataFrame]  # well-formed rows of the videos: video number, start, end, text
    malformed: pl.DataFrame  # row (from 0), fault
    well_formed: int  # rows, of all videos
    rows: int


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


def faulty(faults: dict[int, str]) -> pl.DataFrame:
    """Malformed rows, from the faults of rows by number."""
    columns = {"row": list(faults), "fault": list(faults.values())}
    return pl.DataFrame(columns, schema={"row": pl.UInt32, "fault": pl.String})
