"""Shares of wrong labels."""

import json

from tests.simulated import refuse, succeed


def test_sub_bin_windows_are_wrong_only_as_published(tmp_path):
    windows = [[10.0, 12.0], [20.05, 20.2], [30.0, 30.3], [0.0, 5.0]]
    clip = {
        "fps": 1.875,
        "num_frames": 100,
        "timestamps": [[int(t * 1.875) for t in window] for window in windows],
        "exact_times": windows,
        "sentences": ["#c c a?", "#c c b?", "#c c c?", "where?"],
        "annotation_uids": ["a"] * 4,
        "query_idx": [0, 1, 2, 3],
    }
    (tmp_path / "train.json").write_text(json.dumps({"clip": clip}))
    lines = succeed("utils/compare_labels.py", tmp_path / "train.json").splitlines()
    narrations = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert narrations == ["narrations", "3", "0.00 %", "66.67 %"]
    queries = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert queries == ["queries", "1", "0.00 %", "0.00 %"]


def test_wrong_use(tmp_path):
    assert "no such file" in refuse("utils/compare_labels.py", tmp_path / "nothing.json")
