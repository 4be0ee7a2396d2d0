"""The analysis program on golden files."""

import json
import re
import sys

import pytest

from utils.analyse_predictions import main
from utils.base.errors import UserError


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


def test_figures_of_golden_files_are_printed(files, golden, tmp_path, capsys):
    expected = json.loads((golden / "evaluation" / "expected.json").read_text())
    run = [*files, "--json", str(tmp_path / "figures.json"), "--samples", "200"]
    main([*run, "--train_annotations", files[1]])
    output = capsys.readouterr().out
    assert output.startswith(
        "38 of 40 queries are compared; without times: 0; without prediction: one 2, other 2\n"
    )
    assert "all windows: 38 queries" in output
    assert "without windows of at most 1/30 s: 37 queries" in output
    assert "template: 7 of 38 queries are in no group" in output
    assert "object frequency in training: 18 of 38 queries are in no group" in output
    everything, nonempty = json.loads((tmp_path / "figures.json").read_text()).values()
    assert (everything["all"]["queries"], nonempty["all"]["queries"]) == (38, 37)
    figures = everything["all"]["figures"]["one"]
    assert f"{figures['R@1 IoU=0.3']:.2f}" in expected["table"]
    assert f"{figures['mIoU']:.2f}" in expected["table"]
    for protocol in (everything, nonempty):
        assert list(protocol["groups"]) == [
            "template",
            "object frequency in training",
            "window length (quartiles)",
            "position in the clip (fifths, by the middle of the window)",
        ]
        for title in list(protocol["groups"])[2:]:
            sizes = [group["queries"] for group in protocol["groups"][title].values()]
            assert sum(sizes) == protocol["all"]["queries"]
    interval = everything["all"]["differences"]["other"]["R@5 IoU=0.3"]
    assert interval["low"] <= interval["mean"] <= interval["high"] and interval["mean"] < 0
    place = everything["groups"]["template"]["Place: Where did I put X?"]
    assert place["queries"] == 8 and place["figures"]["one"]["R@1 IoU=0.3"] == 25.0
    main(run)
    assert "give --train_annotations" in capsys.readouterr().out


def test_a_file_does_not_differ_from_itself(files, capsys):
    main(files[:4])
    output = capsys.readouterr().out
    assert "one -" not in output and "[" not in output
    path = files[3].partition("=")[2]
    main([*files[:4], f"again={path}", "--resample", "clips", "--samples", "50"])
    output = capsys.readouterr().out
    intervals = re.findall(r"[+-][\d.]+ \[.*?\].", output)
    assert intervals and set(intervals) == {"+0.00 [+0.00, +0.00] "}


def test_files_of_one_name_are_averaged(files, tmp_path):
    one, other = (file.partition("=")[2] for file in files[3:])
    both = [f"one={one}", f"other={other}", f"both={one}", f"both={other}"]
    main([*files[:3], *both, "--json", str(tmp_path / "figures.json"), "--samples", "5"])
    for protocol in json.loads((tmp_path / "figures.json").read_text()).values():
        figures = protocol["all"]["figures"]
        assert list(figures) == ["one", "other", "both"]
        for name, mean in figures["both"].items():
            assert mean == pytest.approx((figures["one"][name] + figures["other"][name]) / 2)


def test_plots_are_drawn(files, tmp_path, capsys):
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


def test_files_that_do_not_fit_are_refused(files, tmp_path):
    content = json.loads((tmp_path / "other.json").read_text())
    parts = [tmp_path / "first.json", tmp_path / "rest.json"]
    for path, results in zip(parts, (content["results"][:1], content["results"][1:]), strict=True):
        path.write_text(json.dumps({**content, "results": results}))
    with pytest.raises(UserError, match="no query is answered by all files"):
        main([*files[:3], *(f"{path.stem}={path}" for path in parts)])
