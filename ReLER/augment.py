"""Augmentation of a batch: which rows of which clips make up each sample, and its window there.

Nothing here reads features: a sample is a part of its own clip, perhaps laid into a cut of another
clip, given by four numbers. Its draws are a row of the epoch's plan, and so the same in any batch
and any process.

Shapes: B batch; clips, rows and seconds are aligned (B,) or (B, 2) columns.
"""

from typing import NamedTuple

import numpy as np

from ReLER.options import SCALES
from utils.base.tasks import ROWS_PER_SECOND

KEPT_SHARE = (0.4, 0.8)  # of a clip's rows, by the sliding window
SPLICE_CHANCE = 0.5
COLUMNS = 13  # of draws a query, in the plan of an epoch


class Draws(NamedTuple):
    """Uniform numbers in [0, 1) that a sample needs, each (B,) or (B, 2): columns of a plan."""

    share: np.ndarray
    length: np.ndarray
    first: np.ndarray
    splice: np.ndarray
    other: np.ndarray
    cut: np.ndarray
    jitter: np.ndarray  # (B, 2)
    salient: np.ndarray  # (B, 2)
    unsalient: np.ndarray  # (B, 2)

    @classmethod
    def of(cls, columns: np.ndarray) -> "Draws":
        """Those of samples whose (B, COLUMNS) draws are given."""
        return cls(*columns[:, :6].T, columns[:, 6:8], columns[:, 8:10], columns[:, 10:12])


def draw_parts(columns: np.ndarray) -> int:
    """Into how many parts the clips of a batch are cut, by the draws of its first query."""
    return SCALES[int(columns[12] * len(SCALES))]


class Cuts(NamedTuple):
    """What a sample is made of: `length` rows of a clip from `first` on.

    If spliced, row `cut` of the other clip comes after them; else `other` is -1 and `cut` 0.
    """

    clip: np.ndarray  # (B,) clip number
    first: np.ndarray  # (B,) first row kept
    length: np.ndarray  # (B,) rows kept
    other: np.ndarray  # (B,) clip number the part is laid into, or -1
    cut: np.ndarray  # (B,) rows of the other clip that come before the part
    rows: np.ndarray  # (B,) rows of the sample in all


def whole_clips(clip: np.ndarray, rows: np.ndarray) -> Cuts:
    """Samples that are their clips, unchanged."""
    zero = np.zeros_like(rows)
    return Cuts(clip, zero, rows, zero - 1, zero, rows)


def cut_windows(
    clip: np.ndarray,
    seconds: np.ndarray,
    clip_rows: np.ndarray,
    query_clips: np.ndarray,
    draws: Draws,
) -> tuple[Cuts, np.ndarray]:
    """Variable-length sliding windows, spliced into other clips with a chance of one in two.

    Args:
        clip: (B,) clip numbers.
        seconds: (B, 2) windows of the answers in their clips.
        clip_rows: (C,) feature rows of all clips.
        query_clips: (R,) clip numbers of all training queries: the clip of one of them, drawn
            anew for each sample, is what it is spliced into, perhaps its own, as published.

    Returns:
        The cuts, and the (B, 2) seconds of the answers in what they make up.
    """
    rows = clip_rows[clip]
    seconds = np.clip(seconds, 0, (rows / ROWS_PER_SECOND)[:, None])
    low = np.minimum(np.floor(seconds[:, 0] * ROWS_PER_SECOND).astype(np.int64), rows - 1)
    high = np.minimum(np.ceil(seconds[:, 1] * ROWS_PER_SECOND).astype(np.int64), rows)
    high = np.maximum(high, low + 1)

    least, most = KEPT_SHARE
    length = np.maximum(((least + (most - least) * draws.share) * rows).astype(np.int64), 1)
    too_long = high - low > length
    length = np.where(too_long, _between(high - low, rows, draws.length), length)
    first = _between(np.maximum(high - length, 0), np.minimum(low, rows - length), draws.first)

    spliced = draws.splice < SPLICE_CHANCE
    other = query_clips[(draws.other * len(query_clips)).astype(np.int64)]
    other = np.where(spliced, other, -1)
    other_rows = np.where(spliced, clip_rows[other], 0)
    cut = _between(np.zeros_like(rows), other_rows, draws.cut)
    cuts = Cuts(clip, first, length, other, cut, length + other_rows)
    return cuts, seconds + ((cut - first) / ROWS_PER_SECOND)[:, None]


def label_units(seconds: np.ndarray, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(B, 2) first and last unit of windows in samples of so many rows pooled to so many units."""
    share = np.minimum(seconds / (rows / ROWS_PER_SECOND)[:, None], 1)
    position = np.maximum(share, 0) * (units - 1)[:, None]
    return np.stack((np.floor(position[:, 0]), np.ceil(position[:, 1])), 1).astype(np.int64)


def salient_spans(windows: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(B, 2) first and last unit that count as salient: the window without its last unit.

    So published; a window of one unit is moved back by one, except for a sample's first unit.
    """
    last = np.maximum(np.minimum(windows[:, 1], units) - 1, 0)
    return np.stack((np.minimum(windows[:, 0], last), last), 1)


def draw_inside(spans: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, 2) two units of each span, different ones if it has two."""
    return spans[:, :1] + _pairs(spans[:, 1] - spans[:, 0] + 1, draws)


def draw_outside(spans: np.ndarray, units: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, 2) two different units outside each span; (0, 0) if there are fewer than two."""
    length = spans[:, 1] - spans[:, 0] + 1
    positions = _pairs(units - length, draws)
    positions = np.where(positions >= spans[:, :1], positions + length[:, None], positions)
    return np.where((units - length >= 2)[:, None], positions, 0)


def _pairs(count: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, 2) two of `count` numbers from 0, without putting the first back."""
    first = (draws[:, 0] * count).astype(np.int64)
    step = 1 + (draws[:, 1] * (count - 1)).astype(np.int64)
    return np.stack((first, (first + step) % np.maximum(count, 1)), 1)


def _between(low: np.ndarray, high: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whole numbers from `low` to `high`, both included."""
    return low + (draws * (high - low + 1)).astype(np.int64)
