"""Scores of predicted windows: R@k IoU=t, mIoU, and their tables.

Windows are `[start, end]` in seconds. Shapes: R rows (queries), K predicted windows per query, best
first. Figures are shares from 0 to 1; tables and `Scores.percentages` are in per cent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from terminaltables import AsciiTable

from utils.base.errors import UserError
from utils.base.tables import figure_table

RANKING_THRESHOLDS = (0.3, 0.5)  # the challenge ranks by the mean R@1 over these


@dataclass(frozen=True)
class Scores:
    thresholds: tuple[float, ...]
    topK: tuple[int, ...]
    figures: dict[str, float]  # means of `query_figures`, by name
    evaluated: int  # queries scored
    listed: int  # all queries

    @property
    def recalls(self) -> list[float]:
        """R@k IoU=t for each k and, within it, each threshold."""
        return list(self.figures.values())[: len(self.topK) * len(self.thresholds)]

    def percentages(self) -> dict[str, float | int]:
        """All figures by name (`R@1 IoU=0.3`, `mIoU`, ...) in per cent, and the two counts."""
        figures = {name: 100 * share for name, share in self.figures.items()}
        return {**figures, "evaluated": self.evaluated, "listed": self.listed}

    def summary(self) -> str:
        """The challenge's ranking figure and the counts, as the line below a table."""
        thresholds = " and ".join(f"{threshold:g}" for threshold in RANKING_THRESHOLDS)
        return (
            f"mean R@1 over IoU {thresholds}: {_percent(self.figures['mean R@1'])}; "
            f"{self.evaluated} of {self.listed} queries evaluated"
        )


def iou(windows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of windows (..., 2) and (..., 2), broadcast; 0/0 and NaN give 0."""
    starts, ends = (windows[..., 0], others[..., 0]), (windows[..., 1], others[..., 1])
    overlap = np.maximum(np.minimum(*ends) - np.maximum(*starts), 0.0)
    union = np.maximum(*ends) - np.minimum(*starts)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def query_figures(
    truth: np.ndarray, windows: np.ndarray, thresholds: Sequence[float], topK: Sequence[int]
) -> dict[str, np.ndarray]:
    """Figures of each query (R,) by name; their means are the scores.

    `R@k IoU=t` for each k and threshold, `mIoU` of the first window, and `mean R@1`, the
    challenge's ranking figure, over `RANKING_THRESHOLDS`.

    Args:
        truth: (R, 2) seconds.
        windows: (R, K, 2) seconds; a window of NaN is a miss.
        thresholds: the IoU of a hit is above the threshold.
    """
    overlaps = iou(windows, truth[:, None])  # (R, K)
    best = np.maximum.accumulate(overlaps, axis=1)
    figures = {
        f"R@{k} IoU={threshold:g}": (best[:, min(k, best.shape[1]) - 1] > threshold).astype(float)
        for k in topK
        for threshold in thresholds
    }
    first_hits = [overlaps[:, 0] > threshold for threshold in RANKING_THRESHOLDS]
    return {**figures, "mean R@1": np.mean(first_hits, axis=0), "mIoU": overlaps[:, 0]}


def evaluate(
    truth: np.ndarray,
    windows: np.ndarray,
    thresholds: Sequence[float] = RANKING_THRESHOLDS,
    topK: Sequence[int] = (1, 3, 5),
    listed: int | None = None,
) -> Scores:
    """Score predictions.

    Args:
        truth: (R, 2); rows of NaN are not evaluated.
        windows: (R, K, 2), best first; a window of NaN is a miss.
        thresholds: the IoU of a hit is above the threshold.
        listed: number of queries, evaluated or not; by default R.

    Raises:
        UserError: no row has a known window.
    """
    evaluated = ~np.isnan(truth).any(axis=1)
    if not evaluated.any():
        raise UserError("none of the queries has a known window: nothing to score against")
    thresholds, topK = dict.fromkeys(thresholds), dict.fromkeys(topK)  # without duplicates
    figures = query_figures(truth[evaluated], windows[evaluated], thresholds, topK)
    return Scores(
        thresholds=tuple(thresholds),
        topK=tuple(topK),
        figures={name: float(values.mean()) for name, values in figures.items()},
        evaluated=int(evaluated.sum()),
        listed=len(truth) if listed is None else listed,
    )


def score_table(scores: Scores, title: str | None = None) -> str:
    """The published table; its columns `Rank@k mIoU@t` are R@k IoU=t."""
    names = [f"Rank@{k}\nmIoU@{t}" for k in scores.topK for t in scores.thresholds]
    shares = [*scores.recalls, scores.figures["mIoU"]]
    table = AsciiTable([[*names, "mIoU"], list(map(_percent, shares))], title)
    table.justify_columns = dict.fromkeys(range(len(names)), "center")  # as published
    return table.table


def breakdown_table(groups: dict[str, Scores], title: str) -> str:
    """A table with a line for each group: its number of queries, R@k IoU=t, mIoU."""
    protocol = next(iter(groups.values()))
    names = [f"R@{k}\nIoU={t:g}" for k in protocol.topK for t in protocol.thresholds]
    lines = [["", "queries", *names, "mIoU"]]
    for name, scores in groups.items():
        shares = [*scores.recalls, scores.figures["mIoU"]]
        lines.append([name, str(scores.evaluated), *map(_percent, shares)])
    return f"{title}\n{figure_table(lines)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
