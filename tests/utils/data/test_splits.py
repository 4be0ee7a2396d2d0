"""Splits: read with their subsets, and without the clips that can't be used."""

import json

import numpy as np
import pytest

from utils.base.errors import UserError, named
from utils.data.records import keep_complete, keep_some, read_split


def prepared(folder, clips):
    """A split where each of the clips has one NLQ query and one narration."""
    content = {
        uid: {
            "fps": 1.875,
            "num_frames": 100,
            "timestamps": [[0, 10], [3, 4]],
            "exact_times": [[0.0, 5.4], [1.6, 2.2]],
            "sentences": ["where is it?", "#c c takes it?"],
            "annotation_uids": ["a", "b"],
            "query_idx": [0, 0],
        }
        for uid in clips
    }
    file = folder / "dataset" / "task" / "train.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def test_subsets(tmp_path):
    prepared(tmp_path, "abc")
    clips = tmp_path / "clips.txt"
    clips.write_text("a\nc\n")
    none = tmp_path / "none.txt"
    none.write_text("")
    records, listed = read_split(tmp_path, "task", "train")
    assert (len(records), listed) == (6, 6)
    records, listed = read_split(tmp_path, "task", "train", zeroshot_clips=str(clips))
    assert (records.is_narration.sum(), len(records), listed) == (3, 5, 6)
    records, _ = read_split(tmp_path, "task", "train", str(clips), str(none))
    assert records.is_narration.all() and len(records) == 2
    with pytest.raises(UserError, match="no queries in this split"):
        read_split(tmp_path, "task", "train", str(none), str(none))


def test_missing_and_empty_splits(tmp_path):
    prepared(tmp_path, "")
    with pytest.raises(UserError, match="no queries in this split"):
        read_split(tmp_path, "task", "train")
    with pytest.raises(UserError, match=r"prepare_ego4d_dataset\.py \(data sets in .*: task\)"):
        read_split(tmp_path, "other", "train")


def test_clips_that_lack_a_feature(tmp_path, capsys):
    prepared(tmp_path, "abcde")
    records, _ = read_split(tmp_path, "task", "train")
    full = np.full(5, 90)
    lacking = np.array([90, 0, 90, 90, 0])
    assert keep_complete(records, {"x": full}, "train", False) is records
    with pytest.raises(UserError, match=r"train: 2 clips with 4 of 10 queries .*b \(y\), e \(y\)"):
        keep_complete(records, {"x": full, "y": lacking}, "train", False)
    kept = keep_complete(records, {"x": full, "y": lacking}, "train", True)
    assert {kept.clip_uids[clip] for clip in kept.clip} == {"a", "c", "d"}
    assert "b (y)" in capsys.readouterr().err
    with pytest.raises(UserError, match="nothing is left"):
        keep_complete(records, {"x": 0 * full}, "train", True)


def test_filter_that_leaves_nothing(tmp_path):
    prepared(tmp_path, "a")
    records, _ = read_split(tmp_path, "task", "train")
    assert len(keep_some(records, np.array([True, False]), "train")) == 1
    with pytest.raises(UserError, match="nothing to do"):
        keep_some(records, np.array([False, False]), "train")


def test_long_lists_are_cut():
    assert named("abc") == "a, b, c"
    assert named("abcd") == "a, b, c, ..."
