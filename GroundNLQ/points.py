"""Points of the pyramid: their labels in training, and windows from their outputs.

Times are in feature rows. Shapes: B queries, P points, W windows a query, N candidates.
"""

from functools import lru_cache

import numpy as np
import torch

from utils.features.tensors import to_device

RADIUS = 1.5  # strides: distance of positive points to a window's centre, at most
FARTHEST = 10000.0  # rows: longest distance of the coarsest level
LEAST_SCORE = 0.001
LEAST_LENGTH = 0.001  # rows
MOST = 2000  # candidates per level
SIGMA = 0.75
LENGTH_STEP = 64  # rows, at least, between the lengths that clips are padded to


@lru_cache(maxsize=64)
def make_points(rows: int, levels: int) -> np.ndarray:
    """(P, 4) float64: time, shortest and longest distance to a window's ends, stride.

    Level l has a point every 2**l rows, for windows that end 2**l to 2**(l + 2) rows away; the
    finest also for shorter, the coarsest also for longer ones.
    """
    parts = []
    for level in range(levels):
        stride = 2.0**level
        near = stride if level else 0.0
        far = 4 * stride if level < levels - 1 else FARTHEST
        times = np.arange(0, rows, stride)
        parts.append(np.stack(np.broadcast_arrays(times, near, far, stride), 1))
    return np.concatenate(parts)


def padded_rows(rows: np.ndarray, levels: int) -> np.ndarray:
    """Lengths that clips of `rows` rows are padded to.

    Each level has at least one padded position, so that outputs do not depend on further padding.
    Lengths are multiples of a step, so that clips of similar length share a batch.
    """
    coarsest = 2 ** (levels - 1)
    needed = (-(-rows // coarsest) + 1) * coarsest
    step = max(4 * coarsest, LENGTH_STEP)
    return -(-needed // step) * step


def label_points(
    points: np.ndarray, windows: np.ndarray, rows: np.ndarray, nearest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The positive points, and their offsets to the window's ends.

    A point is positive if it lies in the window near its centre, and the distance to the window's
    farther end is in its level's range; of several windows the shortest counts.

    Args:
        points: (P, 4) as of `make_points`.
        windows: (B, W, 2) rows, padded with NaN; they may lie partly outside the clip.
        rows: (B,) rows of the clips: points beyond are not positive.
        nearest: if a query has no positive point (its window is shorter than a row), make the row
            nearest to the middle of its first window positive.

    Returns:
        (B, P) bool, and (B, P, 2) float32 distances to the window's ends in strides.
    """
    time, near, far, stride = points.T
    start, end = windows[..., :1], windows[..., 1:]  # (B, W, 1)
    middle = (start + end) / 2
    distances = np.stack((time - start, end - time), -1)  # (B, W, P, 2)
    margin = np.minimum(
        time - np.maximum(middle - RADIUS * stride, start),
        np.minimum(middle + RADIUS * stride, end) - time,
    )
    reach = distances.max(-1)
    is_positive = (margin > 0) & (near <= reach) & (reach <= far) & (time < rows[:, None, None])
    length = np.where(is_positive, end - start, np.inf)
    shortest = length.argmin(1)[:, None]  # (B, 1, P)
    positive = np.take_along_axis(is_positive, shortest, 1)[:, 0]
    offsets = np.take_along_axis(distances, shortest[..., None], 1)[:, 0] / stride[:, None]
    if nearest:
        query = np.flatnonzero(~positive.any(1))
        row = np.clip(np.rint(middle[query, 0, 0]), 0, rows[query] - 1).astype(np.int64)
        positive[query, row] = True  # points of the finest level are the first ones
        offsets[query, row] = np.maximum(offsets[query, row], 0)
    return positive, offsets.astype(np.float32)


def candidates(
    probability: torch.Tensor,  # (B, P) 0 at padding
    offsets: torch.Tensor,  # (B, P, 2)
    rows: int,
    levels: int,
    least_score: float = LEAST_SCORE,
    most: int = MOST,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidate windows (B, N, 2) in rows and scores (B, N), padded with scores of 0.

    They are ordered by level, then by score. If all points of a query are below the least score or
    length, its best point is used.
    """
    points = to_device(make_points(rows, levels).astype(np.float32), probability.device)
    time, stride = points[:, 0], points[:, 3]
    before, after = (offsets * stride[:, None]).unbind(-1)
    windows = torch.stack((time - before, time + after), -1)
    is_usable = (probability > least_score) & (windows[..., 1] - windows[..., 0] > LEAST_LENGTH)
    is_best = probability == probability.max(1, keepdim=True).values
    is_usable |= is_best & ~is_usable.any(1, keepdim=True)
    scores = torch.where(is_usable, probability, 0.0)
    order, start = [], 0
    for level in range(levels):
        count = rows >> level
        # Windows that are too short still count among the `most`.
        ranked = probability[:, start : start + count].sort(dim=1, descending=True, stable=True)
        order.append(ranked.indices[:, :most] + start)
        start += count
    order = torch.cat(order, 1)
    windows, scores = _take(windows, order), scores.gather(1, order)
    order = (scores == 0).to(torch.int8).sort(dim=1, stable=True).indices
    return _take(windows, order), scores.gather(1, order)


def soft_nms(
    windows: torch.Tensor,  # (B, N, 2)
    scores: torch.Tensor,  # (B, N) padded with 0
    count: int,
    sigma: float = SIGMA,
    least_score: float = LEAST_SCORE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `count` windows (B, count, 2) and their scores (B, count), padded with 0.

    Gaussian soft non-maximum suppression: repeatedly selects the best window, multiplies the scores
    of the rest by exp(-IoU^2 / sigma), and drops windows below the least score. Of equal scores the
    first one is selected, in an order that changes as published: a selected window is swapped with
    the first remaining one, and dropped windows are replaced by the last ones.
    """
    size = windows.shape[1]
    position = torch.arange(size, device=scores.device).expand_as(scores)
    stop = (scores > 0).sum(1, keepdim=True)  # (B, 1) number of selected and remaining windows
    count = min(count, size)
    for rank in range(count):
        is_left = (position >= rank) & (position < stop)
        best = torch.where(is_left, scores, -1.0).argmax(1, keepdim=True)
        best = torch.where(rank < stop, best, rank)
        order = position.scatter(1, best, rank)
        order[:, rank] = best[:, 0]
        windows, scores = _take(windows, order), scores.gather(1, order)
        remains = (position > rank) & (position < stop)
        overlap = _iou(windows, windows[:, rank, None])
        lowered = scores * torch.exp(-(overlap**2) / sigma)
        scores = torch.where(remains, lowered, scores)
        is_good = remains & (scores >= least_score)
        stop = torch.minimum(stop, rank + 1 + is_good.sum(1, keepdim=True))
        is_gap = remains & ~is_good & (position < stop)
        last_positions = torch.where(is_good & (position >= stop), position, -1)
        last_positions = last_positions.sort(dim=1, descending=True).values
        filler = last_positions.gather(1, (is_gap.cumsum(1) - 1).clamp(min=0))
        order = torch.where(is_gap, filler, position)
        windows, scores = _take(windows, order), scores.gather(1, order)
    scores = torch.where(position < stop, scores, 0.0)
    return windows[:, :count], scores[:, :count]


def _take(windows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return windows.gather(1, order[..., None].expand(-1, -1, 2))


def _iou(windows: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """IoU as published: lengths are too large by 1e-6."""
    start = torch.maximum(windows[..., 0], window[..., 0])
    end = torch.minimum(windows[..., 1], window[..., 1])
    inter = (end - start).clamp(min=0)
    areas = windows.diff(dim=-1)[..., 0] + window.diff(dim=-1)[..., 0] + 2e-6
    return inter / (areas - inter)
