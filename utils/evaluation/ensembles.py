"""Challenge files of several models merged into one, query by query.

Shapes: R rows (queries), F files, K windows of each, N windows of all.
"""

from collections.abc import Callable

import numpy as np

from utils.evaluation.metrics import iou
from utils.evaluation.predictions import WINDOWS, suppress

APART = 2.0  # seconds between the centres of neighbouring clusters, at least
FROM_EACH = 4  # windows of each model that follow its first choice
OVERLAP = 0.5  # IoU above which the lower-scored window is dropped

Scored = np.ndarray  # (3,) start, end, score


def merge(
    windows: np.ndarray, scores: np.ndarray, merge_query: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows (R, 5, 2) of several files and their scores (R, 5), best first.

    Args:
        windows: (R, F, K, 2) seconds, best first; NaN for none.
        scores: (R, F, K), 0 or more.
        merge_query: `by_agreement` or `by_clusters`, (F, K, 3) windows with scores -> (5, 3).
    """
    scored = np.concatenate((windows, scores[..., None]), 3)
    merged = np.stack([merge_query(query) for query in scored])
    return merged[..., :2], merged[..., 2]


def by_agreement(scored: np.ndarray, threshold: float) -> np.ndarray:
    """(F, K, 3) windows with scores -> (5, 3): what several files agree on leads.

    To a window's score is added, from each other file, the best score times IoU of a window that is
    the same for temporal NMS; then temporal NMS. A file's order stands: a window scores no more
    than those before it (temporal NMS may have brought a worse one forward). Where there are fewer
    than five different windows the best one is repeated with score 0.
    """
    exists = ~np.isnan(scored).any(2)  # (F, K)
    file, _ = np.nonzero(exists)  # (N,)
    windows = scored[exists, :2]
    scores = np.minimum.accumulate(scored[..., 2], axis=1)[exists]
    equal = (windows[:, None] == windows).all(2)  # (N, N)
    overlaps = np.where(equal, 1.0, iou(windows[:, None], windows))
    support = np.where(equal | (overlaps > threshold), overlaps * scores, 0.0)
    totals = scores.copy()
    for number in np.unique(file):
        totals += np.where(file == number, 0.0, support[:, file == number].max(1))
    first = ~np.tril(equal, -1).any(1)  # of equal windows
    count = min(WINDOWS, np.count_nonzero(first))
    [windows], [totals] = suppress(windows[None, first], totals[None, first], threshold, count)
    kept = np.concatenate((windows, totals[:, None]), 1)
    filler = [*windows[0], 0.0]
    return np.stack([*kept, *[filler] * (WINDOWS - count)])


def by_clusters(scored: np.ndarray) -> np.ndarray:
    """(F, K, 3) windows with scores -> (5, 3), as published with GroundNLQ.

    A cluster of first windows offers the mean of its middle window and its best; to these come the
    best windows of each file, and what overlaps a better one is dropped.
    """
    offers = scored[:, :FROM_EACH].reshape(-1, 3)
    offers = np.concatenate((offers, cluster_means(scored[:, 0])))
    offers = offers[~np.isnan(offers).any(1)]
    kept: list[Scored] = []
    for offer in offers[np.argsort(-offers[:, 2], kind="stable")]:
        overlaps = iou(np.array([window[:2] for window in kept]).reshape(-1, 2), offer[:2])
        if not (overlaps > OVERLAP).any():
            kept.append(offer)
    return np.stack((kept + kept[-1:] * WINDOWS)[:WINDOWS])


def cluster_means(firsts: np.ndarray) -> np.ndarray:
    """First windows (F, 3) of F models -> a window (clusters, 3) of each cluster, best sum first.

    Of windows with the same centre the last counts, as published.
    """
    by_centre = {window[:2].mean(): window for window in firsts if not np.isnan(window).any()}
    centres = np.array(sorted(by_centre))
    windows = np.array([by_centre[centre] for centre in centres]).reshape(-1, 3)
    clusters = np.split(windows, np.flatnonzero(np.diff(centres) >= APART) + 1)
    clusters.sort(key=lambda cluster: -cluster[:, 2].sum())
    return np.array([_mean(cluster) for cluster in clusters if len(cluster)]).reshape(-1, 3)


def _mean(cluster: np.ndarray) -> Scored:
    """Of the middle window (of two, the better scored one) and the best scored one."""
    middle = cluster[(len(cluster) - 1) // 2 : len(cluster) // 2 + 1]
    return (middle[middle[:, 2].argmax()] + cluster[cluster[:, 2].argmax()]) / 2
