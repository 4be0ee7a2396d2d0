"""Challenge files read together, merged and written."""

import numpy as np
import pytest

from utils.base.errors import UserError
from utils.ensemble_predictions import main
from utils.evaluation.predictions import (
    read_predictions,
    read_scores,
    scores_file,
    write_results,
)

QUERIES = [("clip", "a", 0), ("clip", "a", 2), ("other", "b", 0)]


@pytest.fixture
def files(tmp_path):
    """Two challenge files with scores, the second in another order."""
    draw = np.random.default_rng(1)
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, order in zip(paths, ([0, 1, 2], [2, 0, 1]), strict=True):
        windows = draw.integers(0, 50, (3, 5, 1)) + np.array([0.0, 5.0])
        scores = -np.sort(-draw.random((3, 5)))
        write_results(path, [QUERIES[i] for i in order], windows, scores)
    return list(map(str, paths))


def merged(tmp_path, *arguments):
    """What the program writes."""
    output = tmp_path / "new" / "out.json"
    main([*map(str, arguments), "--output", str(output)])
    return read_predictions(output)


def test_files_in_any_order_are_merged_by_score_or_by_rank(files, tmp_path, capsys):
    by_score = merged(tmp_path, "--predictions", *files)
    assert "3 queries of 2 files merged" in capsys.readouterr().out
    assert [prediction.key for prediction in by_score] == QUERIES
    sources = [{p.key: p.windows for p in read_predictions(file)} for file in files]
    for prediction in by_score:
        both = sources[0][prediction.key] + sources[1][prediction.key]
        assert len(prediction.windows) == 5
        assert all(window in both for window in prediction.windows)
    assert np.array(read_scores(tmp_path / "new" / "out.json", by_score)).shape == (3, 5)
    scores_file(files[1]).unlink()
    by_rank = merged(tmp_path, "--predictions", *files)
    warning = f"warning: {files[1]}: no scores beside it, so all files count by rank\n"
    assert capsys.readouterr().err == warning
    scores_file(files[0]).unlink()
    assert merged(tmp_path, "--predictions", *files) == by_rank != by_score
    assert capsys.readouterr().err == ""


def test_weights_decide_between_files_that_agree_on_nothing(tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for number, file in enumerate(files):
        starts = 10.0 * np.arange(5) + 50 * number
        write_results(file, QUERIES[:1], np.stack((starts, starts + 1), 1)[None])
    windows = merged(tmp_path, "--predictions", *files, "--weights", 1, 2.5)[0].windows
    assert [start for start, _ in windows] == [50, 60, 0, 70, 80]


def test_clusters_are_merged_on_request(tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, starts in zip(files, ([0, 10, 20, 30, 40], [1, 50, 60, 70, 80]), strict=True):
        windows = np.array(starts)[:, None] + [0.0, 4.0]
        write_results(file, QUERIES[:1], windows[None], np.array([[0.9, 0.5, 0.4, 0.3, 0.2]]))
    windows = merged(tmp_path, "--predictions", *files, "--method", "clusters")[0].windows
    assert [start for start, _ in windows] == [0, 10, 50, 20, 60]


def test_fewer_windows_than_five_are_filled_up(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_results(one, QUERIES[:1], np.array([[[0.0, 1.0]]]))
    write_results(two, QUERIES[:1], np.empty((1, 0, 2)))
    assert merged(tmp_path, "--predictions", one, two)[0].windows == [(0.0, 1.0)] * 5
    with pytest.raises(UserError, match="1 queries have no window in any of the files"):
        merged(tmp_path, "--predictions", two, two)
