"""Ensembles of challenge files: both ways to merge, and what must hold for any files."""

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.ensembles import by_agreement, by_clusters, cluster_means, merge

RANKS = 1 / np.arange(1, 6)


def apart(*starts):
    """Windows of one second that do not overlap."""
    return [[float(start), start + 1.0] for start in starts]


def agree(files, scores, threshold=0.5):
    """The windows and scores merged from one query's files."""
    scored = np.concatenate((np.array(files, float), np.array(scores)[..., None]), 2)
    merged = by_agreement(scored, threshold)
    return merged[:, :2].tolist(), merged[:, 2].tolist()


@st.composite
def predictions(draw, most_files=3):
    """(R, F, 5, 2) windows, best first, and their falling scores."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, most_files)), 5)
    edge = st.integers(0, 12).map(float)
    window = st.tuples(edge, edge).map(sorted)
    count = int(np.prod(shape))
    windows = draw(st.lists(window, min_size=count, max_size=count))
    scores = draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    return np.array(windows).reshape(*shape, 2), -np.sort(-np.array(scores).reshape(shape) / 8)


def distinct(windows):
    """The different windows of one query, in order."""
    return list(dict.fromkeys(map(tuple, windows.tolist())))


def test_clusters_are_the_published_ones(golden):
    cases = json.loads((golden / "groundnlq" / "ensemble_groundnlq.json").read_text())["cases"]
    for case in cases:
        files = np.full((3, 5, 3), np.nan)
        for file, name in zip(files, ("first", "second", "third"), strict=True):
            file[: len(case[name])] = case[name]
        means = cluster_means(files[:, 0])
        np.testing.assert_allclose(means, np.array(case["top1"])[:, :3], atol=1e-9)
        merged, scores = merge(files[None, ..., :2], files[None, ..., 2], by_clusters)
        np.testing.assert_allclose(merged[0], case["windows"], atol=1e-9)
        assert (np.diff(scores[0]) <= 0).all()


def test_files_that_agree_on_nothing_take_turns():
    windows, scores = agree([apart(0, 10, 20, 30, 40), apart(50, 60, 70, 80, 90)], [RANKS, RANKS])
    assert [start for start, _ in windows] == [0, 50, 10, 60, 20]
    assert scores == [1, 1, 1 / 2, 1 / 2, 1 / 3]


def test_what_two_files_agree_on_leads():
    files = [[[0, 10], [20, 30], [40, 50]], [[60, 70], [21, 30], [80, 90]]]
    scores = [[0.5, 0.4, 0.1], [0.5, 0.3, 0.2]]
    windows, totals = agree(files, scores)
    assert windows == [[20, 30], [0, 10], [60, 70], [80, 90], [40, 50]]
    assert totals == pytest.approx([0.4 + 0.3 * 0.9, 0.5, 0.5, 0.2, 0.1])
    # At a higher threshold they are two windows.
    assert agree(files, scores, 0.95)[0][:3] == [[0, 10], [60, 70], [20, 30]]


def test_a_window_brought_forward_counts_no_more_than_those_before_it():
    windows, totals = agree([apart(0, 10), apart(30, 40)], [[0.2, 0.9], [0.5, 0.1]])
    # Nothing else is there: the best one again.
    assert windows == apart(30, 0, 10, 40, 30)
    assert totals == [0.5, 0.2, 0.2, 0.1, 0.0]


@given(predictions(most_files=1), st.integers(1, 3))
def test_copies_of_a_file_give_what_the_file_alone_gives(files, copies):
    windows, scores = files
    merged, totals = merge(
        windows.repeat(copies, 1), scores.repeat(copies, 1), partial(by_agreement, threshold=1.0)
    )
    for query in range(len(windows)):
        assert distinct(merged[query]) == distinct(windows[query, 0])
    assert (np.diff(totals) <= 0).all()


@given(predictions(), st.floats(0, 1))
def test_windows_come_from_the_files_and_apart_ones_first(files, threshold):
    windows, scores = files
    merged, totals = merge(windows, scores, partial(by_agreement, threshold=threshold))
    assert merged.shape == (len(windows), 5, 2) and (totals >= 0).all()
    for query in range(len(windows)):
        file_windows = set(distinct(windows[query].reshape(-1, 2)))
        assert set(distinct(merged[query])) <= file_windows
        assert len(distinct(merged[query])) == min(5, len(file_windows))
