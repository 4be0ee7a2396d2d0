"""Augmentation: the rows of which clips each sample consists of, and its window in them.

Features are not read here: a sample is a part of its clip, which may be inserted into another clip.
Its random draws are a row of the epoch's plan, the same in any batch and process.

Shapes: B batch; clips, rows and seconds are aligned (B,) or (B, 2) columns.
"""

from typing import NamedTuple

import numpy as np

from ReLER.options import SCALES
from utils.base.tasks import ROWS_PER_SECOND

PART_SHARE = (0.4, 0.8)  # smallest and largest share of a clip's rows in the sliding window
SPLICE_PROBABILITY = 0.5
COLUMNS = 13  # of draws, in the plan of an epoch


class Draws(NamedTuple):
    """Uniform random numbers in [0, 1) for each sample, (B,) or (B, 2): columns of a plan."""

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
        """Split (B, COLUMNS) draws."""
        return cls(*columns[:, :6].T, columns[:, 6:8], columns[:, 8:10], columns[:, 10:12])


def draw_parts(columns: np.ndarray) -> int:
    """The number of parts that a batch's clips are cut into, by the draws of its first query."""
    return SCALES[int(columns[12] * len(SCALES))]


class Cuts(NamedTuple):
    """A sample: `length` rows of a clip from row `first` on.

    A spliced sample has them between rows `cut` - 1 and `cut` of another clip; otherwise `other` is
    -1 and `cut` is 0.
    """

    clip: np.ndarray  # (B,) clip number
    first: np.ndarray  # (B,) first row of the part
    length: np.ndarray  # (B,) rows of the part
    other: np.ndarray  # (B,) number of the clip that the part is inserted into, or -1
    cut: np.ndarray  # (B,) rows of the other clip before the part
    rows: np.ndarray  # (B,) rows of the sample


def whole_clips(clip: np.ndarray, rows: np.ndarray) -> Cuts:
    """Samples that are complete clips."""
    zero = np.zeros_like(rows)
    return Cuts(clip, zero, rows, zero - 1, zero, rows)


def cut_windows(
    clip: np.ndarray,
    seconds: np.ndarray,
    clip_rows: np.ndarray,
    query_clips: np.ndarray,
    draws: Draws,
) -> tuple[Cuts, np.ndarray]:
    """Variable-length sliding windows, inserted into other clips with probability 1/2.

    Args:
        clip: (B,) clip numbers.
        seconds: (B, 2) windows of the answers in their clips.
        clip_rows: (C,) feature rows of all clips.
        query_clips: (R,) clip numbers of all training queries; a sample is inserted into the clip
            of a random one, which may be its own clip, as published.

    Returns:
        The cuts, and (B, 2) windows of the answers in seconds of the samples.
    """
    rows = clip_rows[clip]
    seconds = np.clip(seconds, 0, (rows / ROWS_PER_SECOND)[:, None])
    low = np.minimum(np.floor(seconds[:, 0] * ROWS_PER_SECOND).astype(np.int64), rows - 1)
    high = np.minimum(np.ceil(seconds[:, 1] * ROWS_PER_SECOND).astype(np.int64), rows)
    high = np.maximum(high, low + 1)

    smallest, largest = PART_SHARE
    share = smallest + (largest - smallest) * draws.share
    length = np.maximum((share * rows).astype(np.int64), 1)
    is_too_short = high - low > length
    length = np.where(is_too_short, _between(high - low, rows, draws.length), length)
    first = _between(np.maximum(high - length, 0), np.minimum(low, rows - length), draws.first)

    is_spliced = draws.splice < SPLICE_PROBABILITY
    other = query_clips[(draws.other * len(query_clips)).astype(np.int64)]
    other = np.where(is_spliced, other, -1)
    other_rows = np.where(is_spliced, clip_rows[other], 0)
    cut = _between(np.zeros_like(rows), other_rows, draws.cut)
    cuts = Cuts(clip, first, length, other, cut, length + other_rows)
    return cuts, seconds + ((cut - first) / ROWS_PER_SECOND)[:, None]


def label_units(seconds: np.ndarray, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(B, 2) first and last unit of windows, in samples of `rows` rows pooled to `units` units."""
    share = np.minimum(seconds / (rows / ROWS_PER_SECOND)[:, None], 1)
    position = np.maximum(share, 0) * (units - 1)[:, None]
    return np.stack((np.floor(position[:, 0]), np.ceil(position[:, 1])), 1).astype(np.int64)


def salient_spans(windows: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(B, 2) first and last salient unit: the window without its last unit.

    As published; a window of one unit is moved back by one, except for a sample's first unit.
    """
    last_unit = np.maximum(np.minimum(windows[:, 1], units) - 1, 0)
    return np.stack((np.minimum(windows[:, 0], last_unit), last_unit), 1)


def draw_inside(spans: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, 2) two random units of each span, different ones if it has several."""
    return spans[:, :1] + _pairs(spans[:, 1] - spans[:, 0] + 1, draws)


def draw_outside(spans: np.ndarray, units: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, 2) two different random units outside each span; (0, 0) if there are fewer than two."""
    length = spans[:, 1] - spans[:, 0] + 1
    positions = _pairs(units - length, draws)
    positions = np.where(positions >= spans[:, :1], positions + length[:, None], positions)
    return np.where((units - length >= 2)[:, None], positions, 0)


def _pairs(count: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, 2) two of the numbers 0 to `count` - 1, drawn without replacement."""
    first = (draws[:, 0] * count).astype(np.int64)
    step = 1 + (draws[:, 1] * (count - 1)).astype(np.int64)
    return np.stack((first, (first + step) % np.maximum(count, 1)), 1)


def _between(low: np.ndarray, high: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whole numbers from `low` to `high`, both included."""
    return low + (draws * (high - low + 1)).astype(np.int64)
