"""Points of the pyramid: what each is to say in training, and the windows that they offer.

Times are in feature rows. Shapes: B queries, P points, W windows a query, N candidates.
"""

from functools import lru_cache

import numpy as np
import torch

from utils.features.tensors import to_device

RADIUS = 1.5  # strides around a window's centre within which points answer for it
FARTHEST = 10000.0  # rows that a point of the coarsest level reaches
LEAST_SCORE = 0.001
LEAST_LENGTH = 0.001  # rows
MOST = 2000  # candidates a level
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
    """To how many rows clips of so many are padded: enough to give the numbers of any longer one.

    That needs a padded position in each level. Lengths come in few steps, so that clips of about
    the same length are computed together.
    """
    coarsest = 2 ** (levels - 1)
    needed = (-(-rows // coarsest) + 1) * coarsest
    step = max(4 * coarsest, LENGTH_STEP)
    return -(-needed // step) * step


def label_points(
    points: np.ndarray, windows: np.ndarray, rows: np.ndarray, nearest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which points answer for a window, and what they are to say.

    A point is positive if it lies within the window and near its centre, and the farther of the
    window's ends lies in its level's range; of several windows the shortest counts.

    Args:
        points: (P, 4) as of `make_points`.
        windows: (B, W, 2) rows, NaN for none; they may lie partly outside the clip.
        rows: (B,) rows of the clips: points beyond are not positive.
        nearest: if a query is left without a positive point (a window shorter than a row), the
            row nearest to the middle of its first window is one.

    Returns:
        (B, P) bool, and (B, P, 2) float32 distances to the window's ends in strides.
    """
    time, near, far, stride = points.T
    start, end = windows[..., :1], windows[..., 1:]  # (B, W, 1)
    middle = (start + end) / 2
    distances = np.stack((time - start, end - time), -1)  # (B, W, P, 2)
    within = np.minimum(
        time - np.maximum(middle - RADIUS * stride, start),
        np.minimum(middle + RADIUS * stride, end) - time,
    )
    farther = distances.max(-1)
    answers = (within > 0) & (near <= farther) & (farther <= far) & (time < rows[:, None, None])
    length = np.where(answers, end - start, np.inf)
    shortest = length.argmin(1)[:, None]  # (B, 1, P)
    positive = np.take_along_axis(answers, shortest, 1)[:, 0]
    offsets = np.take_along_axis(distances, shortest[..., None], 1)[:, 0] / stride[:, None]
    if nearest:
        left_out = np.flatnonzero(~positive.any(1))
        row = np.clip(np.rint(middle[left_out, 0, 0]), 0, rows[left_out] - 1).astype(np.int64)
        positive[left_out, row] = True  # points of the finest level come first
        offsets[left_out, row] = np.maximum(offsets[left_out, row], 0)
    return positive, offsets.astype(np.float32)


def candidates(
    probability: torch.Tensor,  # (B, P) 0 at padding
    offsets: torch.Tensor,  # (B, P, 2)
    rows: int,
    levels: int,
    least_score: float = LEAST_SCORE,
    most: int = MOST,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the points offer: windows (B, N, 2) in rows and scores (B, N), 0 behind the last.

    Level after level, the best of each first. A query whose points are all below the least score
    or length keeps the best of them.
    """
    points = to_device(make_points(rows, levels).astype(np.float32), probability.device)
    time, stride = points[:, 0], points[:, 3]
    before, after = (offsets * stride[:, None]).unbind(-1)
    windows = torch.stack((time - before, time + after), -1)
    kept = (probability > least_score) & (windows[..., 1] - windows[..., 0] > LEAST_LENGTH)
    best = probability == probability.max(1, keepdim=True).values
    kept |= best & ~kept.any(1, keepdim=True)
    scores = torch.where(kept, probability, 0.0)
    order, first = [], 0
    for level in range(levels):
        count = rows >> level
        # Windows that are too short still take a place among the most.
        ranked = probability[:, first : first + count].sort(dim=1, descending=True, stable=True)
        order.append(ranked.indices[:, :most] + first)
        first += count
    order = torch.cat(order, 1)
    windows, scores = _take(windows, order), scores.gather(1, order)
    order = (scores == 0).to(torch.int8).sort(dim=1, stable=True).indices
    return _take(windows, order), scores.gather(1, order)


def soft_nms(
    windows: torch.Tensor,  # (B, N, 2)
    scores: torch.Tensor,  # (B, N) 0 behind the last candidate
    count: int,
    sigma: float = SIGMA,
    least_score: float = LEAST_SCORE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `count` windows (B, count, 2) and their scores (B, count), 0 where none is left.

    Gaussian soft non-maximum suppression: the best window is taken, and the scores of the others
    are lowered by exp(-IoU^2 / sigma), and so on; one that falls below the least score is dropped.
    Of equal scores the first in the present order is taken. That order changes as published: the
    window taken changes places with the first that is left, and the last one fills the place of
    one dropped.
    """
    number = windows.shape[1]
    place = torch.arange(number, device=scores.device).expand_as(scores)
    left = (scores > 0).sum(1, keepdim=True)  # candidates that are taken or left, (B, 1)
    count = min(count, number)
    for taken in range(count):
        best = torch.where((place >= taken) & (place < left), scores, -1.0).argmax(1, keepdim=True)
        best = torch.where(taken < left, best, taken)
        order = place.scatter(1, best, taken)
        order[:, taken] = best[:, 0]
        windows, scores = _take(windows, order), scores.gather(1, order)
        others = (place > taken) & (place < left)
        overlap = _iou(windows, windows[:, taken, None])
        lowered = scores * torch.exp(-(overlap**2) / sigma)
        scores = torch.where(others, lowered, scores)
        kept = others & (scores >= least_score)
        left = torch.minimum(left, taken + 1 + kept.sum(1, keepdim=True))
        gaps = others & ~kept & (place < left)
        fillers = torch.where(kept & (place >= left), place, -1).sort(dim=1, descending=True).values
        fill = fillers.gather(1, (gaps.cumsum(1) - 1).clamp(min=0))
        order = torch.where(gaps, fill, place)
        windows, scores = _take(windows, order), scores.gather(1, order)
    scores = torch.where(place < left, scores, 0.0)
    return windows[:, :count], scores[:, :count]


def _take(windows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return windows.gather(1, order[..., None].expand(-1, -1, 2))


def _iou(windows: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """IoU as published: areas are too large by 1e-6."""
    first = torch.maximum(windows[..., 0], window[..., 0])
    last = torch.minimum(windows[..., 1], window[..., 1])
    inter = (last - first).clamp(min=0)
    areas = windows.diff(dim=-1)[..., 0] + window.diff(dim=-1)[..., 0] + 2e-6
    return inter / (areas - inter)
