"""Best spans, temporal NMS and challenge files."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.data.records import read_records
from utils.evaluation.metrics import iou
from utils.evaluation.predictions import (
    best_spans,
    read_predictions,
    read_scores,
    scores_file,
    suppress,
    write_predictions,
)

LOGITS = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(-20, 20, width=32))


def all_pairs(start_logits, end_logits, k):
    """The same from the whole outer product: (score, i, j), best first, then smallest i and j."""
    start, end = start_logits.softmax(0), end_logits.softmax(0)
    products = (start[:, None] * end).tolist()
    units = int((start_logits > -1e29).sum())
    pairs = [(-products[i][j], i, j) for i in range(units) for j in range(i, units)]
    return [(-score, i, j) for score, i, j in sorted(pairs)[:k]]


@pytest.mark.parametrize("predictor", ["transformer", "rnn"])
def test_golden_spans(golden, predictor):
    numbers = np.load(golden / f"vslnet_{predictor}.npz")
    logits = (torch.from_numpy(numbers[f"{name}_logits"]) for name in ("start", "end"))
    spans, scores = best_spans(*logits)
    assert spans.dtype == torch.int64 and scores.dtype == torch.float32
    assert np.array_equal(spans[..., 0], numbers["top5_start"])
    assert np.array_equal(spans[..., 1], numbers["top5_end"])
    assert (scores.diff(dim=1) <= 0).all()


def test_golden_spans_of_several_scales(golden):
    numbers = np.load(golden / "reler.npz")
    for parts in range(2, 7):
        name = f"N{parts}/"
        logits = [torch.from_numpy(numbers[f"{name}{end}_logits"]) for end in ("start", "end")]
        plain = torch.triu(logits[0].softmax(1)[..., None] * logits[1].softmax(1)[:, None])
        values, places = plain.flatten(1).topk(5)
        spans, scores = best_spans(*logits)
        assert torch.equal(spans[..., 0] * plain.shape[1] + spans[..., 1], places)
        assert torch.equal(scores, values)


@given(st.data(), st.integers(1, 12), st.integers(0, 3), st.sampled_from([1, 5, 20]))
def test_best_spans_equal_the_outer_product(data, units, padding, k):
    start, end = (
        torch.tensor(
            data.draw(st.lists(LOGITS, min_size=units, max_size=units)) + [-1e30] * padding
        )
        for _ in range(2)
    )
    expected = all_pairs(start, end, k)
    spans, scores = best_spans(start[None], end[None], k)
    found = [
        (score, *span) for score, span in zip(scores[0].tolist(), spans[0].tolist(), strict=True)
    ]
    assert len(found) == k
    assert found[: len(expected)] == expected
    best = expected[0][1:]
    assert found[len(expected) :] == [(0.0, *best)] * (k - len(expected))


def test_best_spans_of_a_batch_equal_those_of_its_rows():
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 40, 90, generator=draw) * 4
    lengths = torch.randint(1, 91, (40, 1), generator=draw)
    logits = logits.masked_fill(torch.arange(90) >= lengths, -1e30)
    spans, scores = best_spans(*logits, k=5)
    for row in range(40):
        alone, own = best_spans(logits[0, row : row + 1], logits[1, row : row + 1], k=5)
        assert torch.equal(alone[0], spans[row])
        torch.testing.assert_close(own[0], scores[row])
    assert (spans < lengths[..., None]).all()
    assert (spans[..., 0] <= spans[..., 1]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_best_spans_of_other_types(dtype):
    logits = torch.tensor([[0.0, 3.0, 1.0, -1e30], [2.0, 0.0, 0.0, 1.0]])
    spans, scores = best_spans(logits.to(dtype), logits.to(dtype), k=2)
    assert spans.tolist() == [[[1, 1], [1, 2]], [[0, 0], [0, 3]]]
    assert scores.dtype == torch.float32


def slow_suppress(windows, scores, threshold, k):
    """One query at a time, as temporal NMS is told."""
    order = sorted(range(len(scores)), key=lambda c: -scores[c])
    kept, aside = [], []
    for candidate in order:
        close = any(iou(windows[candidate], windows[other]) > threshold for other in kept)
        (aside if close else kept).append(candidate)
    return (kept + aside)[:k]


@given(st.data(), st.integers(5, 9), st.floats(0, 1))
def test_suppress(data, candidates, threshold):
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


def test_suppress_keeps_the_scores_order_where_nothing_overlaps():
    windows = np.array([[[n, n + 1.0] for n in (4, 2, 8, 6, 0, 10)]])
    scores = np.array([[0.1, 0.9, 0.5, 0.4, 0.3, 0.2]])
    kept, kept_scores = suppress(windows, scores, 0.5)
    assert kept[0, :, 0].tolist() == [2, 8, 6, 0, 10]
    assert kept_scores.tolist() == [[0.9, 0.5, 0.4, 0.3, 0.2]]


def test_suppress_puts_windows_set_aside_last():
    windows = np.array([[[0.0, 10.0], [0.0, 9.0], [1.0, 10.0], [50.0, 60.0]]])
    kept, _ = suppress(windows, np.array([[4.0, 3.0, 2.0, 1.0]]), 0.5, k=3)
    assert kept.tolist() == [[[0, 10], [50, 60], [0, 9]]]


def test_a_file_that_was_written_is_read_back(golden, tmp_path):
    records = read_records(golden / "naq" / "expected_prepared_val.json")
    windows = np.random.default_rng(0).random((len(records), 5, 2)).cumsum(axis=2) * 100
    path = tmp_path / "run" / "preds.json"
    write_predictions(path, records, windows)
    content = json.loads(path.read_text())
    assert content["version"] == "1.0" and content["challenge"] == "ego4d_nlq_challenge"
    found = read_predictions(path)
    assert np.array_equal([prediction.windows for prediction in found], windows)
    for row, prediction in enumerate(found):
        assert prediction.clip_uid == records.clip_uids[records.clip[row]]
        assert prediction.annotation_uid == records.annotation_uids[records.annotation[row]]
        assert prediction.query_idx == records.query_idx[row]
    assert not list(path.parent.glob(".*"))


@pytest.fixture
def scored(golden, tmp_path):
    """A challenge file with scores beside it, its queries, windows and scores."""
    records = read_records(golden / "naq" / "expected_prepared_val.json")
    draw = np.random.default_rng(0)
    windows = draw.random((len(records), 5, 2)).cumsum(axis=2)
    scores = -np.sort(-draw.random((len(records), 5)).astype(np.float32))
    path = tmp_path / "7_val_preds.json"
    write_predictions(path, records, windows, scores)
    return path, records, windows, scores


def test_scores_are_kept_beside_the_challenge_file(scored):
    path, records, windows, scores = scored
    assert scores_file(path) == path.with_name("7_val_preds_scores.json")
    assert np.array_equal(np.float32(read_scores(path, read_predictions(path))), scores)
    # Another program may write the same content with other spaces.
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert read_scores(path, read_predictions(path)) == scores.tolist()
    # Predictions without scores do not keep those of others beside them.
    write_predictions(path, records, windows)
    assert not scores_file(path).exists() and read_scores(path, read_predictions(path)) is None


def test_scores_of_other_predictions_are_refused(scored):
    path, records, windows, scores = scored
    content = scores_file(path).read_bytes()
    backwards = np.arange(len(records))[::-1]
    for others in ((records, windows + 1), (records.select(backwards), windows)):
        write_predictions(path, *others, scores)
        scores_file(path).write_bytes(content)
        with pytest.raises(UserError, match=r"_scores\.json: scores of other predictions than"):
            read_scores(path, read_predictions(path))


@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        (None, "must hold 'scores', a list for each query"),
        ([1.0], "must hold 'scores', a list for each query"),
        ([], "must hold a number for each window"),
        ("short", "must hold a number for each window"),
        ("text", "must hold a number for each window"),
    ],
)
def test_malformed_scores_are_refused(scored, scores, fault):
    path, *_, good = scored
    content = json.loads(scores_file(path).read_text())
    changed = {"short": good[:, 1:].tolist(), "text": [["1"] * 5] * len(good)}
    content["scores"] = changed[scores] if isinstance(scores, str) else scores
    scores_file(path).write_text(json.dumps(content))
    with pytest.raises(UserError, match=fault):
        read_scores(path, read_predictions(path))


def prediction(**changes):
    return {
        "clip_uid": "c",
        "annotation_uid": "a",
        "query_idx": 0,
        "predicted_times": [[0, 1.5]] * 5,
    } | changes


def read(tmp_path, results, **top):
    path = tmp_path / "preds.json"
    head = {"version": "1.0", "challenge": "ego4d_nlq_challenge"}
    path.write_text(json.dumps({**head, **top, "results": results}))
    return read_predictions(path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"clip_uid": 3}, r"results\[1\]\.clip_uid: must be a text"),
        ({"annotation_uid": None}, r"results\[1\]\.annotation_uid: must be a text"),
        ({"query_idx": "1"}, r"results\[1\]\.query_idx: must be a whole number"),
        ({"query_idx": True}, r"results\[1\]\.query_idx: must be a whole number"),
        ({"query_idx": -1}, r"results\[1\]\.query_idx: must be a whole number"),
        ({"predicted_times": None}, r"results\[1\]\.predicted_times: must be a list"),
        (
            {"predicted_times": [[1, 2], [3]]},
            r"results\[1\]\.predicted_times\[1\]: must be \[start",
        ),
        ({"predicted_times": [[1, None]]}, r"results\[1\]\.predicted_times\[0\]: must be \[start"),
        ({"predicted_times": [["1", 2]]}, r"results\[1\]\.predicted_times\[0\]: must be \[start"),
        ({"query_idx": 7}, r"results\[1\]: the same query as results\[0\]"),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, change, fault):
    with pytest.raises(UserError, match=fault) as caught:
        read(tmp_path, [prediction(query_idx=7), prediction(**change), prediction(query_idx=2)])
    assert "preds.json" in str(caught.value) and "more faults" not in str(caught.value)


def test_other_faults_are_counted(tmp_path):
    with pytest.raises(UserError, match=r"results\[0\]: must be an object \(and 2 more faults\)"):
        read(tmp_path, [None, {}, prediction(), prediction()])


@pytest.mark.parametrize("content", ["[]", "{}", '{"results": 3}'])
def test_files_of_another_kind_are_refused(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(UserError, match="not a challenge file"):
        read_predictions(tmp_path / "other.json")


def test_what_is_tolerated(tmp_path, capsys):
    results = [prediction(predicted_times=times) for times in ([], [[1, 2]], [[1, 2]] * 9)]
    results = [{**result, "query_idx": number} for number, result in enumerate(results)]
    found = read(tmp_path, results, version="0.9", challenge=None)
    assert [len(one.windows) for one in found] == [0, 1, 9]
    assert capsys.readouterr().err.count("warning:") == 2
