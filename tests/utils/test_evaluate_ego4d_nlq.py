"""The evaluation program: the published table, honest counts, clear refusals."""

import json

import pytest

from tests.samples import raw_queries
from utils.evaluate_ego4d_nlq import main


@pytest.fixture
def files(golden, tmp_path):
    """Ground truth and predictions that tests may change, and the options naming them."""

    class Files:
        truth = json.loads((golden / "evaluation" / "gt.json").read_text())
        predictions = json.loads((golden / "evaluation" / "preds.json").read_text())

        def options(self):
            paths = []
            for name in ("truth", "predictions"):
                paths.append(tmp_path / f"{name}.json")
                paths[-1].write_text(json.dumps(getattr(self, name)))
            truth, predictions = map(str, paths)
            return ["--ground_truth_json", truth, "--model_prediction_json", predictions]

        def queries(self):
            return raw_queries(self.truth)

    return Files()


def test_prints_the_published_table(files, golden, capsys):
    expected = json.loads((golden / "evaluation" / "expected.json").read_text())
    thresholds = [str(threshold) for threshold in expected["thresholds"]]
    main([*files.options(), "--thresholds", *thresholds, "--topK", "1", "3", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:6] == expected["table"].splitlines()[1:6]
    assert "mean R@1 over IoU 0.3 and 0.5: 26.32; 38 of 40 queries evaluated" in lines
    assert (
        "queries without prediction: 2; without times: 0; with a window of at most 1/30 s: 1 "
        "(kept); predictions without query: 0"
    ) in lines


def test_counts_all_that_is_not_evaluated(files, capsys):
    first, second = files.queries()[:2]
    del first["clip_start_sec"], first["clip_end_sec"]
    second["query"] = None  # keeps its index, is no query any more
    files.predictions["results"][5]["predicted_times"] = [[0, 1]]
    main([*files.options(), "--skip_empty_windows"])
    printed = capsys.readouterr()
    assert "35 of 39 queries evaluated" in printed.out
    assert (
        "queries without prediction: 2; without times: 1; with a window of at most 1/30 s: 1 "
        "(left out); predictions without query: 1"
    ) in printed.out
    assert "1 of 38 predictions have fewer than 5 windows" in printed.err


def test_breakdowns_are_printed(files, golden, capsys):
    training = str(golden / "evaluation" / "gt.json")
    main([*files.options(), "--breakdown", "--train_annotations", training])
    out = capsys.readouterr().out
    assert "| Place: Where did I put X?                              |       8 |   25.00 |" in out
    assert "template: 7 of 38 queries are in no group" in out
    assert "| high-shot: objects of 8 training queries  |       8 |" in out
    assert "object frequency in training: 18 of 38 queries are in no group" in out
    assert "zero-shot" not in out


def test_windows_that_end_before_they_start_are_reported(files, capsys):
    files.queries()[3].update(clip_start_sec=9.0, clip_end_sec=3.0)
    files.predictions["results"][5]["predicted_times"][0] = [2, 1]
    main(files.options())
    warnings = capsys.readouterr().err
    assert "truth.json: 1 windows end before they start" in warnings
    assert "predictions.json: 1 windows end before they start" in warnings
