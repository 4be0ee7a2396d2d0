"""Challenge files checked against their split."""

import json

import numpy as np
import pytest

from tests.samples import annotations
from tests.simulated import refuse, succeed
from utils.base.errors import UserError
from utils.base.files import read_json
from utils.data.annotations import iter_queries, read_annotations
from utils.evaluation.predictions import read_predictions, read_scores, write_results
from utils.evaluation.submissions import (
    ODD,
    REJECTED,
    check,
    in_table,
    read_challenge_split,
    write_normalised,
)

ANNOTATIONS = annotations(
    60.0, c=[{"query": "where is it"}, {"query": None}, {"query": "who was it"}], d=[{"query": "a"}]
)


def entry(clip, annotation, index):
    times = [[float(start), start + 4.5] for start in range(5)]
    return {
        "clip_uid": clip,
        "annotation_uid": annotation,
        "query_idx": index,
        "predicted_times": times,
    }


def good():
    results = [entry("c", "a", 0), entry("c", "a", 2), entry("d", "a", 0)]
    return {"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": results}


@pytest.fixture
def split(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(ANNOTATIONS))
    return read_challenge_split(path)


@pytest.fixture
def normalised(tmp_path):
    """What the normalised file holds."""

    def write(predictions, split):
        write_normalised(tmp_path / "out.json", tmp_path / "in.json", predictions, split)
        return json.loads((tmp_path / "out.json").read_text())

    return write


def test_a_good_file_has_no_findings(split, normalised):
    cases, predictions = check(good(), split)
    assert not cases
    assert normalised(predictions, split) == good()


def change(place, value):
    """A change of the file: set or (with `...`) take out what lies under the keys of `place`."""

    def apply(content):
        *parents, last = place
        for key in parents:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return apply


TIMES = ("results", 1, "predicted_times")


@pytest.mark.parametrize(
    ("edit", "kind", "case"),
    [
        (change(("version",), ...), "another version or challenge", "version is None"),
        (change(("challenge",), "vq"), "another version or challenge", "'vq'"),
        (change(("results",), {}), "not a challenge file", "results"),
        (change(("results", 2), ...), "query missing", "clip d, annotation a, query 0"),
        (change(("results", 2, "clip_uid"), "e"), "query not in the split", "clip e"),
        (change(("results", 2, "query_idx"), 1), "query not in the split", "query 1"),
        (change(("results", 2), entry("c", "a", 0)), "query answered twice", "as results[0]"),
        (change(("results", 0, "query_idx"), "0"), "invalid entry", "results[0]: Expected `int`"),
        (change(("results", 0), None), "invalid entry", "results[0]: Expected `object`"),
        (change((*TIMES, 3), [1.0]), "invalid entry", "at `$.predicted_times[3]`"),
        (change((*TIMES, 3), [True, 2]), "invalid entry", "at `$.predicted_times[3][0]`"),
        (change((*TIMES, 4), ...), "not 5 windows", "results[1]: 4 windows"),
        (change(TIMES, []), "not 5 windows", "results[1]: 0 windows"),
        (change((*TIMES, 2), [9.0, 8]), "window ends before it starts", "[9.0, 8.0]"),
    ],
)
def test_what_is_rejected(split, edit, kind, case):
    content = good()
    edit(content)
    cases, _ = check(content, split)
    assert case in cases[kind][0]
    assert REJECTED.keys() & cases.keys() <= {kind, "query missing"}


@pytest.mark.parametrize(
    ("edit", "kind", "case"),
    [
        (change((*TIMES, 2), [-3, 8]), "window outside its clip", "[-3.0, 8.0], clip of 60.000 s"),
        (change((*TIMES, 2), [3, 60.1]), "window outside its clip", "results[1].predicted_tim"),
        (change((*TIMES, 2), [3, 3]), "window of no length", "predicted_times[2]: [3.0, 3.0]"),
        (change((*TIMES, 2), [0, 4.5]), "the same window again", "predicted_times[2]: [0.0, 4.5]"),
        (change(("results", 0, "scores"), [1]), "other keys in an entry", "results[0]: scores"),
    ],
)
def test_what_is_odd_is_mended(split, normalised, edit, kind, case):
    content = good()
    edit(content)
    cases, predictions = check(content, split)
    assert list(cases) == [kind] and kind in ODD
    assert len(cases[kind]) == 1 and case in cases[kind][0]
    mended = normalised(predictions, split)
    assert not REJECTED.keys() & check(mended, split)[0].keys()
    times = np.array([result["predicted_times"] for result in mended["results"]])
    assert times.shape == (3, 5, 2) and times.min() >= 0
    assert (times <= 60).all()
    assert all(
        type(time) is float for window in mended["results"][1]["predicted_times"] for time in window
    )
    assert all(result.keys() == good()["results"][0].keys() for result in mended["results"])


def test_order_and_queries_without_text(split, normalised):
    content = good()
    content["results"] = [entry("c", "a", 1), *content["results"][::-1]]
    cases, predictions = check(content, split)
    assert list(cases) == ["query without text answered", "another order than the split"]
    assert normalised(predictions, split) == good()


def test_cases_are_counted_and_few_are_shown(split):
    content = good()
    for result in content["results"]:
        result["predicted_times"] = [[5.0, 1.0]] * 5
    cases, _ = check(content, split)
    assert len(cases["window ends before it starts"]) == 15
    assert len(cases["the same window again"]) == 12
    table = in_table(cases, 2).table()
    assert table.count("results[0].predicted_times") == 4 and "results[1]" not in table


def test_scores_go_along(split, tmp_path):
    path, output = tmp_path / "predictions.json", tmp_path / "submission.json"
    keys = [("d", "a", 0), ("c", "a", 2), ("c", "a", 0)]
    windows = np.full((3, 5, 2), (0.0, 1.0)) + np.arange(5)[:, None]
    scores = np.arange(15.0).reshape(3, 5)
    write_results(path, keys, windows, scores)
    _, predictions = check(read_json(path), split)
    write_normalised(output, path, predictions, split)
    assert read_scores(output, read_predictions(output)) == scores[::-1].tolist()
    write_results(path, keys[:2], windows[:2], scores[:2])  # of other predictions from now on
    with pytest.raises(UserError, match="scores of other predictions"):
        write_normalised(output, path, predictions, split)


def test_program(simulated, tmp_path):
    split = simulated / "nlq_test_unannotated.json"
    queries = list(iter_queries(read_annotations(split)))
    content = good()
    content["results"] = [entry(*query.key) for query in reversed(queries)]
    predictions, output = tmp_path / "predictions.json", tmp_path / "out" / "submission.json"
    predictions.write_text(json.dumps(content))
    command = ("utils/validate_submission.py", "--annotations", split)
    printed = succeed(*command, "--predictions", predictions, "--output", output)
    assert f"{len(queries)} of {len(queries)} queries answered" in printed
    assert "acceptable; oddities: 1" in printed and "another order" in printed
    keys = [prediction.key for prediction in read_predictions(output)]
    assert keys == [query.key for query in queries]
    assert "queries answered" in succeed(*command, "--predictions", output)
    assert "odd" not in succeed(*command, "--predictions", output)

    output.unlink()
    del content["results"][0]["predicted_times"][0]
    predictions.write_text(json.dumps(content))
    line = refuse(*command, "--predictions", predictions, "--output", output)
    assert "not 5 windows (1)" in line and not output.exists()
    content["results"][0]["predicted_times"][0] = [0.0, float("nan")]
    predictions.write_text(json.dumps(content))
    assert "NaN and Infinity are not" in refuse(*command, "--predictions", predictions)
    assert "no such file" in refuse(*command, "--predictions", tmp_path / "none.json")
    vq = refuse("utils/validate_submission.py", "--annotations", simulated / "vq_train.json",
                "--predictions", predictions)  # fmt: skip
    assert "no language queries" in vq
