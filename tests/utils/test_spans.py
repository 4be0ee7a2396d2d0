"""Spans: the published numbers, and the closed form against scoring every pair."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.spans import (
    exact_unit_windows,
    highlight_windows,
    jitter_windows,
    unit_windows,
    window_seconds,
)


@pytest.fixture(scope="module")
def numbers(golden):
    return json.loads((golden / "spans.json").read_text())


def columns(table):
    return {
        name: np.array(values)
        for name, values in zip(table["columns"], zip(*table["rows"], strict=True), strict=True)
    }


def all_pairs(start, end, duration, units):
    """The rule itself: score every pair i <= j."""
    begin = np.arange(units) / units * duration
    finish = np.arange(1, units + 1) / units * duration
    overlap = np.minimum(finish[None], end) - np.maximum(begin[:, None], start)
    union = np.maximum(finish[None], end) - np.minimum(begin[:, None], start)
    ordered = np.arange(units)[:, None] <= np.arange(units)
    iou = np.where(ordered & (overlap > 0), overlap / np.where(union > 0, union, 1), 0.0)
    return divmod(int(iou.argmax()), units)


def test_labels_are_the_published_ones(numbers):
    c = columns(numbers["time_to_unit"])
    mine = unit_windows(
        np.stack((c["start_sec"], c["end_sec"]), 1), c["duration_sec"], c["units"].astype(int)
    )
    assert (mine[:, 0] == c["start_unit"]).all()
    assert (mine[:, 1] == c["end_unit"]).all()


def test_seconds_are_the_published_ones(numbers):
    c = columns(numbers["unit_to_time"])
    mine = window_seconds(
        np.stack((c["start_unit"], c["end_unit"]), 1), c["duration_sec"], c["units"]
    )
    np.testing.assert_allclose(mine[:, 0], c["start_sec"], atol=1e-4)
    np.testing.assert_allclose(mine[:, 1], c["end_sec"], atol=1e-4)


def test_highlights_are_the_published_ones(numbers):
    c = columns(numbers["highlight"])
    mine = highlight_windows(np.stack((c["start_unit"], c["end_unit"]), 1), c["length"])
    assert (mine[:, 0] == c["first_highlighted"]).all()
    assert (mine[:, 1] == c["last_highlighted"]).all()


def test_jitter_is_the_published_one(golden):
    c = columns(json.loads((golden / "jitter.json").read_text()))
    windows = np.stack((c["start_unit"], c["end_unit"]), 1)
    narration = np.char.startswith(c["query"], "#")
    draws = np.stack((c["u1"], c["u2"]), 1)
    for factor in (2.5, 5.0):
        for translate in (True, False):
            rows = (c["factor"] == factor) & (c["translate"] == translate)
            assert rows.any()
            mine = jitter_windows(
                windows[rows], c["units"][rows], narration[rows], factor, translate, draws[rows]
            )
            assert (mine[:, 0] == c["new_start"][rows]).all()
            assert (mine[:, 1] == c["new_end"][rows]).all()


# Times on the grid of the published preparation, of a second, or anywhere; also outside the clip.
times = st.one_of(
    st.integers(0, 900).map(lambda k: k / 1.875),
    st.integers(0, 500).map(float),
    st.floats(-1, 500, allow_nan=False),
)


@settings(max_examples=400, deadline=None)
@given(times, times, st.one_of(st.integers(1, 900).map(lambda k: k / 1.875)), st.integers(1, 130))
def test_closed_form_equals_scoring_every_pair(one, other, duration, units):
    start, end = min(one, other), max(one, other)
    mine = unit_windows(np.array([[start, end]]), np.array([duration]), np.array([units]))
    assert tuple(mine[0]) == all_pairs(start, end, duration, units)


def test_closed_form_equals_scoring_every_pair_at_600_units():
    draw = np.random.default_rng(0)
    frames = draw.integers(600, 1700, 60)
    start = draw.integers(0, frames)
    seconds = np.stack((start, np.minimum(frames, start + draw.integers(0, 60, 60))), 1) / 1.875
    mine = unit_windows(seconds, frames / 1.875, np.full(60, 600))
    for row, (window, length) in enumerate(zip(seconds, frames / 1.875, strict=True)):
        assert tuple(mine[row]) == all_pairs(*window, length, 600)


@settings(max_examples=200, deadline=None)
@given(times, times, st.integers(1, 900), st.integers(1, 600))
def test_exact_labels_lie_on_the_window(one, other, frames, units):
    duration = frames / 1.875
    start, end = min(one, other), max(one, other)
    (window,) = exact_unit_windows(
        np.array([[start, end]]), np.array([duration]), np.array([units])
    )
    assert 0 <= window[0] <= window[1] < units
    left, right = window_seconds(window, duration, units)
    middle = min(max((start + end) / 2, 0), duration)
    if max(start, 0) >= min(end, duration):
        assert left - 1e-6 <= middle <= right + 1e-6
    else:
        assert left < min(end, duration) and right > max(start, 0)


def test_a_window_inside_one_bin_is_not_labelled_as_the_clips_start():
    duration, units = np.array([480.0]), np.array([128])
    truncated, exact = np.array([[200.0, 200.0]]), np.array([[200.1, 200.5]])
    assert unit_windows(truncated, duration, units).tolist() == [[0, 0]]
    assert exact_unit_windows(exact, duration, units).tolist() == [[53, 53]]


@given(st.integers(1, 600).flatmap(lambda n: st.tuples(
    st.just(n), st.integers(0, n - 1), st.integers(0, n - 1))), st.floats(1, 900))  # fmt: skip
def test_units_to_seconds_and_back(place, duration):
    units, one, other = place
    window = np.array([[min(one, other), max(one, other)]])
    seconds = window_seconds(window, np.array([duration]), np.array([units]))
    again = unit_windows(seconds, np.array([duration]), np.array([units]))
    assert again.tolist() == window.tolist()


@given(
    st.integers(1, 600).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n - 1), st.integers(0, n - 1))
    ),
    st.floats(1, 5),
    st.booleans(),
    st.floats(0, 0.999),
    st.floats(0, 0.999),
)
def test_jittered_windows_stay_in_the_clip(place, factor, translate, u1, u2):
    units, one, other = place
    window = np.array([[min(one, other), max(one, other)]])
    arguments = (factor, translate, np.array([[u1, u2]]))
    moved = jitter_windows(window, np.array([units]), np.array([True]), *arguments)
    assert 0 <= moved[0, 0] <= moved[0, 1] < units
    same = jitter_windows(window, np.array([units]), np.array([False]), *arguments)
    assert same.tolist() == window.tolist()


def test_no_rows():
    nothing = np.empty((0, 2))
    assert unit_windows(nothing, np.empty(0), np.empty(0, int)).shape == (0, 2)
    assert exact_unit_windows(nothing, np.empty(0), np.empty(0, int)).shape == (0, 2)
