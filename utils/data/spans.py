"""Windows: conversion between seconds and units, narration jitter, highlighted units.

A window is `[start, end]` in seconds of its clip, or the first and the last unit it covers, both
included. Unit i of n spans `[i/n, (i+1)/n] * duration`. Shapes: R rows (queries).
"""

import numpy as np

EMPTY_SECONDS = 1 / 30  # windows up to one frame long count as empty


def unit_windows(seconds: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Units that fit windows best, by the published rule.

    The pair i <= j whose interval has the highest IoU with the window; of equal pairs the smallest
    i, then the smallest j; (0, 0) if none overlaps. The best pair lies within a unit of the
    window's bounds, so nine pairs per row are scored instead of units**2.

    Args:
        seconds: (R, 2) windows.
        duration: (R,) seconds of their clips.
        units: (R,) units of their clips.

    Returns:
        (R, 2) int64 first and last unit.
    """
    return _best_pairs(seconds, duration, units)[0]


def exact_unit_windows(exact: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Like `unit_windows` for windows cut at the bounds of the clip.

    A window that is empty or lies outside its clip gets the unit nearest to its middle.
    """
    clipped = np.clip(exact, 0.0, duration[:, None])
    windows, overlaps = _best_pairs(clipped, duration, units)
    middle = np.floor(np.mean(exact, axis=1) / duration * units)
    nearest = np.clip(middle, 0, units - 1).astype(np.int64)
    return np.where(overlaps[:, None], windows, nearest[:, None])


def _best_pairs(
    seconds: np.ndarray, duration: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(R, 2) units by the published rule, and (R,) whether they overlap the window at all."""
    start, end = seconds.T
    last_unit = units - 1
    near_start = np.rint(start / duration * units)
    near_end = np.rint(end / duration * units)
    best = np.zeros((2, len(seconds)))
    best_iou = np.zeros(len(seconds))
    # In the order of i, then j: the first of equal pairs is kept. Intervals and IoU are rounded as
    # in published code, which may decide between pairs that are equal but for rounding.
    for i in (np.clip(near_start + step, 0, last_unit) for step in (-1, 0, 1)):
        left = i / units * duration
        first_start, second_start = np.minimum(left, start), np.maximum(left, start)
        for j in (np.clip(near_end + step, i, last_unit) for step in (-2, -1, 0)):
            right = (j + 1) / units * duration
            overlap = np.minimum(right, end) - second_start
            iou = overlap / (np.maximum(right, end) - first_start)
            is_better = iou > best_iou
            np.copyto(best_iou, iou, where=is_better)
            np.copyto(best, (i, j), where=is_better)
    return best.T.astype(np.int64), best_iou > 0


def window_seconds(windows: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Windows in seconds: unit i starts at i * duration / units and ends where unit i + 1 starts.

    Computed in float32 as in published code, so that predictions are the same numbers.

    Args:
        windows: (..., 2) first and last unit.
        duration, units: (...) or broadcast to it.

    Returns:
        (..., 2) float64 seconds.
    """
    edges = (windows + np.array([0, 1])).astype(np.float32)
    length = np.asarray(duration, dtype=np.float32)[..., None]
    count = np.asarray(units, dtype=np.float32)[..., None]
    return (edges * length / count).astype(np.float64)


def jitter_windows(
    windows: np.ndarray,
    units: np.ndarray,
    is_narration: np.ndarray,
    draws: np.ndarray,
    factor: float,
    translate: bool,
) -> np.ndarray:
    """Stretch the windows of narrations by 1 to `factor` and, if `translate`, move them.

    A new window contains the old one and lies within the clip; a `factor` of 1 changes nothing.

    Args:
        windows: (R, 2) first and last unit.
        units: (R,) units of the clips.
        is_narration: (R,) windows of other queries are not changed.
        draws: (R, 2) uniform in [0, 1): the stretch and the move.

    Returns:
        (R, 2) int64 windows.
    """
    if factor == 1:
        return windows
    start, end = windows.T
    stretch, move = draws.T
    centre = (start + end) / 2
    width = end - start + 1
    new_width = (1 + (factor - 1) * stretch) * width
    if translate:
        margin = (new_width - width) / 2
        centre = centre + (-margin + 2 * margin * move)
    first_unit = np.maximum(np.rint(centre - new_width / 2), 0)
    last_unit = np.minimum(np.rint(centre + new_width / 2), units - 1)
    jittered = np.stack([first_unit, last_unit], axis=1).astype(np.int64)
    return np.where(is_narration[:, None], jittered, windows)


def highlighted_units(
    windows: np.ndarray, units: np.ndarray, padded: int, extend: float = 0.1
) -> np.ndarray:
    """(R, padded) bool: units in windows (R, 2) extended by `round(extend * length)` on each side.

    Cut at the end of the clips, of `units` (R,) units; halves are rounded to even.
    """
    start, end = windows.T[..., None]
    margin = np.rint(extend * (end - start + 1)).astype(np.int64)
    unit = np.arange(padded)
    return (unit >= start - margin) & (unit <= end + margin) & (unit < units[:, None])
