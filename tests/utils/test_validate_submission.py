"""Challenge files checked against their split."""

import json

import numpy as np
import pytest

from tests.bad_inputs.damages import changed_at
from tests.samples import annotations
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
from utils.validate_submission import main

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


TIMES = ("results", 1, "predicted_times")


@pytest.mark.parametrize(
    ("change", "kind", "case"),
    [
        ((["version"], ...), "another version or challenge", "version is None"),
        ((["challenge"], "vq"), "another version or challenge", "'vq'"),
        ((["results"], {}), "not a challenge file", "results"),
        ((["results", 2], ...), "query missing", "clip d, annotation a, query 0"),
        ((["results", 2, "clip_uid"], "e"), "query not in the split", "clip e"),
        ((["results", 2, "query_idx"], 1), "query not in the split", "query 1"),
        ((["results", 2], entry("c", "a", 0)), "query answered twice", "as results[0]"),
        ((["results", 0, "query_idx"], "0"), "invalid entry", "results[0]: Expected `int`"),
        (([*TIMES, 3], [True, 2]), "invalid entry", "at `$.predicted_times[3][0]`"),
        (([*TIMES, 4], ...), "not 5 windows", "results[1]: 4 windows"),
        ((TIMES, []), "not 5 windows", "results[1]: 0 windows"),
        (([*TIMES, 2], [9.0, 8]), "window ends before it starts", "[9.0, 8.0]"),
    ],
)
def test_what_is_rejected(split, change, kind, case):
    cases, _ = check(changed_at(good(), *change), split)
    assert case in cases[kind][0]
    assert REJECTED.keys() & cases.keys() <= {kind, "query missing"}


@pytest.mark.parametrize(
    ("change", "kind", "case"),
    [
        (([*TIMES, 2], [-3, 8]), "window outside its clip", "[-3.0, 8.0], clip of 60.000 s"),
        (([*TIMES, 2], [3, 60.1]), "window outside its clip", "results[1].predicted_tim"),
        (([*TIMES, 2], [3, 3]), "window of no length", "predicted_times[2]: [3.0, 3.0]"),
        (([*TIMES, 2], [0, 4.5]), "the same window again", "predicted_times[2]: [0.0, 4.5]"),
        ((["results", 0, "scores"], [1]), "other keys in an entry", "results[0]: scores"),
    ],
)
def test_what_is_odd_is_mended(split, normalised, change, kind, case):
    cases, predictions = check(changed_at(good(), *change), split)
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


def test_order_and_queries_without_text_are_mended(split, normalised):
    content = good()
    content["results"] = [entry("c", "a", 1), *content["results"][::-1]]
    cases, predictions = check(content, split)
    assert list(cases) == ["query without text answered", "another order than the split"]
    assert normalised(predictions, split) == good()
    assert check(good(), split)[0] == {}


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


def test_the_program_mends_or_rejects_a_file(simulated, tmp_path, capsys):
    split = simulated / "nlq_test_unannotated.json"
    queries = list(iter_queries(read_annotations(split)))
    content = good() | {"results": [entry(*query.key) for query in reversed(queries)]}
    predictions, output = tmp_path / "predictions.json", tmp_path / "out" / "submission.json"
    predictions.write_text(json.dumps(content))
    command = ["--annotations", str(split), "--predictions"]
    main([*command, str(predictions), "--output", str(output)])
    printed = capsys.readouterr().out
    assert f"{len(queries)} of {len(queries)} queries answered" in printed
    assert "acceptable; oddities: 1" in printed and "another order" in printed
    assert [p.key for p in read_predictions(output)] == [query.key for query in queries]
    main([*command, str(output)])
    assert "odd" not in capsys.readouterr().out

    output.unlink()
    del content["results"][0]["predicted_times"][0]
    predictions.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not 5 windows \(1\)"):
        main([*command, str(predictions), "--output", str(output)])
    assert not output.exists()
    with pytest.raises(UserError, match="no language queries"):
        main(["--annotations", str(simulated / "vq_train.json"), *command[2:], str(predictions)])
