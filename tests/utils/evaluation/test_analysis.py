"""Groups of queries, figures and intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import write_annotations
from utils.analyse_predictions import FIGURES
from utils.data.annotations import Query
from utils.evaluation import analysis
from utils.evaluation.analysis import (
    by_length,
    by_object,
    by_position,
    object_sets,
    paired_bootstrap,
)
from utils.evaluation.metrics import evaluate, query_figures

COLUMNS = st.integers(1, 3)


def query(template=None, slot=None):
    return Query("v", "c", "a", 0, "?", None, template, slot)


def test_queries_are_grouped_by_how_often_their_object_is_trained_on(tmp_path):
    training_queries = [
        {"query": "where?", "template": "Objects: Where is X?", "slot_x": name}
        for name in ["cup"] + ["pan"] * 2 + ["tap"] * 9
    ]
    training = write_annotations(tmp_path / "train.json", c=training_queries)
    slots = ["Tap!", "cup", "dog", "pan", None]
    queries = [query("Objects: Where is X?", slot) for slot in slots]
    groups = by_object(queries, "val.json", str(training))
    shots = ["zero-shot", "low-shot", "mid-shot", "high-shot"]
    assert [name.split(":")[0] for name in groups.names] == shots
    assert groups.of_query.tolist() == [3, 1, 0, 2, -1]
    for slot in (None, "?"):
        groups = by_object([query("Objects: Where is X?", slot)], "val.json", str(training))
        assert groups.note == "val.json names no objects (`slot_x`)"
    assert "--train_annotations" in by_object(queries, "val.json", None).note
    for entry in training_queries:
        del entry["slot_x"]
    write_annotations(training, c=training_queries)
    groups = by_object(queries, "val.json", str(training))
    assert groups.note == f"{training} names no objects (`slot_x`)" and not groups.names


def test_queries_are_grouped_by_length():
    lengths = np.array([0.0, 1 / 30, 1, 2, 3, 4, 5, 6, 7, 8])
    groups = by_length(np.stack([np.full(10, 3.0), 3.0 + lengths], axis=1))
    assert groups.of_query.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert groups.names[:2] == ["at most 1/30 s", "1.00 to 2.75 s"]
    assert (by_length(np.full((4, 2), 5.0)).of_query == 0).all()


def test_queries_are_grouped_by_position():
    windows = np.array([[-1.0, 0], [0, 19.9], [19, 21], [70, 120], [99, 101], [110, 130]])
    groups = by_position(windows, np.full(6, 100.0))
    assert groups.of_query.tolist() == [0, 0, 1, 4, 4, 4]
    assert groups.names[4] == "80 to 100 % of the clip"
    assert by_position(np.zeros((1, 2)), np.zeros(1)).of_query.tolist() == [0]


@given(st.integers(0, 1000), st.integers(1, 30))
def test_query_figures_average_to_the_scores(seed, count):
    draw = np.random.default_rng(seed)
    truth, windows = (
        np.sort(draw.integers(0, 9, (count, *more, 2)).astype(float)) for more in ((), (4,))
    )
    windows[draw.random((count, 4)) < 0.2] = np.nan
    figures = query_figures(truth, windows, (0.3, 0.5), (1, 3, 5))
    assert tuple(figures) == FIGURES
    scores = evaluate(truth, windows, (0.3, 0.5), (1, 3, 5)).percentages()
    for name, values in figures.items():
        assert 100 * values.mean() == pytest.approx(scores[name])


def slow_bootstrap(differences, unit, samples, seed):
    """The means of the same draws, sample by sample."""
    draw = np.random.default_rng(seed)
    numbers = np.unique(unit)
    means = []
    for drawn in draw.integers(len(numbers), size=(samples, len(numbers))):
        rows = np.concatenate([np.flatnonzero(unit == numbers[i]) for i in drawn])
        means.append(differences[rows].mean(axis=0))
    return np.array(means)


@given(st.integers(0, 1000), st.integers(1, 20), COLUMNS)
def test_bootstrap_equals_the_loop(seed, count, columns):
    draw = np.random.default_rng(seed)
    differences = draw.normal(size=(count, columns))
    unit = draw.integers(0, 5, count) * 10
    for resampled in (None, unit):
        interval = paired_bootstrap(differences, resampled, samples=20, seed=seed)
        rows = np.arange(count) if resampled is None else resampled
        low, high = np.quantile(slow_bootstrap(differences, rows, 20, seed), [0.025, 0.975], axis=0)
        assert np.allclose(interval.low, low) and np.allclose(interval.high, high)
        assert np.allclose(interval.mean, differences.mean(axis=0))


def test_bootstrap_in_several_blocks(monkeypatch):
    differences = np.random.default_rng(5).normal(1.0, 1, (100, 2))
    whole = paired_bootstrap(differences)
    monkeypatch.setattr(analysis, "DRAWS_IN_MEMORY", 40_000)
    np.testing.assert_array_equal(paired_bootstrap(differences), whole)


def test_object_sets_are_thirds_that_keep_equal_frequencies_together():
    counts = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 5, "f": 9}
    sets = object_sets([None, *(name for name, count in counts.items() for _ in range(count))])
    assert list(sets.values()) == [{"a", "b"}, {"c", "d"}, {"e", "f"}]
    assert list(sets) == [
        "low-shot: objects of 1 training query",
        "mid-shot: objects of 2-3 training queries",
        "high-shot: objects of 5-9 training queries",
    ]
    # Most objects are asked about once: they are one set, the others share the rest.
    sets = object_sets([*"abcdefgh", *"ii", *"jjj", *"kkkkk"])
    assert list(map(len, sets.values())) == [8, 1, 2]
    assert list(object_sets(["a"]).values()) == [{"a"}]
    assert object_sets([]) == {}
