"""Windows in seconds and in units: labels, jitter, highlights, and back to seconds.

A clip of `duration` seconds is seen as `units` equal units; a window in units is a pair `(i, j)` of
its first and last unit, both included. Everything works on whole columns, R rows at once.
"""

import numpy as np

BLOCK = 1 << 16  # rows scored at once


def unit_windows(seconds: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The pair of units whose interval overlaps each window best, as published.

    `seconds` (R, 2), `duration` (R,), `units` (R,) -> (R, 2) int64. Best is the highest IoU of
    `[i / n * duration, (j + 1) / n * duration]` with the window; ties go to the smallest `i`, then
    the smallest `j`; a window that overlaps nothing (an empty one, say) gives (0, 0).

    With the one end fixed the IoU rises towards the window's other end from both sides, so only the
    units around each end can be best: a few pairs are scored instead of all `n * n`.
    """
    windows = np.empty((len(seconds), 2), np.int64)
    for at in range(0, len(seconds), BLOCK):
        rows = slice(at, at + BLOCK)
        windows[rows] = _best_pairs(seconds[rows], duration[rows], units[rows])
    return windows


def _best_pairs(seconds: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    around = np.arange(-2, 3)
    n, length = units[:, None], duration[:, None]
    near = np.floor(seconds / length * n).astype(np.int64)  # (R, 2) the unit each end lies in
    first = np.clip(near[:, :1] + around, 0, n - 1)[:, :, None]  # (R, 5, 1)
    last = np.clip(near[:, 1:] + around, 0, n - 1)[:, None, :]  # (R, 1, 5)
    # The same arithmetic as the published rule, so that rounding breaks ties alike.
    begin = first / n[..., None] * length[..., None]
    finish = (last + 1) / n[..., None] * length[..., None]
    start, end = seconds[:, :1, None], seconds[:, 1:, None]
    overlap = np.minimum(finish, end) - np.maximum(begin, start)
    union = np.maximum(finish, end) - np.minimum(begin, start)
    meet = (first <= last) & (overlap > 0)
    iou = np.where(meet, overlap / np.where(meet, union, 1.0), 0.0)
    best = iou.reshape(len(iou), -1).argmax(1)  # in order of i, then j
    row = np.arange(len(iou))
    pairs = np.stack((first[row, best // 5, 0], last[row, 0, best % 5]), 1)
    pairs[iou.reshape(len(iou), -1)[row, best] == 0] = 0
    return pairs


def exact_unit_windows(exact: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Labels from exact times clipped to the clip: (R, 2), (R,), (R,) -> (R, 2) int64.

    A window that is empty, or lies outside the clip, gets the unit nearest to its middle.
    """
    inside = np.clip(exact, 0, duration[:, None])
    windows = unit_windows(inside, duration, units)
    empty = inside[:, 1] <= inside[:, 0]
    middle = exact.mean(1)[empty]
    nearest = np.floor(middle / duration[empty] * units[empty])
    windows[empty] = np.clip(nearest, 0, units[empty] - 1).astype(np.int64)[:, None]
    return windows


def window_seconds(windows: np.ndarray, duration: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Start of the first and end of the last unit: (..., 2), (...,), (...,) -> (..., 2) seconds."""
    edges = windows + np.array([0, 1])
    return edges * np.asarray(duration)[..., None] / np.asarray(units)[..., None]


def jitter_windows(
    windows: np.ndarray,
    units: np.ndarray,
    is_narration: np.ndarray,
    factor: float,
    translate: bool,
    draws: np.ndarray,
) -> np.ndarray:
    """Temporal random jittering of narration windows (NaQ, section 3.3); others stay as they are.

    `windows` (R, 2), `units` (R,), `is_narration` (R,) bool, `draws` (R, 2) uniform in [0, 1):
    a window is scaled by `1 + (factor - 1) * draws[:, 0]` about its centre and, if `translate`,
    moved so that the scaled window still covers where it came from. Returns (R, 2) int64.
    """
    start, end = windows[:, 0], windows[:, 1]
    centre, width = (start + end) / 2, end - start + 1
    scaled = (1 + (factor - 1) * draws[:, 0]) * width
    room = (scaled - width) / 2
    moved = (2 * draws[:, 1] - 1) * room if translate else 0.0
    first = np.maximum(np.rint(centre + moved - scaled / 2), 0)
    last = np.minimum(np.rint(centre + moved + scaled / 2), units - 1)
    jittered = np.stack((first, last), 1).astype(np.int64)
    return np.where(is_narration[:, None], jittered, windows)


def highlight_windows(windows: np.ndarray, units: np.ndarray, extend: float = 0.1) -> np.ndarray:
    """First and last highlighted unit: the window extended by a share of its length on each side.

    (R, 2), (R,) -> (R, 2); the extension is rounded half to even, as published.
    """
    start, end = windows[:, 0], windows[:, 1]
    reach = np.rint(extend * (end - start + 1)).astype(np.int64)
    return np.stack((np.maximum(0, start - reach), np.minimum(units - 1, end + reach)), 1)
