"""The evaluation program as a user runs it."""

import json

import pytest

from tests.simulated import refuse, succeed

PROGRAM = "utils/evaluate_ego4d_nlq.py"


@pytest.fixture
def files(golden):
    folder = golden / "evaluation"
    return (
        "--ground_truth_json", folder / "gt.json",
        "--model_prediction_json", folder / "preds.json",
    )  # fmt: skip


def test_prints_the_published_table_and_the_count(files, golden, tmp_path):
    said = succeed(
        PROGRAM, *files, "--thresholds", "0.3", "0.5", "0.01", "--topK", "1", "3", "5",
        folder=tmp_path,
    )  # fmt: skip
    expected = json.loads((golden / "evaluation" / "expected.json").read_text())["table"]
    body = expected.splitlines()[1:]
    assert said.splitlines()[1 : 1 + len(body)] == body
    assert "38 of 40 queries evaluated: 2 without a prediction" in said
    assert "mean R@1 over IoU 0.3 and 0.5: 26.32" in said


def test_breakdowns_and_published_protocol(files, golden):
    said = succeed(
        PROGRAM, *files, "--skip_empty_windows", "--breakdown",
        "--train_annotations", golden / "evaluation" / "gt.json",
    )  # fmt: skip
    assert "Place: Where did I put X?" in said and "low-shot (1-10)" in said
    assert "with an empty window (left out)" in said


def test_wrong_use(files, tmp_path, golden):
    assert "no such file" in refuse(PROGRAM, *files[:2], "--model_prediction_json", "nowhere.json")
    untimed = golden / "naq" / "nlq_test_unannotated.json"
    assert "no times" in refuse(PROGRAM, "--ground_truth_json", untimed, *files[2:])
    other = golden / "naq" / "nlq_val.json"
    assert "another split" in refuse(PROGRAM, "--ground_truth_json", other, *files[2:])
    assert "topK" in refuse(PROGRAM, *files, "--topK", "0")
    assert "--thresholds" in refuse(PROGRAM, *files, "--thresholds", "high")
