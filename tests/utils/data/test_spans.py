"""Windows in units against the published rule (all pairs scored) and the reference numbers."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from utils.data.spans import (
    exact_unit_windows,
    highlighted_units,
    jitter_windows,
    unit_windows,
    window_seconds,
)


def columns(golden, name):
    """A table of spans.json as float columns."""
    return np.array(json.loads((golden / "spans.json").read_text())[name]["rows"]).T


def one_by_one(start, end, duration, units):
    """The published rule as it is told: score all pairs, keep the first of the best."""
    left = np.arange(units) / units * duration
    right = (np.arange(units) + 1) / units * duration
    overlap = np.minimum(right, end) - np.maximum(left[:, None], start)
    union = np.maximum(right, end) - np.minimum(left[:, None], start)
    iou = np.triu(np.maximum(overlap, 0) / np.where(union > 0, union, 1))
    return np.unravel_index(np.argmax(iou), iou.shape)


def unit_window(start, end, duration, units):
    seconds = np.array([[start, end]])
    return tuple(unit_windows(seconds, np.array([duration]), np.array([units]))[0])


def exact_window(start, end, duration, units):
    seconds = np.array([[start, end]])
    return tuple(exact_unit_windows(seconds, np.array([duration]), np.array([units]))[0])


@st.composite
def cases(draw):
    """(start, end, duration, units): boundaries on and beside units, empty and outside windows."""
    units = draw(st.integers(1, 24))
    duration = draw(st.one_of(st.integers(1, 900).map(lambda n: n / 1.875), st.floats(0.5, 4000)))
    unit = st.integers(-2, units + 3).map(lambda k: k / units * duration)
    step = st.integers(-3, 2000).map(lambda k: k / 1.875)
    half = st.integers(-2, 2 * units + 3).map(lambda k: k / 2 / units * duration)
    time = st.one_of(unit, half, step, st.floats(-2.0, duration * 1.1))
    start = draw(time)
    length = st.one_of(st.just(0.0), st.floats(0, duration), st.floats(0, duration / units))
    end = draw(st.one_of(time, length.map(lambda n: start + n)))
    return start, end, duration, units


def test_windows_in_units_are_the_golden_ones(golden):
    start, end, units, duration, *expected = columns(golden, "time_to_unit")
    found = unit_windows(np.stack([start, end], 1), duration, units.astype(int))
    assert found.dtype == np.int64
    assert np.array_equal(found.T, expected)


@given(cases())
def test_nine_pairs_are_as_good_as_all(case):
    assert unit_window(*case) == one_by_one(*case)


@given(cases())
def test_exact_windows_touch_the_window_or_are_the_nearest_unit(case):
    start, end, duration, units = case
    first, last = exact_window(*case)
    assert 0 <= first <= last < units
    start, end = np.clip([start, end], 0, duration)
    if end > start + 1e-9 * duration:
        assert (first, last) == unit_window(start, end, duration, units)
        left, right = first / units * duration, (last + 1) / units * duration
        assert left < end and right > start
    elif end <= start:  # the unit its middle lies in, or the nearest one
        middle = np.clip(np.mean(case[:2]) / duration * units, 0, units)
        assert first == last and abs(first + 0.5 - middle) <= 0.5 + 1e-6


def test_seconds_of_units_are_the_golden_ones(golden):
    first, last, units, duration, *expected = columns(golden, "unit_to_time")
    found = window_seconds(np.stack([first, last], 1).astype(int), duration, units)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.T, expected, rtol=0, atol=1e-9)


@given(st.data(), st.integers(1, 600), st.floats(1, 4000))
def test_units_survive_the_way_to_seconds_and_back(data, units, duration):
    first = data.draw(st.integers(0, units - 1))
    last = data.draw(st.integers(first, units - 1))
    seconds = window_seconds(np.array([[first, last]]), np.array([duration]), np.array([units]))
    assert seconds[0, 0] < seconds[0, 1]
    assert unit_window(*seconds[0], duration, units) == (first, last)
    assert exact_window(*seconds[0], duration, units) == (first, last)


def test_jitter_is_the_golden_one(golden):
    for query, *numbers in json.loads((golden / "jitter.json").read_text())["rows"]:
        start, end, units, factor, translate, stretch, move, *expected = numbers
        found = jitter_windows(
            np.array([[start, end]]),
            np.array([units]),
            np.array([query.startswith("#")]),
            np.array([[stretch, move]]),
            factor,
            translate,
        )
        assert found.tolist() == [expected]


@given(st.data(), st.integers(1, 600), st.sampled_from([1.0, 2.5, 5.0]), st.booleans())
def test_jitter_widens_within_the_clip_and_spares_other_queries(data, units, factor, translate):
    first = data.draw(st.integers(0, units - 1))
    last = data.draw(st.integers(first, units - 1))
    draw = st.floats(0, 1, exclude_max=True)
    windows = np.array([[first, last]] * 2)
    draws = np.array([[data.draw(draw), data.draw(draw)]] * 2)
    lengths, narrations = np.array([units] * 2), np.array([True, False])
    found = jitter_windows(windows, lengths, narrations, draws, factor, translate)
    assert 0 <= found[0, 0] <= first and last <= found[0, 1] < units
    assert found[0, 1] - found[0, 0] <= factor * (last - first + 1) + 1
    assert found[1].tolist() == [first, last]


def test_highlights_are_the_golden_ones(golden):
    start, end, units, *expected = columns(golden, "highlight").astype(int)
    highlight = highlighted_units(np.stack([start, end], 1), units, units.max())
    last = units.max() - 1 - highlight[:, ::-1].argmax(1)
    assert np.array_equal([highlight.argmax(1), last], expected)
    assert np.array_equal(highlight.sum(1), last - highlight.argmax(1) + 1)
