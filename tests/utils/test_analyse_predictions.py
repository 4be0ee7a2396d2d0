"""Analysis of predictions: groups, figures, intervals, and the program on golden files."""

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.analyse_predictions import FIGURES, main
from utils.base.errors import UserError
from utils.data.annotations import Query
from utils.evaluation import analysis
from utils.evaluation.analysis import (
    by_length,
    by_object,
    by_position,
    by_template,
    paired_bootstrap,
)
from utils.evaluation.metrics import evaluate, query_figures

COLUMNS = st.integers(1, 3)


def query(template=None, slot=None):
    return Query("v", "c", "a", 0, "?", None, template, slot)


def test_by_template():
    found = by_template([query("Place: B?"), query("Objects: A?"), query(), query("Place: B?")])
    assert found.names == ["Objects: A?", "Place: B?"]
    assert found.of_query.tolist() == [1, 0, -1, 1]


def test_by_object(tmp_path):
    asked = [
        {"query": "where?", "template": "Objects: Where is X?", "slot_x": name}
        for name in ["cup"] + ["pan"] * 2 + ["tap"] * 9
    ]
    clip = {
        "clip_uid": "c",
        "video_start_sec": 0,
        "video_end_sec": 9,
        "annotations": [{"annotation_uid": "a", "language_queries": asked}],
    }
    training = tmp_path / "train.json"
    training.write_text(json.dumps({"videos": [{"video_uid": "v", "clips": [clip]}]}))
    slots = ["Tap!", "cup", "dog", "pan", None]
    queries = [query("Objects: Where is X?", slot) for slot in slots]
    found = by_object(queries, "val.json", str(training))
    shots = ["zero-shot", "low-shot", "mid-shot", "high-shot"]
    assert [name.split(":")[0] for name in found.names] == shots
    assert found.of_query.tolist() == [3, 1, 0, 2, -1]


def test_by_length():
    lengths = np.array([0.0, 1 / 30, 1, 2, 3, 4, 5, 6, 7, 8])
    found = by_length(np.stack([np.full(10, 3.0), 3.0 + lengths], axis=1))
    assert found.of_query.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert found.names[:2] == ["at most 1/30 s", "1.00 to 2.75 s"]
    assert (by_length(np.full((4, 2), 5.0)).of_query == 0).all()


def test_by_position():
    windows = np.array([[-1.0, 0], [0, 19.9], [19, 21], [70, 120], [99, 101], [110, 130]])
    found = by_position(windows, np.full(6, 100.0))
    assert found.of_query.tolist() == [0, 0, 1, 4, 4, 4]
    assert found.names[4] == "80 to 100 % of the clip"
    assert by_position(np.zeros((1, 2)), np.zeros(1)).of_query.tolist() == [0]


@given(st.integers(0, 1000), st.integers(1, 30))
def test_query_figures_average_to_the_scores(seed, count):
    draw = np.random.default_rng(seed)
    truth, windows = (
        np.sort(draw.integers(0, 9, (count, *more, 2)).astype(float)) for more in ((), (4,))
    )
    windows[draw.random((count, 4)) < 0.2] = np.nan
    found = query_figures(truth, windows, (0.3, 0.5), (1, 3, 5))
    assert tuple(found) == FIGURES
    scores = evaluate(truth, windows, (0.3, 0.5), (1, 3, 5)).percentages()
    for name, values in found.items():
        assert 100 * values.mean() == pytest.approx(scores[name])


def slow_bootstrap(differences, unit, samples, seed):
    """The means of the same draws, sample by sample."""
    draw = np.random.default_rng(seed)
    numbers = np.unique(unit)
    means = []
    for drawn in draw.integers(len(numbers), size=(samples, len(numbers))):
        rows = np.concatenate([np.flatnonzero(unit == numbers[i]) for i in drawn])
        means.append(differences[rows].mean(axis=0))
    return np.array(means)


@given(st.integers(0, 1000), st.integers(1, 20), COLUMNS)
def test_bootstrap_equals_the_loop(seed, count, columns):
    draw = np.random.default_rng(seed)
    differences = draw.normal(size=(count, columns))
    unit = draw.integers(0, 5, count) * 10
    for drawn in (None, unit):
        found = paired_bootstrap(differences, drawn, samples=20, seed=seed)
        loop = slow_bootstrap(differences, np.arange(count) if drawn is None else drawn, 20, seed)
        low, high = np.quantile(loop, [0.025, 0.975], axis=0)
        assert np.allclose(found.low, low) and np.allclose(found.high, high)
        assert np.allclose(found.mean, differences.mean(axis=0))


def test_bootstrap_in_several_draws_covers_as_often_as_it_says(monkeypatch):
    draw = np.random.default_rng(5)
    monkeypatch.setattr(analysis, "DRAWN_AT_ONCE", 40_000)
    covered = []
    for seed in range(200):
        found = paired_bootstrap(draw.normal(1.0, 1, (100, 1)), samples=500, seed=seed)
        covered.append(found.low[0] <= 1.0 <= found.high[0])
    assert 0.88 <= np.mean(covered) <= 0.99
    # Queries that come in equal tens count as tens: the interval is wider.
    values = np.repeat(draw.normal(size=(20, 1)), 10, axis=0)
    alone = paired_bootstrap(values)
    together = paired_bootstrap(values, np.repeat(np.arange(20), 10))
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


@pytest.fixture
def files(golden, tmp_path):
    """Golden ground truth and predictions, and others that miss every other query."""
    truth, one = (golden / "evaluation" / name for name in ("gt.json", "preds.json"))
    content = json.loads(one.read_text())
    for result in content["results"][::2]:
        result["predicted_times"] = [[0, 0.01]] * 5
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    return ["--ground_truth_json", str(truth), "--predictions", f"one={one}", f"other={other}"]


def test_program_on_golden_files(files, golden, tmp_path, capsys):
    expected = json.loads((golden / "evaluation" / "expected.json").read_text())
    run = [*files, "--json", str(tmp_path / "found.json"), "--samples", "200"]
    main([*run, "--train_annotations", files[1]])
    said = capsys.readouterr().out
    assert said.startswith(
        "38 of 40 queries are compared; without times: 0; without prediction: one 2, other 2\n"
    )
    assert "all windows: 38 queries" in said
    assert "without windows of at most 1/30 s: 37 queries" in said
    assert "template: 7 of 38 queries are in no group" in said
    assert "object frequency in training: 18 of 38 queries are in no group" in said
    everything, nonempty = json.loads((tmp_path / "found.json").read_text()).values()
    assert (everything["all"]["queries"], nonempty["all"]["queries"]) == (38, 37)
    figures = everything["all"]["figures"]["one"]
    assert f"{figures['R@1 IoU=0.3']:.2f}" in expected["table"]
    assert f"{figures['mIoU']:.2f}" in expected["table"]
    for found in (everything, nonempty):
        assert list(found["groups"]) == [
            "template",
            "object frequency in training",
            "window length (quartiles)",
            "position in the clip (fifths, by the middle of the window)",
        ]
        for title in list(found["groups"])[2:]:
            sizes = [group["queries"] for group in found["groups"][title].values()]
            assert sum(sizes) == found["all"]["queries"]
    interval = everything["all"]["differences"]["other"]["R@5 IoU=0.3"]
    assert interval["low"] <= interval["mean"] <= interval["high"] and interval["mean"] < 0
    place = everything["groups"]["template"]["Place: Where did I put X?"]
    assert place["queries"] == 8 and place["figures"]["one"]["R@1 IoU=0.3"] == 25.0
    main(run)
    assert "give --train_annotations" in capsys.readouterr().out


def test_one_file_and_a_file_with_itself(files, capsys):
    main(files[:4])
    said = capsys.readouterr().out
    assert "one -" not in said and "[" not in said
    path = files[3].partition("=")[2]
    main([*files[:4], f"again={path}", "--resample", "clips", "--samples", "50"])
    said = capsys.readouterr().out
    intervals = re.findall(r"[+-][\d.]+ \[.*?\].", said)
    assert intervals and set(intervals) == {"+0.00 [+0.00, +0.00] "}


def test_files_of_one_name_are_averaged(files, tmp_path):
    one, other = (file.partition("=")[2] for file in files[3:])
    both = [f"one={one}", f"other={other}", f"both={one}", f"both={other}"]
    main([*files[:3], *both, "--json", str(tmp_path / "found.json"), "--samples", "5"])
    for protocol in json.loads((tmp_path / "found.json").read_text()).values():
        figures = protocol["all"]["figures"]
        assert list(figures) == ["one", "other", "both"]
        for name, mean in figures["both"].items():
            assert mean == pytest.approx((figures["one"][name] + figures["other"][name]) / 2)


def test_plots(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main([*files, "--plots", str(tmp_path / "plots"), "--samples", "20", "--figure", "mIoU"])
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["differences.png", "position_in_the_clip.png", "template.png",
                     "window_length.png"]  # fmt: skip
    for path in (tmp_path / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    assert "R@1 IoU=0.3 by template" not in capsys.readouterr().out


def test_plots_without_matplotlib_are_refused_at_once(files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "utils.evaluation.plots", raising=False)
    with pytest.raises(UserError, match="plots need matplotlib: pip install matplotlib"):
        main([*files, "--plots", str(tmp_path / "plots")])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--samples", "0"], "--samples must be 1 or more"),
        (["--predictions", "x.json"], "'x.json' is not NAME=FILE"),
    ],
)
def test_bad_options(files, capsys, wrong, said):
    with pytest.raises(SystemExit) as end:
        main([*files, *wrong])
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_files_that_do_not_fit_are_refused(files, tmp_path):
    content = json.loads((tmp_path / "other.json").read_text())
    parts = [tmp_path / "first.json", tmp_path / "rest.json"]
    for path, results in zip(parts, (content["results"][:1], content["results"][1:]), strict=True):
        path.write_text(json.dumps({**content, "results": results}))
    with pytest.raises(UserError, match="no query is answered by all files"):
        main([*files[:3], *(f"{path.stem}={path}" for path in parts)])
    for result in content["results"]:
        result["clip_uid"] += "?"
    parts[0].write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"first\.json: none of its 38 predictions is for one of"):
        main([*files[:3], f"first={parts[0]}"])
