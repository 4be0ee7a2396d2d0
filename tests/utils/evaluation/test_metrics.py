"""Scores against the reference numbers and tables, and what must hold for any windows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utils.base.errors import UserError
from utils.evaluation.analysis import by_template, query_object
from utils.evaluation.metrics import evaluate, iou, score_table
from utils.evaluation.scoring import read_truth, read_windows

TIMES = st.floats(0, 500).map(lambda time: round(time, 2))
WINDOW = st.tuples(TIMES, TIMES).map(sorted)


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "evaluation" / "expected.json").read_text())


@pytest.fixture(scope="module")
def answered(golden):
    """Queries that have a prediction, their windows (R, 2) and the predicted ones (R, 5, 2)."""
    _, queries, truth = read_truth(golden / "evaluation" / "gt.json")
    windows, rows, _ = read_windows(golden / "evaluation" / "preds.json", queries, 5)
    return [queries[row] for row in np.flatnonzero(rows)], truth[rows], windows[rows]


@pytest.fixture(scope="module")
def scores(answered, expected):
    _, truth, windows = answered
    return evaluate(truth, windows, expected["thresholds"], expected["topK"], listed=40)


def assert_figures(scores, recall, mIoU):
    """Recalls by threshold, then k."""
    np.testing.assert_allclose(scores.recalls, np.transpose(recall).ravel(), rtol=0, atol=1e-9)
    assert scores.figures["mIoU"] == pytest.approx(mIoU, abs=1e-9)


def test_figures_and_their_table_are_the_golden_ones(scores, expected):
    assert_figures(scores, expected["recall_by_threshold_then_k"], expected["mIoU"])
    assert scores.evaluated == expected["evaluated"]
    assert score_table(scores, "Epoch 3, Step 7") == expected["table"]


def test_figures_of_templates_are_the_golden_ones(answered, expected):
    queries, truth, windows = answered
    masks = by_template(queries).groups(np.ones(len(queries), dtype=bool))
    assert list(masks) == sorted(expected["per_template"])
    for name, figures in expected["per_template"].items():
        rows = masks[name]
        scores = evaluate(truth[rows], windows[rows], expected["thresholds"], expected["topK"])
        assert_figures(scores, figures["recall"], figures["mIoU"])


def test_figures_of_object_sets_are_the_golden_ones(answered, expected):
    queries, truth, windows = answered
    figures = expected["per_object_set"]
    for number, names in enumerate(figures["sets"]):
        rows = np.array([query_object(query) in names for query in queries])
        scores = evaluate(truth[rows], windows[rows], expected["thresholds"], expected["topK"])
        assert scores.evaluated == figures["count"][number]
        assert_figures(scores, figures["recall"][number], figures["mIoU"][number])


def test_a_window_must_exceed_the_threshold():
    truth, windows = np.array([[0.0, 10.0]]), np.array([[[0.0, 5.0], [0.0, 5.001]]])
    assert evaluate(truth, windows, [0.5], [1, 2]).recalls == [0.0, 1.0]


def test_unknown_windows_are_not_evaluated():
    truth = np.array([[0.0, 10.0], [np.nan, np.nan]])
    scores = evaluate(truth, np.array([[[0.0, 10.0]]] * 2), [0.3], [1])
    assert (scores.evaluated, scores.listed, scores.figures["mIoU"]) == (1, 2, 1.0)
    with pytest.raises(UserError, match="nothing to score against"):
        evaluate(truth[1:], np.zeros((1, 5, 2)))


@given(WINDOW, WINDOW)
def test_iou_is_symmetric_and_bounded(one, other):
    one, other = np.array(one), np.array(other)
    value = iou(one, other)
    assert 0 <= value <= 1
    assert value == iou(other, one)
    assert iou(one, one) == (1 if one[1] > one[0] else 0)
    apart = one[1] <= other[0] or other[1] <= one[0]
    assert (value == 0) == (apart or one[0] == one[1] or other[0] == other[1])


@given(
    arrays(float, (6, 2), elements=TIMES).map(lambda a: np.sort(a, 1)),
    arrays(float, (6, 5, 2), elements=TIMES).map(lambda a: np.sort(a, 2)),
)
def test_recall_grows_with_k_and_falls_with_the_threshold(truth, windows):
    thresholds, topK = [0.0, 0.1, 0.3, 0.5, 0.9], [1, 2, 3, 5, 9]
    scores = evaluate(truth, windows, thresholds, topK)
    recall = np.reshape(scores.recalls, (len(topK), len(thresholds)))
    assert (np.diff(recall, axis=0) >= 0).all()
    assert (np.diff(recall, axis=1) <= 0).all()

    def hits(threshold, k):
        return [any(iou(truth[q], w) > threshold for w in windows[q][:k]) for q in range(6)]

    one_by_one = [[np.mean(hits(threshold, k)) for threshold in thresholds] for k in topK]
    np.testing.assert_allclose(recall, one_by_one)
    assert scores.figures["mean R@1"] == pytest.approx((recall[0, 2] + recall[0, 3]) / 2)
