"""How something was made."""

import json
import sys
from pathlib import Path

import torch

from utils.training.options import TrainingOptions
from utils.training.runs import how_made, input_files


def test_says_what_went_in(tmp_path, monkeypatch):
    file = tmp_path / "train.json"
    file.write_text("{}")
    monkeypatch.setattr(sys, "argv", ["main.py", "--task", "two words"])
    made = how_made([file, tmp_path / "none.json"])
    assert made["command"].endswith("main.py --task 'two words'")
    assert made["torch"] == torch.__version__
    before = made["inputs"]
    assert list(before) == [str(file)]
    file.write_text("[]")
    assert how_made([file])["inputs"] != before
    json.dumps(made)


def test_inputs_are_data_lists_of_clips_and_the_checkpoint_begun_with(tmp_path):
    options = TrainingOptions(task="task", fv="a", data_root=str(tmp_path))
    names = ["dataset/task/train.json", "dataset/task/val.json"]
    names += [f"features/a/feature_{kind}.json" for kind in ("shapes", "card")]
    files = [tmp_path / name for name in names]
    assert input_files(options) == files
    options.zeroshot_subsample_clips, options.init_from = "few.txt", str(tmp_path)
    (tmp_path / "model_9.t7").touch()
    assert input_files(options) == [*files, Path("few.txt"), tmp_path / "model_9.t7"]
