"""Prepared splits as columns, with their subsets and without the clips that can't be used."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.data.records import (
    Records,
    keep_usable,
    read_records,
    read_split,
)


def prepared_clip(**changes) -> dict:
    clip = {
        "fps": 1.875,
        "num_frames": 100,
        "timestamps": [[-1, 4], [50, 120]],
        "exact_times": [[-0.5, 2.5], [27.0, 64.5]],
        "sentences": ["#c c opens it?", "where is it?"],
        "annotation_uids": ["n", "a"],
        "query_idx": [0, 3],
    }
    return {**clip, **changes}


def records(folder: Path, content: object) -> Records:
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return read_records(path)


def test_two_clips_become_columns(tmp_path):
    read = records(tmp_path, {"a": prepared_clip(), "b": prepared_clip(num_frames=60)})
    assert len(read) == 4
    assert read.clip_uids == ["a", "b"]
    assert read.sentences == ["#c c opens it?", "where is it?"]
    assert read.annotation_uids == ["n", "a"]
    assert read.clip.tolist() == [0, 0, 1, 1]
    assert read.sentence.tolist() == [0, 1, 0, 1]
    assert read.query_idx.tolist() == [0, 3, 0, 3]
    assert read.is_narration.tolist() == [True, False, True, False]
    assert read.timestamps[1].tolist() == [50, 120]
    np.testing.assert_allclose(read.duration, np.array([100, 100, 60, 60]) / 1.875)
    # Kept within the clip: starts at 0 or later, ends at its end or before.
    expected = np.array([[0, 4], [50, 100], [0, 4], [50, 60]]) / 1.875
    np.testing.assert_allclose(read.seconds, expected)
    np.testing.assert_allclose(read.exact[:2], [[-0.5, 2.5], [27.0, 64.5]])
    kinds = {name: getattr(read, name).dtype for name in ("clip", "sentence", "annotation")}
    assert set(kinds.values()) == {np.dtype(np.int32)}


def as_prepared(read: Records) -> dict:
    """The content of the file that `read` came from."""
    content = {}
    for number, uid in enumerate(read.clip_uids):
        rows = np.flatnonzero(read.clip == number)
        content[uid] = {
            "fps": read.fps[number],
            "num_frames": read.num_frames[number],
            "timestamps": read.timestamps[rows].tolist(),
            "exact_times": read.exact[rows].tolist(),
            "sentences": [read.sentences[i] for i in read.sentence[rows]],
            "annotation_uids": [read.annotation_uids[i] for i in read.annotation[rows]],
            "query_idx": read.query_idx[rows].tolist(),
        }
    return content


NUMBERS = st.floats(-1e6, 1e6)
QUERIES = st.lists(
    st.tuples(
        st.tuples(st.integers(-9, 999), st.integers(-9, 999)),
        st.tuples(NUMBERS, NUMBERS),
        st.text(max_size=4),
        st.sampled_from(["a", "b"]),
        st.integers(0, 99),
    ),
    max_size=5,
)


@given(st.dictionaries(st.sampled_from(["c1", "c2", "c.3"]), QUERIES))
def test_any_split_survives_the_round_trip(tmp_path_factory, clips):
    keys = ("timestamps", "exact_times", "sentences", "annotation_uids", "query_idx")
    content = {}
    for uid, queries in clips.items():
        columns = [list(column) for column in zip(*queries, strict=True)] or [[] for _ in keys]
        content[uid] = {"fps": 1.875, "num_frames": 9, **dict(zip(keys, columns, strict=True))}
    read = records(tmp_path_factory.mktemp("split"), content)
    assert as_prepared(read) == json.loads(json.dumps(content))


def test_older_files_without_exact_times_are_read(tmp_path):
    clip = prepared_clip()
    del clip["exact_times"]
    read = records(tmp_path, {"a": clip})
    np.testing.assert_allclose(read.exact, np.array([[-1, 4], [50, 120]]) / 1.875)


def split(folder: Path, clips: str) -> Path:
    """A data root whose training split has clips of one narration and one other query each."""
    file = folder / "dataset" / "task" / "train.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({uid: prepared_clip() for uid in clips}))
    return folder


def test_clip_lists_choose_subsets(tmp_path, capsys):
    root = split(tmp_path / "data", "abc")
    lines, listed, empty = (str(tmp_path / name) for name in ("lines.txt", "list.json", "empty"))
    Path(lines).write_text("a\n\n  c \nunknown\n")
    Path(listed).write_text('["b"]')
    Path(empty).touch()

    def subset(*lists):
        records, count = read_split(root, "task", "train", *lists)
        assert count == 6  # before any were left out
        return kept(records)

    assert subset(lines) == ([0, 2], [0, 1, 2])
    assert "1 of 3 listed clips are not in this split" in capsys.readouterr().err
    assert subset(None, listed) == ([0, 1, 2], [1])
    assert subset(None, empty) == ([0, 1, 2], [])
    assert subset(empty, listed) == ([], [1])
    assert subset() == ([0, 1, 2], [0, 1, 2])
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="no queries in this split"):
        subset(empty, empty)
    with pytest.raises(UserError, match=r"prepare_ego4d_dataset\.py \(data sets in .*: task\)"):
        read_split(root, "other", "train")


def kept(read: Records) -> tuple[list[int], list[int]]:
    """Clips that have narrations, and clips that have other queries."""
    return read.clip[read.is_narration].tolist(), read.clip[~read.is_narration].tolist()


def test_a_filter_that_leaves_nothing_is_refused(tmp_path):
    records, _ = read_split(split(tmp_path, "a"), "task", "train")
    assert len(keep_usable(records, np.array([True, False]), "train")) == 1
    with pytest.raises(UserError, match="nothing to do"):
        keep_usable(records, np.array([False, False]), "train")
