"""Temporal NMS and challenge files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.data.records import read_records
from utils.evaluation.metrics import iou
from utils.evaluation.predictions import (
    read_predictions,
    read_scores,
    scores_file,
    suppress,
    write_results,
)


def slow_suppress(windows, scores, threshold, k):
    """One query at a time, as temporal NMS is told."""
    order = sorted(range(len(scores)), key=lambda c: -scores[c])
    kept, aside = [], []
    for candidate in order:
        close = any(iou(windows[candidate], windows[other]) > threshold for other in kept)
        (aside if close else kept).append(candidate)
    return (kept + aside)[:k]


@given(st.data(), st.integers(5, 9), st.floats(0, 1))
def test_suppression_is_temporal_nms(data, candidates, threshold):
    edge = st.integers(0, 12).map(float)
    window = st.tuples(edge, edge).map(sorted)
    several = st.lists(window, min_size=candidates, max_size=candidates)
    score = st.integers(0, 20).map(float)
    windows = np.array(data.draw(st.lists(several, min_size=2, max_size=2)))
    scores = np.array([[data.draw(score) for _ in range(candidates)] for _ in range(2)])
    kept, kept_scores = suppress(windows, scores, threshold)
    assert kept.shape == (2, 5, 2) and kept_scores.shape == (2, 5)
    for query in range(2):
        expected = slow_suppress(windows[query], scores[query], threshold, 5)
        assert np.array_equal(kept[query], windows[query][expected])
        assert np.array_equal(kept_scores[query], scores[query][expected])
    assert (kept_scores[:, 0] == scores.max(axis=1)).all()


@pytest.fixture
def scored(golden, tmp_path):
    """A challenge file with scores beside it, its queries, windows and scores."""
    keys = read_records(golden / "naq" / "expected_prepared_val.json").keys
    draw = np.random.default_rng(0)
    windows = draw.random((len(keys), 5, 2)).cumsum(axis=2)
    scores = -np.sort(-draw.random((len(keys), 5)).astype(np.float32))
    path = tmp_path / "run" / "7_val_preds.json"
    write_results(path, keys, windows, scores)
    return path, keys, windows, scores


def test_a_file_that_was_written_is_read_back(scored):
    path, keys, windows, _ = scored
    content = json.loads(path.read_text())
    assert list(content) == ["version", "challenge", "results"]
    assert content["version"] == "1.0" and content["challenge"] == "ego4d_nlq_challenge"
    assert list(content["results"][0]) == [
        *("clip_uid", "annotation_uid", "query_idx", "predicted_times")
    ]
    predictions = read_predictions(path)
    assert np.array_equal([prediction.windows for prediction in predictions], windows)
    assert [prediction.key for prediction in predictions] == keys
    assert not list(path.parent.glob(".*"))


def test_scores_are_kept_beside_the_challenge_file(scored):
    path, keys, windows, scores = scored
    assert scores_file(path) == path.with_name("7_val_preds_scores.json")
    assert np.array_equal(np.float32(read_scores(path, read_predictions(path))), scores)
    # Another program may write the same content with other spaces.
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert read_scores(path, read_predictions(path)) == scores.tolist()
    # Predictions without scores do not keep those of others beside them.
    write_results(path, keys, windows)
    assert not scores_file(path).exists() and read_scores(path, read_predictions(path)) is None


def test_other_versions_and_numbers_of_windows_are_tolerated(scored, capsys):
    content = json.loads(scored[0].read_text()) | {"version": "0.9", "challenge": None}
    for count, result in enumerate(content["results"]):
        result["predicted_times"] = [[1, 2]] * count
    scored[0].write_text(json.dumps(content))
    counts = [len(prediction.windows) for prediction in read_predictions(scored[0])]
    assert counts == list(range(len(counts)))
    assert capsys.readouterr().err.count("warning:") == 2
