"""Augmentation: lengths, positions and labels follow their distributions; draws have one source."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ReLER.augment import (
    COLUMNS,
    Draws,
    cut_windows,
    draw_inside,
    draw_outside,
    draw_parts,
    label_units,
    salient_spans,
)
from ReLER.options import SCALES
from utils.base.tasks import ROWS_PER_SECOND
from utils.training.recipes import plan_epoch

R = 40_000
QUERY_CLIPS = np.array([0, 0, 1, 2, 3, 4])


def uniformity(values: np.ndarray, bins: int = 20) -> float:
    """Largest deviation of a bin's share of values from [0, 1), in standard deviations."""
    counts = np.histogram(values, bins, (0, 1))[0]
    expected = len(values) / bins
    return np.abs(counts - expected).max() / np.sqrt(expected)


def make_draws(seed, rows=R):
    return plan_epoch(seed, 0, rows, COLUMNS).draws


def test_every_column_of_draws_is_used_once():
    columns = np.arange(COLUMNS)[None] / COLUMNS
    draws = np.concatenate([np.ravel(part) for part in Draws.of(columns)])
    assert draws.tolist() == columns[0, :12].tolist()
    assert draw_parts(columns[0]) == SCALES[4]


@pytest.fixture(scope="module")
def many():
    """Short windows in clips of 450 to 1200 rows; every third query is of the first clip."""
    generator = np.random.default_rng(0)
    clip = generator.integers(0, 5, R)
    clip_rows = np.array([900, 900, 450, 900, 1200])
    start = generator.random(R) * (clip_rows[clip] / ROWS_PER_SECOND - 10)
    seconds = np.stack((start, start + generator.random(R) * 10), 1)
    draws = Draws.of(make_draws(1))
    cuts, shifted = cut_windows(clip, seconds, clip_rows, QUERY_CLIPS, draws)
    assert set(cuts.other) == {-1, 0, 1, 2, 3, 4}
    return clip, clip_rows, seconds, cuts, shifted


def test_lengths_are_two_to_four_fifths(many):
    clip, clip_rows, _, cuts, _ = many
    share = (cuts.length + 0.5) / clip_rows[clip]
    assert share.min() > 0.4
    assert share.max() < 0.802
    assert uniformity((share - 0.4) / 0.4 * 0.9999) < 6


def test_positions_are_uniform_among_those_that_hold_the_window(many):
    clip, clip_rows, seconds, cuts, _ = many
    low = np.floor(seconds[:, 0] * ROWS_PER_SECOND)
    high = np.ceil(seconds[:, 1] * ROWS_PER_SECOND)
    earliest = np.maximum(high - cuts.length, 0)
    latest = np.minimum(low, clip_rows[clip] - cuts.length)
    choice = latest - earliest + 1
    assert (cuts.first >= earliest).all()
    assert (cuts.first <= latest).all()
    wide = choice > 100
    jitter = np.random.default_rng(1).random(R)  # within a row, which are whole numbers
    assert uniformity(((cuts.first - earliest + jitter) / choice)[wide]) < 4.5


def test_half_are_spliced_anywhere_into_the_clip_of_any_query(many):
    clip, clip_rows, _, cuts, _ = many
    spliced = cuts.other >= 0
    assert abs(spliced.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(R)
    assert (cuts.other == clip).any()  # the own clip included, as published
    counts = np.bincount(cuts.other[spliced], minlength=5)
    expected = counts.sum() * np.bincount(QUERY_CLIPS) / len(QUERY_CLIPS)
    assert (np.abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
    other_rows = clip_rows[cuts.other[spliced]]
    jitter = np.random.default_rng(1).random(spliced.sum())
    assert uniformity((cuts.cut[spliced] + jitter) / (other_rows + 1)) < 4.5
    assert (cuts.rows[spliced] == cuts.length[spliced] + other_rows).all()
    assert (cuts.cut[~spliced] == 0).all()
    assert (cuts.rows[~spliced] == cuts.length[~spliced]).all()


@settings(max_examples=300)
@given(
    rows=st.integers(1, 2000),
    times=st.tuples(st.floats(-1, 1200), st.floats(0, 400)),
    others=st.lists(st.integers(1, 2000), max_size=3),
    seed=st.integers(0, 10**6),
    units=st.integers(1, 600),
)
def test_the_answer_lies_inside_the_kept_window(rows, times, others, seed, units):
    clip_rows = np.array([rows, *others])
    seconds = np.array([[times[0], times[0] + times[1]]])
    draws = Draws.of(make_draws(seed, 1))
    cuts, shifted = cut_windows(
        np.zeros(1, int), seconds, clip_rows, np.arange(len(clip_rows)), draws
    )
    assert 0 <= cuts.first[0] <= cuts.first[0] + cuts.length[0] <= rows
    assert cuts.length[0] >= 1
    # The part of the sample that is the clip's own, in seconds.
    begin = cuts.cut[0] / ROWS_PER_SECOND
    end = (cuts.cut[0] + cuts.length[0]) / ROWS_PER_SECOND
    assert begin - 1e-9 <= shifted[0, 0] <= shifted[0, 1] <= end + 1e-9
    inside = np.clip(seconds, 0, rows / ROWS_PER_SECOND)
    assert np.isclose(np.diff(shifted), np.diff(inside))

    units = np.minimum(cuts.rows, units)
    first, last = label_units(shifted, cuts.rows, units)[0]
    assert 0 <= first <= last <= units[0] - 1


def test_labels_round_outwards():
    rows, units = np.array([1200, 1200, 300]), np.array([600, 600, 300])
    seconds = np.array([[64.0, 64.0], [63.9, 64.2], [160.0, 170.0]])
    place = 64 / 640 * 599
    expected = [[59, 60], [np.floor(63.9 / 640 * 599), np.ceil(64.2 / 640 * 599)], [299, 299]]
    assert place == pytest.approx(59.9)
    assert label_units(seconds, rows, units).tolist() == expected


def test_units_are_drawn_evenly_for_saliency():
    windows = np.tile([[10, 13]], (R, 1))
    draws = make_draws(5)[:, :4]
    inside = draw_inside(windows, draws[:, :2])
    outside = draw_outside(windows, np.full(R, 20), draws[:, 2:])
    assert (inside[:, 0] != inside[:, 1]).all()
    assert (outside[:, 0] != outside[:, 1]).all()
    for column in inside.T:
        assert np.abs(np.bincount(column)[10:14] - R / 4).max() < 4.5 * np.sqrt(R / 4)
    for column in outside.T:
        counts = np.bincount(column, minlength=20)
        assert counts[10:14].sum() == 0
        assert np.abs(np.delete(counts, slice(10, 14)) - R / 16).max() < 4.5 * np.sqrt(R / 16)


def test_units_drawn_are_those_that_published_code_draws(golden):
    cases = json.loads((golden / "extra" / "saliency_pairs.json").read_text())["cases"]
    draws = make_draws(6, 2000)[:, :4]
    for case in cases:
        windows = np.tile([[case["start"], case["end"]]], (len(draws), 1))
        units = np.full(len(draws), case["length"])
        spans = salient_spans(windows, units)
        found = {
            "positives_seen": np.unique(draw_inside(spans, draws[:, :2])).tolist(),
            "negatives_seen": np.unique(draw_outside(spans, units, draws[:, 2:])).tolist(),
        }
        for name, units_drawn in found.items():
            expected = case[name]
            if len(units_drawn) >= 40:
                units_drawn = [min(units_drawn), max(units_drawn)]
            assert units_drawn == expected, (case, name)
