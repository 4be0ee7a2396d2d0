"""The ensemble published with GroundNLQ: the models' first windows, clustered by their centres."""

import numpy as np

from utils.evaluation.metrics import iou
from utils.evaluation.predictions import WINDOWS

APART = 2.0  # seconds between the centres of neighbouring clusters, at least
FROM_EACH = 4  # windows of each model that follow its first choice
OVERLAP = 0.5  # IoU above which the lower-scored window is dropped

Scored = np.ndarray  # (3,) start, end, score


def merge_clusters(windows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows (R, 5, 2) of F files and their scores (R, 5).

    A cluster of first windows offers the mean of its middle window and its best; to these come the
    best windows of each file, and what overlaps a better one is dropped.

    Args:
        windows: (R, F, K, 2) seconds, best first; NaN for none.
        scores: (R, F, K).
    """
    scored = np.concatenate((windows, scores[..., None]), 3)
    merged = np.stack([_merge_query(query) for query in scored])
    return merged[..., :2], merged[..., 2]


def _merge_query(scored: np.ndarray) -> np.ndarray:
    """(F, K, 3) windows with scores -> (5, 3)."""
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
