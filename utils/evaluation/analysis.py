"""Analyse predictions: scores of groups of queries, and a paired bootstrap of differences.

Shapes: R rows (queries), M figures, U units resampled.
"""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from utils.data.annotations import Query, iter_queries, read_annotations
from utils.data.spans import EMPTY_SECONDS

DRAWS_IN_MEMORY = 4_000_000
FIFTHS = 5
ZERO_SHOT = "zero-shot: objects of no training query"
SHOTS = ("low-shot", "mid-shot", "high-shot")


def query_object(query: Query) -> str | None:
    """The object that a query is about, in lower case; None if its template names no object."""
    if not (query.template or "").startswith(("Objects", "Place")):
        return None
    name = (query.slot_x or "").strip().lower()
    return name.translate(str.maketrans("", "", string.punctuation)) or None


def object_sets(objects: Iterable[str | None]) -> dict[str, set[str]]:
    """Split objects into three sets by their number of training queries.

    The bounds are the tertiles; objects with equally many queries are in the same set. The name of
    a set tells its bounds.
    """
    query_counts = Counter(name for name in objects if name is not None)
    counts = np.sort(np.array(list(query_counts.values()), dtype=np.int64))
    sets = {}
    previous_high = 0
    for number, shots in enumerate(SHOTS, 1):
        higher = counts[counts > previous_high]
        if not len(higher):
            break
        low = higher[0]
        high = max(low, counts[-(-number * len(counts) // len(SHOTS)) - 1])
        names = {name for name, count in query_counts.items() if low <= count <= high}
        bounds = f"{high}" if low == high else f"{low}-{high}"
        queries = "query" if bounds == "1" else "queries"
        sets[f"{shots}: objects of {bounds} training {queries}"] = names
        previous_high = high
    return sets


class Grouping(NamedTuple):
    """Queries in named groups."""

    title: str
    names: list[str]
    of_query: np.ndarray  # (R,) number of each query's group, below 0 for none
    note: str = ""  # why no query is in a group

    def groups(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The queries `rows` (R,) bool of each group that has any, as masks (R,) by name."""
        masks = {name: rows & (self.of_query == n) for n, name in enumerate(self.names)}
        return {name: mask for name, mask in masks.items() if mask.any()}

    def ungrouped(self, rows: np.ndarray) -> str:
        """Why some of the queries `rows` (R,) bool are in no group, "" if all are in one."""
        count = np.count_nonzero(rows & (self.of_query < 0))
        reason = self.note or f"{count} of {np.count_nonzero(rows)} queries are in no group"
        return f"{self.title}: {reason}" if count else ""


def _grouping(title: str, names: Iterable[str], of_query: Iterable[str | None]) -> Grouping:
    names = list(names)
    number = {name: index for index, name in enumerate(names)}
    return Grouping(title, names, np.array([number.get(name, -1) for name in of_query], dtype=int))


def by_template(queries: Sequence[Query]) -> Grouping:
    templates = [query.template or "" for query in queries]
    return _grouping("template", sorted({*templates} - {""}), templates)


def by_object(queries: Sequence[Query], source: str, training: str | None) -> Grouping:
    """Group queries by the number of training queries about their object.

    Args:
        source: the file of the queries, for the note.
        training: annotations to count objects in; without, there are no groups but a note.
    """
    title = "object frequency in training"
    objects = [query_object(query) for query in queries]
    sets = {}
    if training is None:
        note = "give --train_annotations FILE to count objects in"
    elif not any(objects):
        note = f"{source} names no objects (`slot_x`)"
    else:
        sets = object_sets(map(query_object, iter_queries(read_annotations(training))))
        note = "" if sets else f"{training} names no objects (`slot_x`)"
    if note:
        return Grouping(title, [], np.full(len(queries), -1), note)
    set_of = {name: set_title for set_title, names in sets.items() for name in names}
    return _grouping(
        title, [ZERO_SHOT, *sets], [name and set_of.get(name, ZERO_SHOT) for name in objects]
    )


def by_length(truth: np.ndarray) -> Grouping:
    """Group queries by the length of their windows (R, 2): quartiles, and empty windows."""
    length = truth[:, 1] - truth[:, 0]
    empty = length <= EMPTY_SECONDS
    edges = np.quantile(length if empty.all() else length[~empty], [0, 0.25, 0.5, 0.75, 1])
    names = [f"{low:.2f} to {high:.2f} s" for low, high in pairwise(edges)]
    of_query = np.where(empty, 0, 1 + np.searchsorted(edges[1:-1], length))
    return Grouping("window length (quartiles)", ["at most 1/30 s", *names], of_query)


def by_position(truth: np.ndarray, duration: np.ndarray) -> Grouping:
    """Group queries by the position of their windows (R, 2) in clips of `duration` (R,) seconds."""
    share = truth.mean(axis=1) / np.maximum(duration, EMPTY_SECONDS)
    names = [f"{20 * fifth} to {20 * fifth + 20} % of the clip" for fifth in range(FIFTHS)]
    of_query = np.clip(np.floor(share * FIFTHS), 0, FIFTHS - 1).astype(int)
    return Grouping("position in the clip (fifths, by the middle of the window)", names, of_query)


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
) -> Interval:
    """95 % confidence intervals of the mean of paired differences: the percentile bootstrap.

    Args:
        differences: (R, M), of queries that both files answer.
        unit: (R,) numbers of what is drawn with replacement, such as clips with all their queries;
            by default single queries.
    """
    rows = np.arange(len(differences)) if unit is None else np.unique(unit, return_inverse=True)[1]
    units = int(rows.max()) + 1
    sizes = np.bincount(rows, minlength=units).astype(float)
    sums = np.zeros((units, differences.shape[1]))  # (U, M)
    np.add.at(sums, rows, differences)
    generator = np.random.default_rng(seed)
    means = []
    step = max(1, DRAWS_IN_MEMORY // units)
    for first in range(0, samples, step):
        count = min(step, samples - first)
        draws = generator.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        repeats = np.bincount(draws.ravel(), minlength=count * units).reshape(count, units)
        means.append((repeats @ sums) / (repeats @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return Interval(differences.mean(axis=0), low, high)
