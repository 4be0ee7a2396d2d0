"""Ensembles of challenge files: what agreement does, and what must hold for any files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import refuse, succeed
from utils.base.errors import UserError
from utils.ensemble_predictions import QUERIES_AT_ONCE, main, merge
from utils.evaluation.predictions import (
    read_predictions,
    read_scores,
    scores_file,
    write_results,
)

QUERIES = [("clip", "a", 0), ("clip", "a", 2), ("other", "b", 0)]
RANKS = 1 / np.arange(1, 6)


def apart(*starts):
    """Windows of one second that do not overlap."""
    return [[float(start), start + 1.0] for start in starts]


def one_query(*files):
    """(1, F, K, 2) windows of one query."""
    return np.array([files], dtype=float)


FEW = st.integers(1, 3)


@st.composite
def predictions(draw, files=FEW):
    """(R, F, 5, 2) windows, best first, and their falling scores."""
    shape = (draw(st.integers(1, 3)), draw(files), 5)
    edge = st.integers(0, 12).map(float)
    window = st.tuples(edge, edge).map(sorted)
    count = int(np.prod(shape))
    windows = draw(st.lists(window, min_size=count, max_size=count))
    scores = draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    return np.array(windows).reshape(*shape, 2), -np.sort(-np.array(scores).reshape(shape) / 8)


def distinct(windows):
    """The different windows of one query, in order."""
    return list(dict.fromkeys(map(tuple, windows.tolist())))


def test_files_that_agree_on_nothing_take_turns():
    windows = one_query(apart(0, 10, 20, 30, 40), apart(50, 60, 70, 80, 90))
    merged, scores = merge(windows, np.array([[RANKS, RANKS]]), np.ones(2), 0.5)
    assert merged[0, :, 0].tolist() == [0, 50, 10, 60, 20]
    assert scores[0].tolist() == [1, 1, 1 / 2, 1 / 2, 1 / 3]
    merged, _ = merge(windows, np.array([[RANKS, RANKS]]), np.array([1.0, 2.5]), 0.5)
    assert merged[0, :, 0].tolist() == [50, 60, 0, 70, 80]


def test_what_two_files_agree_on_leads():
    first = [[0, 10], [20, 30], [40, 50]]
    second = [[60, 70], [21, 30], [80, 90]]
    scores = np.array([[[0.5, 0.4, 0.1], [0.5, 0.3, 0.2]]])
    merged, totals = merge(one_query(first, second), scores, np.ones(2), 0.5)
    assert merged[0].tolist() == [[20, 30], [0, 10], [60, 70], [80, 90], [40, 50]]
    assert totals[0] == pytest.approx([0.4 + 0.3 * 0.9, 0.5, 0.5, 0.2, 0.1])
    # At a higher threshold they are two windows.
    merged, totals = merge(one_query(first, second), scores, np.ones(2), 0.95)
    assert merged[0, :3].tolist() == [[0, 10], [60, 70], [20, 30]]


def test_a_window_brought_forward_counts_no_more_than_those_before_it():
    windows = one_query(apart(0, 10), apart(30, 40))
    scores = np.array([[[0.2, 0.9], [0.5, 0.1]]])
    merged, totals = merge(windows, scores, np.ones(2), 0.5)
    assert merged[0, :4, 0].tolist() == [30, 0, 10, 40]
    assert totals[0].tolist() == [0.5, 0.2, 0.2, 0.1, 0.0]
    assert merged[0, 4].tolist() == [30, 31]  # nothing else there: the best one again


@given(predictions(), st.floats(0, 1), st.integers(1, 3))
def test_copies_of_a_file_give_what_the_file_alone_gives(files, threshold, copies):
    windows, scores = files
    windows, scores = windows[:, :1], scores[:, :1]
    alone, _ = merge(windows, scores, np.ones(1), threshold)
    several, totals = merge(
        windows.repeat(copies, 1), scores.repeat(copies, 1), np.ones(copies), 1.0
    )
    for query in range(len(windows)):
        # The ranking of the file itself, where no two windows count as one.
        expected = distinct(windows[query, 0])
        assert distinct(several[query]) == expected
        assert set(map(tuple, alone[query].tolist())) == set(expected)
        assert alone[query, 0].tolist() == windows[query, 0, 0].tolist()
    assert (np.diff(totals) <= 0).all()


@given(predictions(), st.floats(0, 1))
def test_windows_come_from_the_files_and_apart_ones_first(files, threshold):
    windows, scores = files
    merged, totals = merge(windows, scores, np.ones(windows.shape[1]), threshold)
    assert merged.shape == (len(windows), 5, 2) and (totals >= 0).all()
    for query in range(len(windows)):
        given_windows = set(distinct(windows[query].reshape(-1, 2)))
        assert set(distinct(merged[query])) <= given_windows
        assert len(distinct(merged[query])) == min(5, len(given_windows))


def test_copies_of_an_empty_window_are_fillers():
    windows = one_query([[0, 0]] * 3, [[0, 0], [0, 4], [0, 5]])
    scores = np.array([[[0.5, 0.5, 0.5], [0.5, 0.2, 0.1]]])
    merged, totals = merge(windows, scores, np.ones(2), 0.5)
    assert merged[0].tolist() == [[0, 0], [0, 4], [0, 5], [0, 0], [0, 0]]
    assert totals[0].tolist() == [1, 0.2, 0.1, 0, 0]


def test_blocks_of_queries_equal_the_whole():
    draw = np.random.default_rng(0)
    count = QUERIES_AT_ONCE + 3
    windows = draw.integers(0, 30, (count, 2, 5, 2)).astype(float)
    windows.sort(axis=3)
    scores = -np.sort(-draw.random((count, 2, 5)))
    merged, totals = merge(windows, scores, np.ones(2), 0.5)
    for part in (slice(0, 7), slice(count - 7, count)):
        some, own = merge(windows[part], scores[part], np.ones(2), 0.5)
        assert np.array_equal(merged[part], some) and np.array_equal(totals[part], own)


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


def test_files_in_any_order_are_merged_by_score_or_by_rank(files, tmp_path, capsys):
    out = [str(tmp_path / "new" / f"{n}.json") for n in range(3)]
    main(["--predictions", *files, "--output", out[0]])
    assert "3 queries of 2 files merged" in capsys.readouterr().out
    merged = read_predictions(out[0])
    assert [prediction.key for prediction in merged] == QUERIES
    sources = [{p.key: p.windows for p in read_predictions(file)} for file in files]
    for prediction in merged:
        both = sources[0][prediction.key] + sources[1][prediction.key]
        assert len(prediction.windows) == 5
        assert all(window in both for window in prediction.windows)
    assert np.array(read_scores(out[0], merged)).shape == (3, 5)
    scores_file(files[1]).unlink()
    main(["--predictions", *files, "--output", out[1]])
    assert (
        capsys.readouterr().err
        == f"warning: {files[1]}: no scores beside it, so all files count by rank\n"
    )
    scores_file(files[0]).unlink()
    main(["--predictions", *files, "--output", out[2]])
    assert capsys.readouterr().err == ""
    by_score, by_rank, neither = map(read_predictions, out)
    assert by_rank == neither != by_score


def test_fewer_windows_than_five_are_filled_up(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_results(one, QUERIES[:1], np.array([[[0.0, 1.0]]]))
    write_results(two, QUERIES[:1], np.empty((1, 0, 2)))
    main(["--predictions", str(one), str(two), "--output", str(tmp_path / "out.json")])
    assert read_predictions(tmp_path / "out.json")[0].windows == [(0.0, 1.0)] * 5
    with pytest.raises(UserError, match="1 queries have no window in any of the files"):
        main(["--predictions", str(two), str(two), "--output", str(tmp_path / "out.json")])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--weights 1", "1 --weights for 2 files"),
        ("--weights 1 nan", "--weights must be above 0"),
        ("--nms_threshold 2", "--nms_threshold must be from 0 to 1"),
    ],
)
def test_bad_options(files, tmp_path, capsys, option, words):
    with pytest.raises(SystemExit):
        main(["--predictions", *files, "--output", str(tmp_path / "out.json"), *option.split()])
    assert words in capsys.readouterr().err


def test_files_that_do_not_fit_are_refused(files, tmp_path):
    program = "utils/ensemble_predictions.py"
    run = ["--predictions", *files, "--output", tmp_path / "out.json"]
    succeed(program, *run, "--weights", "1", "2", "--nms_threshold", "0.3")
    content = json.loads((tmp_path / "two.json").read_text())
    content["results"][0]["query_idx"] = 7
    (tmp_path / "two.json").write_text(json.dumps(content))
    said = refuse(program, *run)
    assert said.startswith("error: 2 queries are in only one of ")
    assert f"for one query 0 of annotation b of clip other, in {files[0]}; an ensemble" in said
    content["results"][0] |= {"query_idx": 0, "predicted_times": [[1, 2]]}
    (tmp_path / "two.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"two_scores\.json: scores of other predictions"):
        main(list(map(str, run)))


def test_negative_scores_and_no_queries_are_refused(tmp_path):
    path = tmp_path / "one.json"
    write_results(path, QUERIES[:1], np.ones((1, 5, 2)), -np.ones((1, 5)))
    with pytest.raises(UserError, match=r"one\.json: has scores below 0"):
        main(["--predictions", str(path), "--output", str(tmp_path / "out.json")])
    write_results(path, [], np.ones((0, 5, 2)))
    with pytest.raises(UserError, match=r"one\.json: has no queries"):
        main(["--predictions", str(path), "--output", str(tmp_path / "out.json")])
