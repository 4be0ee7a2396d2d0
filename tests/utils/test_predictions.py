"""Predictions: best spans against the whole outer product, NMS, and the challenge file."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import UserError
from utils.metrics import window_iou
from utils.predictions import best_spans, read_predictions, suppress, write_predictions
from utils.records import read_records


@pytest.mark.parametrize("name", ["transformer", "rnn"])
def test_best_spans_are_the_published_ones(golden, name):
    numbers = np.load(golden / f"vslnet_{name}.npz")
    spans, scores = best_spans(
        torch.from_numpy(numbers["start_logits"]), torch.from_numpy(numbers["end_logits"])
    )
    assert (spans[..., 0].numpy() == numbers["top5_start"]).all()
    assert (spans[..., 1].numpy() == numbers["top5_end"]).all()
    assert (scores.diff(dim=1) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 40), st.integers(0, 10**6))
def test_best_spans_equal_sorting_all_pairs(units, seed):
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, 2, units, generator=generator) * 3
    spans, scores = best_spans(start, end)
    for row in range(2):
        p, q = start[row].softmax(0), end[row].softmax(0)
        pairs = sorted((p[i] * q[j]).item() for i in range(units) for j in range(i, units))
        np.testing.assert_allclose(scores[row], pairs[::-1][:5], rtol=1e-5)
        assert (spans[row, :, 0] <= spans[row, :, 1]).all()
        assert len({tuple(span) for span in spans[row].tolist()}) == 5


def test_clips_with_fewer_spans_than_asked_for():
    logits = torch.tensor([[0.5], [0.1]])
    spans, _ = best_spans(logits, logits)
    assert (spans == 0).all() and spans.shape == (2, 5, 2)
    padded = torch.tensor([[0.3, 0.9, -1e30, -1e30]])
    spans, _ = best_spans(padded, padded)
    assert spans.max() == 1


several = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.floats(0.01, 1)), min_size=6, max_size=12
)


@settings(max_examples=100, deadline=None)
@given(several, st.floats(0.1, 0.9))
def test_nms_keeps_the_best_and_separates_what_it_keeps(candidates, threshold):
    windows = np.array([[(start, start + length) for start, length, _ in candidates]])
    scores = np.array([[score for _, _, score in candidates]])
    kept, kept_scores = suppress(windows, scores, threshold)
    assert kept.shape == (1, 5, 2)
    assert kept_scores[0, 0] == scores.max()
    # The same, one window at a time.
    chosen, rest = [], []
    for row in np.argsort(-scores[0], kind="stable"):
        window = windows[0, row]
        near = any(window_iou(window, windows[0, other]) > threshold for other in chosen)
        (rest if near else chosen).append(row)
    assert (kept[0] == windows[0, (chosen + rest)[:5]]).all()


def test_nms_that_suppresses_nothing_sorts():
    windows = np.array([[[k, k + 1.0] for k in range(6)]])
    scores = np.array([[0.1, 0.6, 0.2, 0.5, 0.3, 0.4]])
    kept, _ = suppress(windows, scores, 0.5)
    assert kept[0, :, 0].tolist() == [1, 3, 5, 4, 2]


def test_challenge_file_round_trip(golden, tmp_path):
    prepared = golden / "naq" / "expected_prepared_val.json"
    records = read_records(prepared)
    windows = np.random.default_rng(0).random((len(records), 5, 2)).cumsum(-1)
    write_predictions(tmp_path / "p.json", records, windows)
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["version"] == "1.0" and content["challenge"] == "ego4d_nlq_challenge"
    found = read_predictions(tmp_path / "p.json")
    assert len(found) == len(records)
    np.testing.assert_array_equal(np.stack([p.times for p in found]), windows)
    first = json.loads(prepared.read_text())
    uid = next(iter(first))
    assert found[0].clip_uid == uid
    assert found[0].annotation_uid == first[uid]["annotation_uids"][0]


GOOD = {"clip_uid": "c", "annotation_uid": "a", "query_idx": 0, "predicted_times": [[0, 1]]}


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (None, "no list 'results'"),
        ([1], r"results\[0\] is not an object"),
        ([GOOD, {**GOOD, "clip_uid": 3}], r"results\[1\].clip_uid is missing or not text"),
        ([{**GOOD, "query_idx": True}], "query_idx is missing or not a whole number"),
        ([{**GOOD, "predicted_times": []}], "predicted_times is missing or empty"),
        ([{**GOOD, "predicted_times": [[0]]}], r"predicted_times\[0\] is not a pair"),
        ([{**GOOD, "predicted_times": [[0, 1], [0, None]]}], r"predicted_times\[1\] is not"),
        ([{**GOOD, "predicted_times": [["0", 1]]}] * 3, r"\(and 2 more\)"),
        ([GOOD, GOOD], "query 0 of a is answered twice"),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, results, words):
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"results": results}))
    with pytest.raises(UserError, match=words):
        read_predictions(file)
