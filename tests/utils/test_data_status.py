"""What is there under a data root, and the commands that get the rest."""

import re
import shlex
import shutil

import h5py
import numpy as np
import pytest
import torch

from tests.simulated import succeed
from utils.data_status import main


def status(capsys, root, task="nlq", features=("egovlp", "clip")):
    """State of each file, and the steps, as printed."""
    main(["--task", task, "--data_root", str(root), "--features", *features])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    table = {row[0]: row[2:] for row in rows if len(row) == 5}
    steps = re.split(r"^\d+\. ", printed[printed.rindex("-+") :], flags=re.MULTILINE)[1:]
    return table, [step.strip().split("\n   ") for step in steps], printed


def test_a_whole_data_root(simulated, capsys):
    for task in ("nlq", "nlq_v2"):
        table, steps, printed = status(capsys, simulated, task)
        assert not steps and "nothing is missing" in printed
        assert {row[0] for name, row in table.items() if "features" not in name} == {
            "state",
            "there",
        }
        counts = re.fullmatch(
            r"clips (\d+) of (\d+), NaQ (\d+) of (\d+)", table["features/clip"][0]
        )
        assert counts[1] == counts[2] == "14" and counts[3] == counts[4] != "0"


@pytest.mark.parametrize(("task", "ending"), [("nlq", ""), ("nlq_v2", "_v2"), ("tacos", "")])
def test_the_steps_lead_to_a_whole_data_root(simulated, tmp_path, capsys, task, ending):
    """Steps are carried out as printed; where one fetches, files are put where it would."""
    root = tmp_path / "a place"
    fetched = root / "ego4d" / ("v2" if ending else "v1") / "annotations"
    fetched.mkdir(parents=True)
    _, steps, _ = status(capsys, root, task)
    for name in ("nlq_train", "nlq_val", "nlq_test_unannotated", "vq_train", "moments_train"):
        shutil.copy(simulated / f"{name}{ending}.json", fetched / f"{name}.json")
    for step, *following in steps:
        for command in [step, *following]:
            if command.startswith("put EgoClip"):
                shutil.copy(simulated / "egoclip.csv", root)
                continue
            words = shlex.split(command, comments=True)
            if words[0] == "cp":
                shutil.copy(*words[1:])
            elif words[1] == "utils/convert_tacos.py":
                for split, source in (("train", "train"), ("val", "val"), ("test", "val")):
                    shutil.copy(simulated / f"nlq_{source}.json", root / f"tacos_{split}.json")
            elif words[1] == "utils/download_features.py":
                assert words[2:5] == ["--feature_types", "egovlp", "clip"]
                shutil.copytree(simulated / "features", root / "features")
            elif words[0] == "python":
                succeed(*words[1:])
            else:
                assert words[:2] == ["ego4d", f"--output_directory={root / 'ego4d'}"]
                assert words[2:] == [
                    "--version",
                    "v2" if ending else "v1",
                    "--datasets",
                    "annotations",
                ]
    _, steps, printed = status(capsys, root, task)
    assert not steps and "nothing is missing" in printed


def test_some_files(simulated, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(simulated, data)
    (data / "dataset/nlq_official_v1/val.json").unlink()
    (data / "nlq_val.json").unlink()
    clip = next((data / "features/egovlp").glob("*.pt"))
    clip.unlink()
    table, steps, _ = status(capsys, data)
    assert table["nlq_val.json"] == ["missing", "", "1"]
    assert table["dataset/nlq_official_v1/"][0::2] == ["2 of 3 files", "2"]
    assert re.match(
        r"clips (\d+) of (?!\1,)\d+|.*NaQ (\d+) of (?!\2$)", table["features/egovlp"][0]
    )
    assert table["features/egovlp"][2] == "3" and table["features/clip"][2] == ""
    assert [step[0].split()[1] for step in steps[1:]] == [
        "utils/prepare_ego4d_dataset.py",
        "utils/download_features.py",
    ]
    assert "--feature_types egovlp --data_root" in steps[2][0]


def test_features_of_another_world_and_packed_ones(simulated, tmp_path, capsys):
    data = tmp_path / "data"
    for name in ("nlq_train", "nlq_val", "nlq_test_unannotated"):
        (data / "features" / "egovlp").mkdir(parents=True, exist_ok=True)
        shutil.copy(simulated / f"{name}.json", data)
    torch.save(torch.zeros(3, 4), data / "features/egovlp/stranger.pt")
    uid = next((simulated / "features/clip").glob("*.pt")).stem
    with h5py.File(data / "features/clip.h5", "w") as file:
        file["rows"], file["clip_uids"], file["offsets"] = np.zeros((3, 4), "f4"), [uid], [0, 3]
    table, _, _ = status(capsys, data)
    assert table["features/egovlp"][0].startswith("clips 0 of")
    assert (
        re.match(r"clips [01] of 14, NaQ \d+ of \d+ known so far", table["features/clip"][0])
        and table["features/clip"][1]
    )


def test_clips_are_unknown_without_annotations(tmp_path, capsys):
    (tmp_path / "features" / "mine").mkdir(parents=True)
    table, _, _ = status(capsys, tmp_path, features=("mine", "other"))
    assert table["features/mine"][0] == "there; clips unknown"
    assert table["features/other"][0] == "missing"
