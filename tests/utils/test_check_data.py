"""A data root looked over: what is right passes, and each kind of harm has its line."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from utils.base.errors import UserError
from utils.check_data import main


class Hostile:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.fixture
def data(simulated, tmp_path, monkeypatch):
    """A data root of one's own, to harm; the working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    skip = shutil.ignore_patterns("cache", "*_v2*", "moments_*", "clip")
    return shutil.copytree(simulated, tmp_path / "data", ignore=skip)


def look(data, *more):
    main(["--data_root", str(data), "--task", "nlq", *more])


def lines(said, verdict):
    return [line for line in said.splitlines() if f"| {verdict}" in line]


def words_of(said):
    """The third column as running text."""
    columns = (line.split("|") for line in said.splitlines() if line.startswith("|"))
    return " ".join(" ".join(cells[3] for cells in columns).split())


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def first_clip(content):
    return next(
        clip for video in content["videos"] for clip in video["clips"]
        if clip["annotations"] and clip["annotations"][0].get("language_queries")
    )  # fmt: skip


def first_feature(data):
    clips = json.loads((data / "dataset/nlq_official_v1/val.json").read_text())
    return data / "features/egovlp" / f"{next(iter(clips))}.pt"


@pytest.mark.parametrize("more", [(), ("--thorough",)])
def test_a_simulated_root_has_no_errors(data, capsys, more):
    look(data, *more)
    said = capsys.readouterr().out
    assert not lines(said, "error")
    assert "share no clip and no video" in said and "features egovlp" in said
    assert "stores take up to" in said and "no errors" in said


def test_where_there_is_nothing(tmp_path, capsys):
    with pytest.raises(UserError, match="no such folder"):
        look(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"errors: 5"):
        look(tmp_path)
    said = capsys.readouterr().out
    assert len(lines(said, "error")) == 5  # three splits, the data set, the features


def reverse(content):
    query = first_clip(content)["annotations"][0]["language_queries"][0]
    query["clip_start_sec"], query["clip_end_sec"] = 9.0, 3.0


def outside(content):
    query = first_clip(content)["annotations"][0]["language_queries"][0]
    query["clip_start_sec"], query["clip_end_sec"] = 1e5, 2e5


def timeless(content):
    del first_clip(content)["annotations"][0]["language_queries"][0]["clip_start_sec"]


def renamed(content):
    first_clip(content)["annotations"][0]["annotation_uid"] = "another"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (reverse, "1 windows end before they start"),
        (outside, "1 windows lie wholly outside their clips"),
        (timeless, "has only one of clip_start_sec"),
        (renamed, "was not made from nlq_val.json"),
        (lambda content: content.clear(), "videos is missing"),
        (lambda content: content["videos"].clear(), "holds no queries"),
    ],
)
def test_annotations(data, capsys, edit, words):
    change(data / "nlq_val.json", edit)
    with pytest.raises(UserError, match="errors: "):
        look(data)
    assert words in words_of(capsys.readouterr().out)


def test_splits_that_share_clips(data, capsys):
    shutil.copy(data / "nlq_train.json", data / "nlq_val.json")
    with pytest.raises(UserError):
        look(data)
    said = capsys.readouterr().out
    assert "share" in "".join(line for line in lines(said, "error") if "train and val" in line)


def test_a_torn_prepared_file(data, capsys):
    file = data / "dataset/nlq_official_v1/val.json"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError):
        look(data)
    assert "not valid JSON" in words_of(capsys.readouterr().out)


def harm(name, file):
    shapes = file.with_name("feature_shapes.json")
    rows = torch.load(file, weights_only=True)
    if name == "missing":
        file.unlink()
    elif name == "NaN":
        rows[3, 5] = torch.nan
        torch.save(rows, file)
    elif name == "narrow":
        torch.save(rows[:, :9].clone(), file)
    elif name == "torn":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    elif name == "hostile":
        torch.save(Hostile(), file)
    elif name == "unlisted rows":
        torch.save(rows[:-5].clone(), file)
    else:
        shapes.unlink()
        torch.save(rows[: len(rows) // 2].clone() if name == "short" else rows.repeat(2, 1), file)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "clips have none"),
        ("NaN", "NaN or infinite values in row 3"),
        ("narrow", "features are 9 wide"),
        ("torn", "fetch it again"),
        ("hostile", "refused, it holds a posix.system"),
        ("unlisted rows", "feature_shapes.json says"),
        ("short", "too short features"),
        ("long", "too long features"),
    ],
)
def test_features(data, capsys, tmp_path, name, words):
    harm(name, first_feature(data))
    if name in ("short", "long"):
        look(data, "--thorough")
    else:
        with pytest.raises(UserError):
            look(data, "--thorough")
    assert words in words_of(capsys.readouterr().out)
    assert not (tmp_path / "canary").exists()


def test_torn_files_beyond_the_sample_are_seen_by_their_size(data, capsys, monkeypatch):
    monkeypatch.setattr("utils.features.checks.SAMPLE", 1)
    clips = json.loads((data / "dataset/nlq_official_v1/test.json").read_text())
    file = data / "features/egovlp" / f"{list(clips)[-1]}.pt"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError):
        look(data)
    assert "1 files are shorter than their rows" in capsys.readouterr().out


def test_features_of_another_width_than_published(data, capsys):
    folder = data / "features/egovlp"
    for file in folder.glob("*.pt"):
        torch.save(torch.from_numpy(np.ones((8, 20), np.float32)), file)
    (folder / "feature_shapes.json").unlink()
    (folder / "feature_card.json").unlink()
    look(data)
    said = words_of(capsys.readouterr().out)
    assert "are 20 wide, the published ones 256" in said and "too short features" in said


def test_a_disk_without_room(data, capsys, monkeypatch):
    usage = shutil.disk_usage(data)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError):
        look(data)
    assert lines(capsys.readouterr().out, "error")[0].startswith("| disk")
