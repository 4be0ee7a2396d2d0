"""Merge challenge files of several models, query by query.

Shapes: R rows (queries), F files, K windows of each, N windows of all.
"""

from collections.abc import Callable

import numpy as np

from utils.evaluation.metrics import iou
from utils.evaluation.predictions import WINDOWS, suppress

CLUSTER_GAP = 2.0  # seconds between the centres of neighbouring clusters, at least
WINDOWS_PER_FILE = 4  # of each model, beside its cluster
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
    """(F, K, 3) windows with scores -> (5, 3), best first: several files vote for a window.

    Each other file adds its best score times IoU of a window that temporal NMS takes for the same;
    then temporal NMS selects windows. Scores of a file are first made non-increasing, because its
    own temporal NMS may have changed their order. If there are fewer than five different windows,
    the best one is repeated with score 0.
    """
    exists = ~np.isnan(scored).any(2)  # (F, K)
    file, _ = np.nonzero(exists)  # (N,)
    windows = scored[exists, :2]
    scores = np.minimum.accumulate(scored[..., 2], axis=1)[exists]
    is_equal = (windows[:, None] == windows).all(2)  # (N, N)
    overlaps = np.where(is_equal, 1.0, iou(windows[:, None], windows))
    support = np.where(is_equal | (overlaps > threshold), overlaps * scores, 0.0)
    totals = scores.copy()
    for number in np.unique(file):
        totals += np.where(file == number, 0.0, support[:, file == number].max(1))
    distinct = ~np.tril(is_equal, -1).any(1)
    count = min(WINDOWS, np.count_nonzero(distinct))
    [windows], [totals] = suppress(
        windows[None, distinct], totals[None, distinct], threshold, count
    )
    selected = np.concatenate((windows, totals[:, None]), 1)
    filler = [*windows[0], 0.0]
    return np.stack([*selected, *[filler] * (WINDOWS - count)])


def by_clusters(scored: np.ndarray) -> np.ndarray:
    """(F, K, 3) windows with scores -> (5, 3), as published with GroundNLQ.

    Candidates are the best windows of each file and, for each cluster of first windows, the mean of
    its middle and its best window; those that overlap a better one are dropped.
    """
    candidates = scored[:, :WINDOWS_PER_FILE].reshape(-1, 3)
    candidates = np.concatenate((candidates, cluster_means(scored[:, 0])))
    candidates = candidates[~np.isnan(candidates).any(1)]
    selected: list[Scored] = []
    for candidate in candidates[np.argsort(-candidates[:, 2], kind="stable")]:
        windows = np.array([window[:2] for window in selected]).reshape(-1, 2)
        if not (iou(windows, candidate[:2]) > OVERLAP).any():
            selected.append(candidate)
    return np.stack((selected + selected[-1:] * WINDOWS)[:WINDOWS])


def cluster_means(firsts: np.ndarray) -> np.ndarray:
    """Windows (clusters, 3) of the clusters of first windows (F, 3), best sum of scores first.

    Of windows with the same centre the last one is used, as published.
    """
    by_centre = {window[:2].mean(): window for window in firsts if not np.isnan(window).any()}
    centres = np.array(sorted(by_centre))
    windows = np.array([by_centre[centre] for centre in centres]).reshape(-1, 3)
    clusters = np.split(windows, np.flatnonzero(np.diff(centres) >= CLUSTER_GAP) + 1)
    clusters.sort(key=lambda cluster: -cluster[:, 2].sum())
    return np.array([_mean(cluster) for cluster in clusters if len(cluster)]).reshape(-1, 3)


def _mean(cluster: np.ndarray) -> Scored:
    """Mean of a cluster's middle window (the better of two) and its best one."""
    middle = cluster[(len(cluster) - 1) // 2 : len(cluster) // 2 + 1]
    return (middle[middle[:, 2].argmax()] + cluster[cluster[:, 2].argmax()]) / 2
