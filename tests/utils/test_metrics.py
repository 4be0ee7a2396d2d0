"""Metrics: the published numbers and tables, and what must hold for any windows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluate_ego4d_nlq import align, object_groups, read_truth, template_groups
from utils.metrics import evaluate, evaluate_groups, plain_object, score_table, window_iou
from utils.predictions import read_predictions

seconds = st.floats(0, 100).map(lambda t: round(t, 2))
windows = st.tuples(seconds, seconds).map(sorted).map(np.array)


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "evaluation" / "expected.json").read_text())


@pytest.fixture(scope="module")
def aligned(golden):
    queries = read_truth(golden / "evaluation" / "gt.json")
    truth, windows = align(queries, read_predictions(golden / "evaluation" / "preds.json"))
    answered = np.flatnonzero(~np.isnan(windows[:, 0, 0]))
    return [queries[row] for row in answered], truth[answered], windows[answered]


@pytest.fixture(scope="module")
def scores(expected, aligned):
    _, truth, predicted = aligned
    return evaluate(truth, predicted, expected["thresholds"], expected["topK"])


def test_recalls_are_the_published_ones(scores, expected):
    np.testing.assert_allclose(scores.recall, expected["recall_by_threshold_then_k"], atol=1e-9)
    assert scores.miou == pytest.approx(expected["mIoU"], abs=1e-9)
    assert scores.evaluated == expected["evaluated"]


def test_tables_are_the_published_ones(scores, expected):
    assert score_table(scores, "Epoch 3, Step 7") == expected["table"]
    assert score_table(scores, "Epoch 3", mean_recall_1=True) == expected["table_with_mean_R1"]


def test_breakdowns_are_the_published_ones(aligned, expected):
    queries, truth, predicted = aligned
    settings = (expected["thresholds"], expected["topK"])
    templates = evaluate_groups(truth, predicted, template_groups(queries), *settings)
    assert set(templates) == set(expected["per_template"])
    for name, numbers in expected["per_template"].items():
        np.testing.assert_allclose(templates[name].recall, numbers["recall"], atol=1e-9)
        assert templates[name].miou == pytest.approx(numbers["mIoU"], abs=1e-9)
    numbers = expected["per_object_set"]
    sets = {str(place): set(things) for place, things in enumerate(numbers["sets"])}
    objects = evaluate_groups(truth, predicted, object_groups(queries, sets), *settings)
    for place, found in enumerate(objects.values()):
        np.testing.assert_allclose(found.recall, numbers["recall"][place], atol=1e-9)
        assert found.miou == pytest.approx(numbers["mIoU"][place], abs=1e-9)
        assert found.evaluated == numbers["count"][place]


@given(windows, windows)
def test_iou_is_symmetric_and_bounded(one, other):
    found = window_iou(one, other)
    assert 0 <= found <= 1
    assert found == window_iou(other, one)
    length = one[1] - one[0]
    assert window_iou(one, one) == (1 if length > 0 else 0)


@given(st.lists(st.tuples(windows, st.lists(windows, min_size=5, max_size=5)), min_size=1))
def test_recall_grows_with_k_and_falls_with_the_threshold(pairs):
    truth = np.array([right for right, _ in pairs])
    predicted = np.array([guesses for _, guesses in pairs])
    recall = evaluate(truth, predicted, (0.1, 0.3, 0.5, 0.9), (1, 2, 5)).recall
    assert (np.diff(recall, axis=1) >= 0).all()
    assert (np.diff(recall, axis=0) <= 0).all()


def test_threshold_is_strict_and_empty_windows_are_never_right():
    truth = np.array([[0.0, 10.0], [5.0, 5.0]])
    predicted = np.array([[[0.0, 5.0]], [[5.0, 5.0]]])
    scores = evaluate(truth, predicted, (0.5, 0.49), (1,))
    assert scores.recall.ravel().tolist() == [0.0, 0.5]
    assert scores.miou == 0.25


def test_unknown_truth_and_missing_predictions():
    truth = np.array([[0.0, 10.0], [np.nan, np.nan], [0.0, 4.0]])
    predicted = np.array([[[0.0, 10.0]], [[0.0, 1.0]], [[np.nan, np.nan]]])
    scores = evaluate(truth, predicted, (0.3, 0.5), (1,), listed=7)
    assert (scores.evaluated, scores.listed) == (2, 7)
    assert scores.mean_recall_1 == 0.5
    assert scores.said() == "2 of 7 queries evaluated"
    assert scores.figures()["R@1 IoU=0.3"] == 50


def test_nothing_to_score():
    scores = evaluate(np.empty((0, 2)), np.empty((0, 5, 2)))
    assert scores.miou == 0 and (scores.recall == 0).all()


def test_plain_object():
    assert plain_object(" Lawn Mower! ") == "lawn mower"
    assert plain_object(None) is None
