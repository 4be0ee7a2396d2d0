"""Feature rows compared with those that another program made of the same clip."""

from typing import NamedTuple

import numpy as np

from utils.features.cards import rows_off

MOST_SHIFT = 8  # rows that are tried, before and after
ALIKE = 0.95  # least mean cosine of rows of one encoder
DRIFT = 2  # rows: a grid of 1.87 rows a second against one of 1.875, in the middle of a long clip


class Likeness(NamedTuple):
    """How rows of a clip compare with other rows of it."""

    rows: int
    other_rows: int
    cosine: float  # mean of row k with the other row k
    shift: int  # s: row k is most like the other row k + s
    best_cosine: float  # with that shift
    far_cosine: float  # of rows half a clip apart: what the content does not explain

    @property
    def match(self) -> bool:
        """Whether both may be rows of one encoder."""
        rows_fit = not rows_off(np.array(self.rows), np.array(self.other_rows))
        return bool(rows_fit and self.best_cosine >= ALIKE and abs(self.shift) <= DRIFT)


def compare_rows(features: np.ndarray, others: np.ndarray) -> Likeness:
    """Compare (R, F) with (S, F); rows of zeros, which published programs leave, do not count."""
    units, other_units = unit_rows(features), unit_rows(others)

    def cosine(shift: int) -> float:
        rows = np.arange(max(0, -shift), min(len(units), len(other_units) - shift))
        cosines = (units[rows] * other_units[rows + shift]).sum(1)
        written = units[rows].any(1) & other_units[rows + shift].any(1)
        return float(cosines[written].mean()) if written.any() else 0.0

    shift = max(range(-MOST_SHIFT, MOST_SHIFT + 1), key=lambda shift: (cosine(shift), -abs(shift)))
    half = min(len(units), len(other_units)) // 2
    return Likeness(len(units), len(other_units), cosine(0), shift, cosine(shift), cosine(half))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay."""
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
