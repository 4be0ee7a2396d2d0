"""Public TACoS annotations to the NLQ schema."""

import json
from pathlib import Path

import pytest

from utils.convert_tacos import main
from utils.data.annotations import iter_queries, read_annotations


def public_video(**changes) -> dict:
    """A public entry of 10 s at 29.4 frames a second, with one of each odd window."""
    video = {
        "fps": 29.4,
        "num_frames": 294,
        "timestamps": [[29, 147], [200, 100], [50, 50], [250, 301]],
        "sentences": ["He took out a pan", "She cuts.", "They stop", "He leaves"],
    }
    return {**video, **changes}


@pytest.fixture
def public(tmp_path) -> Path:
    folder = tmp_path / "tacos"
    folder.mkdir()
    for number, split in enumerate(("train", "val", "test")):
        content = {f"s{number}-d{i}.avi": public_video() for i in range(3 - number)}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def test_windows_are_in_seconds(public, tmp_path, capsys):
    main(["--input_dir", str(public), "--data_root", str(tmp_path)])
    annotations = read_annotations(tmp_path / "tacos_train.json")
    queries = [each for each in iter_queries(annotations) if each.clip_uid == "s0-d1.avi"]
    frames = [(29, 147), (100, 200), (50, 50), (250, 301)]
    assert [q.window for q in queries] == [(first / 29.4, last / 29.4) for first, last in frames]
    assert [q.query_idx for q in queries] == [0, 1, 2, 3]
    assert queries[0].text == "He took out a pan"
    assert annotations.videos[1].clips[0].bounds == (0.0, 294 / 29.4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split(None, 3) == [
        *("train", "12", "3"),
        "3 reversed, 3 of zero length, 3 past the end",
    ]


@pytest.mark.parametrize(
    ("one_file", "with_annotations"), [(True, True), (True, False), (False, True)]
)
def test_other_forms_convert_to_the_same(public, tmp_path, one_file, with_annotations):
    splits = {}
    for split in ("train", "val", "test"):
        videos = json.loads((public / f"{split}.json").read_text())
        for video in videos.values() if with_annotations else ():
            pairs = zip(video.pop("sentences"), video.pop("timestamps"), strict=True)
            video["annotations"] = [{"sentence": s, "segment(frame)": t} for s, t in pairs]
        splits[split] = videos
        (tmp_path / f"{split}.json").write_text(json.dumps(videos))
    (tmp_path / "tacos.json").write_text(json.dumps(splits))
    main(["--input_dir", str(public), "--data_root", str(tmp_path / "old")])
    other = tmp_path / "tacos.json" if one_file else tmp_path
    main(["--input_dir", str(other), "--data_root", str(tmp_path / "new")])
    for split in splits:
        name = f"tacos_{split}.json"
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "old" / name).read_bytes()
