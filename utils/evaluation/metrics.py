"""Scores of predicted windows: R@k IoU=t, mIoU, and their tables.

Windows are `[start, end]` in seconds. Shapes: R rows (queries), K predicted windows a query, best
first. Recalls and IoU are shares from 0 to 1; tables and `Scores.percentages` are in per cent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from terminaltables import AsciiTable

from utils.base.errors import UserError

RANKING_THRESHOLDS = (0.3, 0.5)  # the challenge ranks by the mean R@1 over these


@dataclass(frozen=True)
class Scores:
    """How well a set of queries is answered."""

    thresholds: tuple[float, ...]
    topK: tuple[int, ...]
    recall: np.ndarray  # (thresholds, topK) R@k IoU=t
    mIoU: float  # of the first predictions
    mean_R1: float  # mean R@1 over IoU 0.3 and 0.5, whatever the thresholds
    evaluated: int  # queries scored
    listed: int  # queries there are

    def percentages(self) -> dict[str, float | int]:
        """All figures by name (`R@1 IoU=0.3`, `mIoU`, ...) in per cent, and the two counts."""
        figures = {
            f"R@{k} IoU={threshold:g}": 100 * float(self.recall[row, column])
            for column, k in enumerate(self.topK)
            for row, threshold in enumerate(self.thresholds)
        }
        figures |= {"mIoU": 100 * self.mIoU, "mean R@1": 100 * self.mean_R1}
        return {**figures, "evaluated": self.evaluated, "listed": self.listed}

    def summary(self) -> str:
        """The challenge's ranking figure and the counts, as a line to stand under a table."""
        thresholds = " and ".join(f"{threshold:g}" for threshold in RANKING_THRESHOLDS)
        return (
            f"mean R@1 over IoU {thresholds}: {100 * self.mean_R1:.2f}; "
            f"{self.evaluated} of {self.listed} queries evaluated"
        )


def iou(windows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of windows (..., 2) and (..., 2), broadcast; 0/0 and NaN give 0."""
    starts, ends = (windows[..., 0], others[..., 0]), (windows[..., 1], others[..., 1])
    overlap = np.maximum(np.minimum(*ends) - np.maximum(*starts), 0.0)
    union = np.maximum(*ends) - np.minimum(*starts)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def evaluate(
    ground_truth: np.ndarray,
    predictions: np.ndarray,
    thresholds: Sequence[float] = RANKING_THRESHOLDS,
    topK: Sequence[int] = (1, 3, 5),
    listed: int | None = None,
) -> Scores:
    """Score predictions.

    Args:
        ground_truth: (R, 2); rows of NaN have no known window and are not evaluated.
        predictions: (R, K, 2), best first; a window of NaN answers nothing.
        thresholds: an IoU must be above, not at, the threshold to count.
        listed: how many queries there are, evaluated or not; R if not given.

    Raises:
        UserError: no row has a known window.
    """
    known = ~np.isnan(ground_truth).any(axis=1)
    if not known.any():
        raise UserError("none of the queries has a known window: nothing to score against")
    overlaps = iou(predictions[known], ground_truth[known][:, None])  # (R, K)
    best = np.maximum.accumulate(overlaps, axis=1)
    columns = np.minimum(topK, best.shape[1]) - 1
    return Scores(
        thresholds=tuple(thresholds),
        topK=tuple(topK),
        recall=np.stack([(best[:, columns] > t).mean(axis=0) for t in thresholds]),
        mIoU=float(overlaps[:, 0].mean()),
        mean_R1=float(np.mean([(overlaps[:, 0] > t).mean() for t in RANKING_THRESHOLDS])),
        evaluated=int(known.sum()),
        listed=len(ground_truth) if listed is None else listed,
    )


def breakdown(
    ground_truth: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    thresholds: Sequence[float] = RANKING_THRESHOLDS,
    topK: Sequence[int] = (1, 3, 5),
) -> dict[int, Scores]:
    """Scores of each group of queries that has a known window; `groups` (R,), below 0 for none."""
    groups = np.where(np.isnan(ground_truth).any(axis=1), -1, groups)
    return {
        int(group): evaluate(ground_truth[rows], predictions[rows], thresholds, topK)
        for group in np.unique(groups[groups >= 0])
        for rows in [groups == group]
    }


def score_table(scores: Scores, title: str | None = None, mean_R1: bool = False) -> str:
    """The published table; its columns `Rank@k mIoU@t` are recalls, named so in published logs."""
    heads = [f"Rank@{k}\nmIoU@{t}" for k in scores.topK for t in scores.thresholds]
    cells = [_percent(value) for value in scores.recall.T.ravel()]
    heads, cells = [*heads, "mIoU"], [*cells, _percent(scores.mIoU)]
    if mean_R1:
        heads, cells = ["meanR1", *heads], [_percent(scores.mean_R1), *cells]
    table = AsciiTable([heads, cells], title)
    # All columns but the last, as published.
    table.justify_columns = dict.fromkeys(range(len(heads) - 1), "center")
    return table.table


def breakdown_table(groups: dict[str, Scores], title: str) -> str:
    """A line for each named group: its number of queries, R@k IoU=t, mIoU."""
    one = next(iter(groups.values()))
    recalls = [f"R@{k}\nIoU={t:g}" for k in one.topK for t in one.thresholds]
    lines = [["", "queries", *recalls, "mIoU"]]
    for name, scores in groups.items():
        cells = [_percent(value) for value in scores.recall.T.ravel()]
        lines.append([name, str(scores.evaluated), *cells, _percent(scores.mIoU)])
    table = AsciiTable(lines, title)
    table.justify_columns = dict.fromkeys(range(1, len(lines[0])), "right")
    return table.table


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
