"""Label windows in units: nine pairs a query beside the published rule, which scores all pairs.

    python benchmarks/label_windows.py
    python benchmarks/label_windows.py --queries 20000 --repeats 3

Both must find the same units. Times are medians; on two threads, though both use but one.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from terminaltables import AsciiTable

from benchmarks.timing import median_time
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.data.spans import unit_windows

UNITS = (128, 600)  # VSLNet's and ReLER's


def main(arguments: list[str] | None = None) -> None:
    """Make windows, label them both ways, print seconds a query and the ratio."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=850_000, help="queries labelled by ours")
    parser.add_argument("--plain_queries", type=int, default=40, help="queries labelled plainly")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, after one to warm up")
    options = parser.parse_args(arguments)
    lines = [["units", "plain, us a query", "ours, us a query", "ratio", "ours, s in all"]]
    for units in UNITS:
        seconds, duration, count = make_windows(options.queries, units)
        few = slice(options.plain_queries)
        check(seconds[few], duration[few], units)
        plain = median_time(
            lambda s=seconds[few], d=duration[few], n=units: label_plainly(s, d, n), options.repeats
        ) / min(options.plain_queries, options.queries)
        whole = median_time(
            lambda s=seconds, d=duration, n=count: unit_windows(s, d, n), options.repeats
        )
        ours = whole / options.queries
        cells = f"{plain * 1e6:.0f}", f"{ours * 1e6:.2f}", f"{plain / ours:.0f}x", f"{whole:.2f}"
        lines.append([str(units), *cells])
    print(AsciiTable(lines, f"{options.queries} queries").table)


def make_windows(queries: int, units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (R, 2) of a few seconds, clip durations (R,) and units (R,), as narrations have."""
    draw = np.random.default_rng(0)
    duration = draw.integers(750, 1000, queries) / 1.875
    start = np.floor(draw.random(queries) * duration * 1.875) / 1.875
    end = np.minimum(start + draw.integers(0, 10, queries) / 1.875, duration)
    return np.stack([start, end], 1), duration, np.full(queries, units)


def label_plainly(seconds: np.ndarray, duration: np.ndarray, units: int) -> list[tuple[int, int]]:
    """The published rule, query by query: the IoU of each of the units**2 pairs, the best pair."""
    unit = np.arange(units)
    found = []
    for (start, end), length in zip(seconds, duration, strict=True):
        left, right = (unit / units * length)[:, None], (unit + 1) / units * length
        overlap = np.maximum(np.minimum(right, end) - np.maximum(left, start), 0)
        union = np.maximum(right, end) - np.minimum(left, start)
        valid = unit[:, None] <= unit
        iou = np.where(valid, overlap / np.where(valid, union, 1), 0)
        found.append(divmod(int(np.argmax(iou)), units))
    return found


def check(seconds: np.ndarray, duration: np.ndarray, units: int) -> None:
    """Both ways must agree."""
    ours = unit_windows(seconds, duration, np.full(len(seconds), units))
    if not np.array_equal(ours, label_plainly(seconds, duration, units)):
        raise UserError(f"{units} units: the two ways label windows differently")


if __name__ == "__main__":
    run_program(main)
