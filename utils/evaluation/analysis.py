"""Where predictions are good and whether one file is better: groups of queries, paired bootstrap.

Shapes: R rows (queries), K predicted windows a query, best first, M figures, U units resampled.
"""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from utils.data.annotations import Query
from utils.data.spans import EMPTY_SECONDS
from utils.evaluation.metrics import RANKING_THRESHOLDS, iou

DRAWN_AT_ONCE = 4_000_000  # numbers in memory
FIFTHS = 5
UNASKED = "zero-shot: objects of no training query"
SHOTS = ("low-shot", "mid-shot", "high-shot")


def query_object(query: dict) -> str | None:
    """The object a query is about, in plain letters; None if its template asks of no object."""
    template, slot = query.get("template"), query.get("slot_x")
    if not isinstance(template, str) or not template.startswith(("Objects", "Place")):
        return None
    if not isinstance(slot, str):
        return None
    return slot.strip().lower().translate(str.maketrans("", "", string.punctuation)) or None


def object_sets(objects: Iterable[str | None]) -> dict[str, set[str]]:
    """Objects in three sets by how often training queries ask about them.

    The bounds are the smallest that put at least one third, then two thirds, of the objects below
    them; objects asked about equally often stay together. A set's name tells its bounds.
    """
    times = Counter(name for name in objects if name is not None)
    counts = np.sort(np.array(list(times.values()), dtype=np.int64))
    sets = {}
    below = 0
    for number, shots in enumerate(SHOTS, 1):
        above = counts[counts > below]
        if not len(above):
            break
        most = max(above[0], counts[-(-number * len(counts) // len(SHOTS)) - 1])
        names = {name for name, count in times.items() if below < count <= most}
        bounds = f"{most}" if above[0] == most else f"{above[0]}-{most}"
        queries = "query" if bounds == "1" else "queries"
        sets[f"{shots}: objects of {bounds} training {queries}"] = names
        below = most
    return sets


class Grouping(NamedTuple):
    """Queries in named groups."""

    title: str
    names: list[str]
    of_query: np.ndarray  # (R,) number of each query's group, below 0 for none


def _grouping(title: str, names: Iterable[str], of_query: Iterable[str | None]) -> Grouping:
    names = list(names)
    number = {name: place for place, name in enumerate(names)}
    return Grouping(title, names, np.array([number.get(name, -1) for name in of_query], dtype=int))


def by_template(queries: Sequence[Query]) -> Grouping:
    """By the template a query was written from."""
    templates = [str(query.query.get("template") or "") for query in queries]
    return _grouping("template", sorted({*templates} - {""}), templates)


def by_object(queries: Sequence[Query], sets: dict[str, set[str]]) -> Grouping:
    """By how often training asks about a query's object; `sets` as `objects.object_sets` gives."""
    set_of: dict[str | None, str | None] = {
        name: title for title, names in sets.items() for name in names
    }
    set_of[None] = None  # queries that ask of no object
    return _grouping(
        "object frequency in training",
        [UNASKED, *sets],
        [set_of.get(query_object(query.query), UNASKED) for query in queries],
    )


def by_length(truth: np.ndarray) -> Grouping:
    """By length of the window (R, 2): quartiles of the lengths there are, and empty windows."""
    length = truth[:, 1] - truth[:, 0]
    empty = length <= EMPTY_SECONDS
    edges = np.quantile(length if empty.all() else length[~empty], [0, 0.25, 0.5, 0.75, 1])
    names = [f"{low:.2f} to {high:.2f} s" for low, high in pairwise(edges)]
    of_query = np.where(empty, 0, 1 + np.searchsorted(edges[1:-1], length))
    return Grouping("window length (quartiles)", ["at most 1/30 s", *names], of_query)


def by_position(truth: np.ndarray, duration: np.ndarray) -> Grouping:
    """By where in its clip, `duration` (R,) seconds long, the middle of a window (R, 2) lies."""
    share = truth.mean(axis=1) / np.maximum(duration, EMPTY_SECONDS)
    names = [f"{20 * fifth} to {20 * fifth + 20} % of the clip" for fifth in range(FIFTHS)]
    of_query = np.clip(np.floor(share * FIFTHS), 0, FIFTHS - 1).astype(int)
    return Grouping("position in the clip (fifths, by the middle of the window)", names, of_query)


def query_figures(
    truth: np.ndarray, windows: np.ndarray, thresholds: Sequence[float], topK: Sequence[int]
) -> dict[str, np.ndarray]:
    """Each query's part in the figures of `metrics.evaluate`, (R,) by name; means are the figures.

    Args:
        truth: (R, 2) seconds.
        windows: (R, K, 2) seconds; a window of NaN answers nothing.
    """
    overlaps = iou(windows, truth[:, None])
    best = np.maximum.accumulate(overlaps, axis=1)
    figures = {
        f"R@{k} IoU={threshold:g}": (best[:, min(k, best.shape[1]) - 1] > threshold).astype(float)
        for k in topK
        for threshold in thresholds
    }
    firsts = [overlaps[:, 0] > threshold for threshold in RANKING_THRESHOLDS]
    return {**figures, "mean R@1": np.mean(firsts, axis=0), "mIoU": overlaps[:, 0]}


class Interval(NamedTuple):
    """A mean difference and its confidence interval."""

    mean: np.ndarray  # (M,)
    low: np.ndarray  # (M,)
    high: np.ndarray  # (M,)


def paired_bootstrap(
    differences: np.ndarray,
    unit: np.ndarray | None = None,
    samples: int = 2000,
    seed: int = 1,
    level: float = 0.95,
) -> Interval:
    """Confidence intervals of the mean of paired differences: the percentile bootstrap.

    Args:
        differences: (R, M), one row for each query that both sides answered.
        unit: (R,) what is drawn with replacement, by number: the queries themselves, or their
            clips, all queries of a clip together.
    """
    rows = np.arange(len(differences)) if unit is None else np.unique(unit, return_inverse=True)[1]
    units = int(rows.max()) + 1
    sizes = np.bincount(rows, minlength=units).astype(float)
    sums = np.zeros((units, differences.shape[1]))  # (U, M)
    np.add.at(sums, rows, differences)
    draw = np.random.default_rng(seed)
    means = []
    step = max(1, DRAWN_AT_ONCE // units)
    for at in range(0, samples, step):
        count = min(step, samples - at)
        drawn = draw.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        means.append((times @ sums) / (times @ sizes)[:, None])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return Interval(differences.mean(axis=0), low, high)
