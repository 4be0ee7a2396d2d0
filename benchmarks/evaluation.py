"""From scores to figures: best spans, temporal NMS and recalls beside plain versions of them.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --repeats 9

Both versions of each must find the same. Times are medians, on two threads.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from terminaltables import AsciiTable

from benchmarks.timing import median_time
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.evaluation.decoding import best_spans
from utils.evaluation.metrics import evaluate
from utils.evaluation.predictions import suppress

THRESHOLDS, TOP_K = (0.3, 0.5), (1, 3, 5)
NMS_THRESHOLD = 0.5


def main(arguments: list[str] | None = None) -> None:
    """Time the three steps and print one table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=100_000, help="queries scored")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, after one to warm up")
    options = parser.parse_args(arguments)
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    lines = [["step", "plain, s", "ours, s", "ratio"]]

    def compare(step: str, plain: Callable, ours: Callable, *inputs: object) -> None:
        if not all(map(np.allclose, plain(*inputs), ours(*inputs))):
            raise UserError(f"{step}: the two versions differ")
        slow, fast = (median_time(lambda f=f: f(*inputs), options.repeats) for f in (plain, ours))
        lines.append([step, f"{slow:.3f}", f"{fast:.4f}", f"{slow / fast:.0f}x"])

    count = options.predictions
    truth = random_windows(draw, count)
    windows = truth[:, None] + draw.normal(0, 3, (count, 5, 2))
    compare(f"score {count} x 5 windows", plain_scores, our_scores, truth, windows)
    for units in (128, 600):
        logits = torch.randn(2, 256, units) * 3
        compare(f"5 best spans of 256 x {units} units", plain_best, best_spans, *logits)
    windows, scores = random_windows(draw, 3874, 50), draw.random((3874, 50))
    compare("temporal NMS, 3874 x 50 windows", plain_suppress, our_suppress, windows, scores)
    print(AsciiTable(lines).table)


def random_windows(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """(..., 2) seconds in clips of eight minutes."""
    start = draw.uniform(0, 450, shape)
    return np.stack([start, start + draw.exponential(8, shape) + 0.1], axis=-1)


def our_scores(truth: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, float]:
    scores = evaluate(truth, windows, THRESHOLDS, TOP_K)
    return np.reshape(scores.recalls, (len(TOP_K), -1)).T, scores.figures["mIoU"]


def plain_scores(truth: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, float]:
    """Query by query, window by window."""
    hits = [[0] * len(TOP_K) for _ in THRESHOLDS]
    first = 0.0
    for (start, end), own in zip(truth.tolist(), windows.tolist(), strict=True):
        values = [plain_iou((start, end), window) for window in own]
        first += values[0]
        for row, threshold in enumerate(THRESHOLDS):
            for column, k in enumerate(TOP_K):
                hits[row][column] += any(value > threshold for value in values[:k])
    return np.array(hits) / len(truth), first / len(truth)


def plain_iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    overlap = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = max(one[1], other[1]) - min(one[0], other[0])
    return overlap / union if union > 0 else 0.0


def plain_best(start: torch.Tensor, end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The 5 best of the whole outer product."""
    products = torch.triu(start.softmax(1)[:, :, None] * end.softmax(1)[:, None])
    scores, places = products.flatten(1).topk(5, dim=1)
    units = start.shape[1]
    return torch.stack([places // units, places % units], 2), scores


def our_suppress(windows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return suppress(windows, scores, NMS_THRESHOLD)


def plain_suppress(windows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Query by query: a window is kept if it is not too close to a better one that was."""
    chosen = []
    for own, values in zip(windows.tolist(), scores.tolist(), strict=True):
        kept: list[int] = []
        aside: list[int] = []
        for place in sorted(range(len(own)), key=lambda place, v=values: -v[place]):
            close = any(plain_iou(own[place], own[other]) > NMS_THRESHOLD for other in kept)
            (aside if close else kept).append(place)
        chosen.append((kept + aside)[:5])
    places = np.array(chosen)
    return (
        np.take_along_axis(windows, places[..., None], 1),
        np.take_along_axis(scores, places, 1),
    )


if __name__ == "__main__":
    run_program(main)
