"""Chances fitted to scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.evaluation.calibration import Calibration, fit_calibration, reliability


@given(slope=st.floats(0.3, 3), intercept=st.floats(-2, 2), seed=st.integers(0, 1000))
def test_a_fit_recovers_the_line_that_drew_the_data(slope, intercept, seed):
    draw = np.random.default_rng(seed)
    scores = draw.uniform(0.01, 0.99, 20_000)
    drawn = Calibration(slope, intercept, "")
    right = draw.uniform(size=len(scores)) < drawn.chances(scores)
    fitted = fit_calibration(scores, right, "mark")
    assert fitted.checkpoint == "mark"
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, intercept), abs=0.2)
    chances = fitted.chances(scores)
    assert chances.mean() == pytest.approx(right.mean(), abs=1e-3)  # as every logistic fit
    for group in reliability(chances, right):
        assert group.chance == pytest.approx(group.right, abs=0.06) and group.windows == 2500


@given(
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=50),
    hits=st.integers(0, 2**50),
)
def test_chances_rise_with_any_scores_or_there_are_none(scores, hits):
    scores = np.array(scores)
    right = np.array([bool(hits >> place & 1) for place in range(len(scores))])
    try:
        fitted = fit_calibration(scores, right, "")
    except UserError as error:
        assert "give no chances" in str(error)
        return
    chances = fitted.chances(np.sort(scores))
    assert np.isfinite([fitted.slope, fitted.intercept]).all() and (np.diff(chances) >= 0).all()
    assert ((chances >= 0) & (chances <= 1)).all()


def test_separable_scores_stay_finite():
    scores = np.repeat([0.1, 0.9], 50)
    fitted = fit_calibration(scores, scores > 0.5, "")
    assert fitted.chances(np.array([0.1, 0.9])) == pytest.approx([1 / 52, 51 / 52], abs=1e-3)
    with pytest.raises(UserError, match="50 of 100 windows are right, and those with a high score"):
        fit_calibration(scores, scores < 0.5, "")
