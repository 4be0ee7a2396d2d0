"""Label windows, best spans, temporal NMS and recalls, compared with plain versions.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --repeats 9

Both versions of each must give the same result. Times are medians, on two threads.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
import torch
from terminaltables import AsciiTable

from benchmarks.timing import median_time
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.data.spans import unit_windows
from utils.evaluation.decoding import best_spans
from utils.evaluation.metrics import evaluate
from utils.evaluation.predictions import suppress

THRESHOLDS, TOP_K = (0.3, 0.5), (1, 3, 5)
NMS_THRESHOLD = 0.5
UNITS = (128, 600)  # VSLNet's and ReLER's
PLAIN_LABELS = 40  # queries labelled by the plain version


def main(arguments: list[str] | None = None) -> None:
    """Time each step and print one table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=850_000, help="queries labelled")
    parser.add_argument("--predictions", type=int, default=100_000, help="queries scored")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, after one to warm up")
    options = parser.parse_args(arguments)
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    lines = [["step", "plain, s", "ours, s", "ratio"]]

    def seconds(version: Callable, inputs: tuple) -> float:
        return median_time(lambda: version(*inputs), options.repeats)

    def compare(step: str, plain: Callable, ours: Callable, *inputs: object) -> None:
        if not all(map(np.allclose, plain(*inputs), ours(*inputs))):
            raise UserError(f"{step}: the two versions differ")
        slow, fast = seconds(plain, inputs), seconds(ours, inputs)
        lines.append([step, f"{slow:.3f}", f"{fast:.4f}", f"{slow / fast:.0f}x"])

    for units in UNITS:
        columns = label_inputs(draw, options.labels, units)
        first = tuple(column[:PLAIN_LABELS] for column in columns)
        if not np.array_equal(plain_labels(*first), unit_windows(*first)):
            raise UserError(f"{units} units: the two versions label windows differently")
        # The plain version is timed on few queries, and its time scaled up.
        slow = seconds(plain_labels, first) / PLAIN_LABELS * options.labels
        fast = seconds(unit_windows, columns)
        step = f"label windows of {options.labels} queries, {units} units"
        lines.append([step, f"{slow:.0f}", f"{fast:.2f}", f"{slow / fast:.0f}x"])

    count = options.predictions
    truth = random_windows(draw, count)
    windows = truth[:, None] + draw.normal(0, 3, (count, 5, 2))
    compare(f"score {count} x 5 windows", plain_scores, our_scores, truth, windows)
    for units in UNITS:
        logits = torch.randn(2, 256, units) * 3
        compare(f"5 best spans of 256 x {units} units", plain_best, best_spans, *logits)
    count = min(count, 3874)  # queries of the validation split
    windows, scores = random_windows(draw, count, 50), draw.random((count, 50))
    compare(f"temporal NMS, {count} x 50 windows", plain_suppress, our_suppress, windows, scores)
    print(AsciiTable(lines).table)


def random_windows(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """(..., 2) seconds in clips of eight minutes."""
    start = draw.uniform(0, 450, shape)
    return np.stack([start, start + draw.exponential(8, shape) + 0.1], axis=-1)


def label_inputs(
    draw: np.random.Generator, queries: int, units: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (R, 2) of a few seconds, clip durations (R,) and units (R,), as of narrations."""
    duration = draw.integers(750, 1000, queries) / 1.875
    start = np.floor(draw.random(queries) * duration * 1.875) / 1.875
    end = np.minimum(start + draw.integers(0, 10, queries) / 1.875, duration)
    return np.stack([start, end], 1), duration, np.full(queries, units)


def plain_labels(
    seconds: np.ndarray, duration: np.ndarray, units: np.ndarray
) -> list[tuple[int, int]]:
    """The published rule, query by query: the best IoU among all units**2 pairs."""
    labels = []
    for (start, end), length, count in zip(seconds, duration, units, strict=True):
        unit = np.arange(count)
        left, right = (unit / count * length)[:, None], (unit + 1) / count * length
        overlap = np.maximum(np.minimum(right, end) - np.maximum(left, start), 0)
        union = np.maximum(right, end) - np.minimum(left, start)
        valid = unit[:, None] <= unit
        iou = np.where(valid, overlap / np.where(valid, union, 1), 0)
        labels.append(divmod(int(np.argmax(iou)), count))
    return labels


def our_scores(truth: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, float]:
    scores = evaluate(truth, windows, THRESHOLDS, TOP_K)
    return np.reshape(scores.recalls, (len(TOP_K), -1)).T, scores.figures["mIoU"]


def plain_scores(truth: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, float]:
    """Query by query, window by window."""
    hits = [[0] * len(TOP_K) for _ in THRESHOLDS]
    first = 0.0
    for true_window, predicted in zip(truth.tolist(), windows.tolist(), strict=True):
        ious = [plain_iou(true_window, window) for window in predicted]
        first += ious[0]
        for row, threshold in enumerate(THRESHOLDS):
            for column, k in enumerate(TOP_K):
                hits[row][column] += any(iou > threshold for iou in ious[:k])
    return np.array(hits) / len(truth), first / len(truth)


def plain_iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    overlap = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = max(one[1], other[1]) - min(one[0], other[0])
    return overlap / union if union > 0 else 0.0


def plain_best(start: torch.Tensor, end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The 5 best of the whole outer product."""
    products = torch.triu(start.softmax(1)[:, :, None] * end.softmax(1)[:, None])
    scores, pairs = products.flatten(1).topk(5, dim=1)
    units = start.shape[1]
    return torch.stack([pairs // units, pairs % units], 2), scores


def our_suppress(windows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return suppress(windows, scores, NMS_THRESHOLD)


def plain_suppress(windows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Query by query: a window is kept unless it overlaps a better one that was kept."""
    ranking = []
    for candidates, values in zip(windows.tolist(), scores, strict=True):
        kept: list[int] = []
        suppressed: list[int] = []
        for index in np.argsort(-values, kind="stable").tolist():
            ious = (plain_iou(candidates[index], candidates[better]) for better in kept)
            (suppressed if any(iou > NMS_THRESHOLD for iou in ious) else kept).append(index)
        ranking.append((kept + suppressed)[:5])
    best = np.array(ranking)
    return np.take_along_axis(windows, best[..., None], 1), np.take_along_axis(scores, best, 1)


if __name__ == "__main__":
    run_program(main)
