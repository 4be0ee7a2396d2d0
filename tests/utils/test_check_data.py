"""A data root looked over: the program, with data/checks.py and features/checks.py.

What is right passes, each kind of harm has its line, and the steps mend it.
"""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch

from tests.bad_inputs.world import run_here
from tests.samples import prepared_clip, raw_queries
from utils.check_data import check, main, parse
from utils.data.annotations import iter_queries, read_annotations


@pytest.fixture
def data(simulated, tmp_path, monkeypatch):
    """A data root of one's own, to harm; the working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    skip = shutil.ignore_patterns("cache", "*_v2*", "clip")
    return shutil.copytree(simulated, tmp_path / "data", ignore=skip)


def look(data, *options, task="nlq"):
    """The findings, the commands of each step, and whether nothing is an error."""
    findings, steps = check(parse(["--data_root", str(data), "--task", task, *map(str, options)]))
    commands = [[command, *following] for command, following in steps.commands.items()]
    return findings, commands, not findings.count("error")


def of(findings, title, verdict):
    """What was found in a check, with a verdict."""
    return [
        finding.what for finding in findings
        if finding.check.startswith(title) and finding.verdict == verdict
    ]  # fmt: skip


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(("task", "more"), [("nlq", ()), ("nlq", ("--thorough",)), ("nlq_v2", ())])
def test_a_simulated_root_has_no_errors(simulated, task, more):
    findings, steps, is_sound = look(simulated, *more, task=task)
    assert is_sound and not steps and not of(findings, "", "error")
    assert of(findings, "train and val", "ok") == ["share no clip and no video"]
    assert re.match(r"18 clips, 256 wide; read ", *of(findings, "features egovlp", "ok"))
    queries = list(iter_queries(read_annotations(simulated / "nlq_train.json")))
    if task == "nlq":
        words = of(findings, "annotations, train", "ok")
        assert words == [f"{len(queries)} queries of {len({q.clip_uid for q in queries})} clips"]
    (narrations,) = of(findings, "narrations", "warning")
    assert re.match(r"98 narrations of 7 of 7 videos; 5 malformed rows skipped", narrations)


@pytest.mark.parametrize(("task", "ending"), [("nlq", ""), ("nlq_v2", "_v2"), ("tacos", "")])
def test_the_steps_lead_to_a_sound_data_root(simulated, tmp_path, capsys, task, ending):
    """Steps are carried out as printed; where one fetches, files are put where it would."""
    root = tmp_path / "a place"
    fetched = root / "ego4d" / ("v2" if ending else "v1") / "annotations"
    features = ("--features", "egovlp", "clip")
    findings, steps, is_sound = look(root, *features, task=task)
    assert not is_sound
    errors = {line.check.split(",")[0] for line in findings if line.verdict == "error"}
    dataset = f"{task.removesuffix('_v2') if ending else task}_official_{'v2' if ending else 'v1'}"
    assert errors == {"annotations", dataset, "features egovlp", "features clip"}
    fetched.mkdir(parents=True)
    for name in ("nlq_train", "nlq_val", "nlq_test_unannotated", "vq_train", "moments_train"):
        shutil.copy(simulated / f"{name}{ending}.json", fetched / f"{name}.json")
    for command in [command for step in steps for command in step]:
        words = shlex.split(command.split("  #")[0]) if "put " not in command else ["put"]
        if words[0] == "put":
            shutil.copy(simulated / "egoclip.csv", root)
        elif words[0] == "cp":
            shutil.copy(*words[1:])
        elif words[1] == "utils/convert_tacos.py":
            for split, source in (("train", "train"), ("val", "val"), ("test", "test_unannotated")):
                shutil.copy(simulated / f"nlq_{source}.json", root / f"tacos_{split}.json")
        elif words[1] == "utils/download_features.py":
            (name,) = words[3:-2]
            shutil.copytree(simulated / "features" / name, root / "features" / name)
        elif words[0] == "python":
            assert run_here(words[1], words[2:], tmp_path) is None
        else:
            version = ["--version", "v2" if ending else "v1", "--datasets", "annotations"]
            assert words == ["ego4d", f"--output_directory={root / 'ego4d'}", *version]
    findings, steps, is_sound = look(root, *features, task=task)
    assert is_sound and not steps
    main(["--data_root", str(root), "--task", task, *features])
    assert f"{root}: no errors" in capsys.readouterr().out


def test_missing_files_are_named_with_what_fetches_them(data):
    (data / "dataset/nlq_official_v1/val.json").unlink()
    (data / "nlq_val.json").unlink()
    next((data / "features/egovlp").glob("*.pt")).unlink()
    findings, steps, _ = look(data, "--features", "egovlp", "mine")
    for title in ("annotations, val", "nlq_official_v1, val", "features mine"):
        assert of(findings, title, "error")[0].endswith(": missing")
    assert re.match(r"1 of 18 clips have none \(", *of(findings, "features egovlp", "error"))
    names = [re.search(r"\w+\.py|ego4d", step[0]).group() for step in steps]
    assert names == ["ego4d", "prepare_ego4d_dataset.py", "download_features.py"]


def query(content):
    """The first query with text."""
    return next(query for query in raw_queries(content) if query.get("query"))


def window(start, end):
    def edit(content):
        query(content)["clip_start_sec"], query(content)["clip_end_sec"] = start, end

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (window(9.0, 3.0), "1 windows end before they start (clip {place})"),
        (window(1e5, 2e5), "1 windows lie outside their clips (clip {place})"),
        (window(-5, 3.0), "1 windows extend more than 0.05 s past their clips; they are cut there"),
        (window(5.0, 5.0), "windows are at most 1/30 s long (clip {place}"),
        (lambda content: query(content).pop("clip_start_sec"), "has only one of clip_start_sec"),
        (lambda content: query(content).update(query=None), "have no text (clip {place}"),
        (lambda content: query(content).update(query="else?"), "1 queries differ from its"),
        (lambda content: content.clear(), "required field `videos`"),
        (lambda content: content["videos"].clear(), "holds no queries"),
        (lambda content: content.update(version="2.0"), "says that it is of version v2"),
    ],
)
def test_each_fault_of_annotations_has_its_line(data, edit, words):
    file = data / "nlq_val.json"
    clip_uid, annotation_uid, index = next(iter_queries(read_annotations(file))).key
    if "windows" in words:  # the simulated world's own odd windows would be counted too
        times = {"clip_start_sec": 1.0, "clip_end_sec": 2.0}
        change(file, lambda content: [q.update(times) for q in raw_queries(content)])
    change(file, edit)
    findings, _, _ = look(data)
    place = f"{clip_uid}, annotation {annotation_uid}, query {index}"
    texts = [finding.what for finding in findings if finding.verdict != "ok"]
    assert any(words.format(place=place) in text for text in texts), texts


def test_a_file_under_the_name_of_another_version_is_noticed(simulated, data):
    shutil.copy(simulated / "nlq_val_v2.json", data / "nlq_val.json")
    shutil.copy(simulated / "nlq_val_v2.json", data)
    findings, _, is_sound = look(data)
    assert not is_sound
    assert "nlq_val_v2.json are the same file" in of(findings, "annotations, val", "error")[0]


def test_splits_that_share_clips_are_noticed(data):
    shutil.copy(data / "nlq_train.json", data / "nlq_val.json")
    findings, _, _ = look(data)
    assert of(findings, "train and val", "error")[0].startswith("share 6 clips (")


def test_shares_of_wrong_labels_are_counted(tmp_path):
    queries = [("#c c a?", 10.0, 12.0), ("#c c b?", 20.05, 20.2), ("#c c c?", 30.0, 30.3)]
    clip = prepared_clip(*queries, ("where?", 0.0, 5.0))
    folder = tmp_path / "dataset/nlq_official_v1"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps({"clip": clip}))
    _, narrations, queries = of(look(tmp_path, "--units", 128)[0], "nlq_official_v1, train", "ok")
    shares = "0.00 % from exact times, {0} % from published ones; ReLER leaves out {0} %"
    assert "labels of 3 narrations" in narrations and shares.format("66.67") in narrations
    assert "labels of 1 queries" in queries and shares.format("0.00") in queries


@pytest.mark.parametrize(
    ("change_rows", "words"),
    [
        (lambda rows: rows.masked_fill(torch.arange(len(rows))[:, None] == 3, torch.nan), "NaN or"),
        (lambda rows: rows[: len(rows) // 2].clone(), "rows of 1 of 18 clips do not fit"),
        (lambda rows: rows.repeat(2, 1), "rows of 1 of 18 clips do not fit"),
    ],
)
def test_each_fault_of_features_has_its_line(data, change_rows, words):
    clips = json.loads((data / "dataset/nlq_official_v1/val.json").read_text())
    file = data / "features/egovlp" / f"{next(iter(clips))}.pt"
    file.with_name("feature_shapes.json").unlink()
    torch.save(change_rows(torch.load(file)), file)
    verdict = "error" if "NaN" in words else "warning"
    findings, _, is_sound = look(data, "--thorough")
    assert words in of(findings, "features egovlp", verdict)[0]
    assert is_sound is (verdict == "warning")


def test_features_of_another_width_than_published_are_noticed(data):
    folder = data / "features/egovlp"
    for file in folder.glob("*.pt"):
        torch.save(torch.from_numpy(np.ones((8, 20), np.float32)), file)
    (folder / "feature_shapes.json").unlink()
    (folder / "feature_card.json").unlink()
    width, rows = of(look(data)[0], "features egovlp", "warning")
    assert "are 20 wide, the published ones 256" in width and "do not fit" in rows


def test_a_disk_without_room_is_noticed(data, monkeypatch):
    usage = shutil.disk_usage(data)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    assert "1.0 kB free" in of(look(data)[0], "disk", "error")[0]
