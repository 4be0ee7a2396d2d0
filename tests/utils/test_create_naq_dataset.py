"""Narrations to NaQ: the published data set, and odd inputs."""

import csv
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import timed, write_annotations
from utils.base.files import write_json
from utils.create_naq_dataset import _naq_queries, main
from utils.data.annotations import iter_clips, read_annotations
from utils.data.egoclip import read_narrations
from utils.data.narrations import index_narrations
from utils.data.records import read_records
from utils.prepare_ego4d_dataset import main as prepare


@pytest.fixture
def data_root(golden, tmp_path) -> Path:
    """The golden inputs in a folder of their own."""
    folder = tmp_path / "data"
    shutil.copytree(golden / "naq", folder, ignore=shutil.ignore_patterns("expected*"))
    return folder


@pytest.mark.parametrize(("version", "ending"), [("v1", ""), ("v2", "_v2")])
def test_data_set_and_statistics_are_the_golden_ones(golden, data_root, capsys, version, ending):
    main(["--type", "nlq", "--em_version", version, "--data_root", str(data_root)])
    written = (data_root / f"nlq_aug_naq_train{ending}.json").read_bytes()
    expected = golden / "naq" / f"expected_nlq_aug_naq_train{ending}.json"
    assert json.loads(written) == json.loads(expected.read_text())
    printed = capsys.readouterr()
    assert printed.out == (golden / "naq" / f"expected_stats{ending}.txt").read_text()
    assert "2 malformed rows skipped" in printed.err

    main(["--type", "nlq", "--em_version", version, "--data_root", str(data_root)])
    assert (data_root / f"nlq_aug_naq_train{ending}.json").read_bytes() == written


def test_tacos_is_joined_with_the_same_narrations(data_root, capsys):
    path = data_root / "tacos_train.json"
    write_annotations(path, **{"s1.avi": [timed("He took out a pan", 1.0, 2.0)]})
    [video] = json.loads(path.read_text())["videos"]
    main(["--type", "tacos", "--em_version", "v1", "--data_root", str(data_root)])
    union = json.loads((data_root / "tacos_aug_naq_train.json").read_text())["videos"]
    assert {**video, "split": "train"} in union
    assert len(union) == 1 + 26
    statistics = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:]]
    of_tacos, of_naq, of_union = ["1", "1", "1"], ["399", "26", "51"], ["400", "27", "52"]
    assert statistics == ["stats", *of_tacos, "stats", *of_naq, "stats", *of_union]


def test_other_narrations_are_joined_as_egoclips(data_root):
    """Here EgoClip's own windows and texts, as a plain table."""
    choices = ["--type", "nlq", "--em_version", "v2", "--data_root", str(data_root)]
    main(choices)
    output = data_root / "nlq_aug_naq_train_v2.json"
    expected = output.read_bytes()
    videos = [f"video-{number:02}" for number in range(40)]
    egoclip = read_narrations(data_root / "egoclip.csv", videos)
    with (data_root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video", "start", "end", "text"])
        for video in videos:
            for row in egoclip.inside(video, 0, 1e9):
                times = egoclip.starts[row], egoclip.ends[row]
                table.writerow([video, *times, egoclip.texts[int(row)]])
    main([*choices, "--narrations", str(data_root / "table.csv"), "--format", "csv"])
    assert output.read_bytes() == expected


def own_videos(folder: Path, rows: dict[str, int]) -> list[str]:
    """Features of videos, subtitles of one second every ten; the options to make NaQ of them."""
    write_json(folder / "features" / "feature_shapes.json", rows)
    for video in rows:
        cues = "\n\n".join(f"0:{s} --> 0:{s + 1}\nI cut." for s in range(0, 90, 10))
        (folder / f"{video}.vtt").write_text(f"WEBVTT\n\n{cues}")
    files = [str(folder / f"{video}.vtt") for video in rows]
    return ["--narrations", *files, "--format", "vtt", "--features", str(folder / "features"),
            "--data_root", str(folder)]  # fmt: skip


def test_videos_without_annotations_become_a_data_set(tmp_path, capsys):
    """A tenth of the videos is for validation; long videos are cut into equal clips."""
    rows = {f"v{number:02}": 75 for number in range(20)} | {"long": 225, "silent": 75}
    options = own_videos(tmp_path, rows)
    (tmp_path / "silent.vtt").write_text("WEBVTT\n")
    main([*options, "--clip_seconds", "50"])
    titles = capsys.readouterr().out.splitlines()[::4]
    assert titles == ["========> NaQ train stats", "========> NaQ val stats"]
    splits = {name: read_annotations(tmp_path / f"naq_{name}.json") for name in ("train", "val")}
    videos = {name: {video.video_uid for video in splits[name].videos} for name in splits}
    assert len(videos["train"]) == 19 and len(videos["val"]) == 2
    assert videos["train"] | videos["val"] == rows.keys() - {"silent"}
    clips = {clip.clip_uid: clip for split in splits.values() for _, clip in iter_clips(split)}
    assert clips["v00"].bounds == (0.0, 40.0)
    parts = [clips[f"long_part{part}"] for part in (1, 2, 3)]
    assert [part.bounds for part in parts] == [(0.0, 40.0), (40.0, 80.0), (80.0, 120.0)]
    windows = [
        (query.clip_start_sec, query.clip_end_sec, query.query)
        for part in parts
        for query in part.annotations[0].language_queries
    ]
    assert windows == [(start % 40, start % 40 + 1, "# I cut.") for start in range(0, 90, 10)]
    names = [f"{name}={tmp_path / f'naq_{name}.json'}" for name in splits]
    prepare([*(f"--input_{name.replace('=', '_split=')}" for name in names),
             "--output_save_path", str(tmp_path / "dataset")])  # fmt: skip
    assert not (tmp_path / "dataset" / "test.json").exists()
    prepared = read_records(tmp_path / "dataset" / "val.json")
    assert prepared.is_narration.all() and prepared.num_frames.tolist() == [75, 75]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_any_text_is_written_as_json(texts):
    times = np.arange(len(texts)) / 3
    table = pl.DataFrame(
        {
            "video": np.zeros(len(texts), int),
            "start": times,
            "end": times + 0.1,
            "text": pl.Series(texts, dtype=pl.String),
        }
    )
    narrations = index_narrations(["v"], table, pl.DataFrame(), "line")
    ((count, queries),) = _naq_queries([("v", "c", 0.0, 1e4)], narrations)
    entries = json.loads(msgspec.json.encode(queries))
    assert count == len(texts)
    assert [entry["query"] for entry in entries] == texts
    assert [entry["video_start_sec"] for entry in entries] == times.tolist()
    assert [entry["video_end_frame"] for entry in entries] == np.ceil((times + 0.1) * 30).tolist()


def test_a_clip_listed_twice_is_one(data_root, capsys):
    """Also: NLQ's annotations come first, and other keys of its clips stay."""
    path = data_root / "nlq_train.json"
    content = json.loads(path.read_text())
    video = next(v for v in content["videos"] if len(v["clips"]) > 1)
    again = {**video["clips"][0], "annotations": [{"annotation_uid": "more"}], "extra": 1}
    content["videos"].append({"video_uid": video["video_uid"], "clips": [again]})
    video["clips"][0]["kept"] = True
    path.write_text(json.dumps(content))
    main(["--type", "nlq", "--em_version", "v1", "--data_root", str(data_root)])
    assert "# clips 60" in capsys.readouterr().out
    union = json.loads((data_root / "nlq_aug_naq_train.json").read_text())
    merged = next(v for v in union["videos"] if v["video_uid"] == video["video_uid"])
    clip = next(c for c in merged["clips"] if c["clip_uid"] == again["clip_uid"])
    uids = [annotation["annotation_uid"] for annotation in clip["annotations"]]
    assert clip["kept"] is True
    assert uids[-1] == f"{video['video_uid']}_{again['clip_uid']}"
    assert uids[-2] == "more"


def test_no_narration_and_no_video_are_an_empty_data_set(data_root, capsys):
    table = "video_uid\tclip_start\tclip_end\tclip_text\nelsewhere\t1\t2\t#C C walks\n"
    (data_root / "egoclip.csv").write_text(table)
    main(["--type", "nlq", "--em_version", "v1", "--data_root", str(data_root)])
    printed = capsys.readouterr()
    assert "# queries 0" in printed.out and "no narration lies inside a clip" in printed.err
    for name in ("vq", "nlq", "moments"):
        (data_root / f"{name}_train.json").write_text('{"videos": []}')
    main(["--type", "nlq", "--em_version", "v1", "--data_root", str(data_root)])
    assert json.loads((data_root / "nlq_aug_naq_train.json").read_text()) == {"videos": []}
    assert "# Unique videos: 0" in capsys.readouterr().out
