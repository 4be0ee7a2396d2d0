"""How something was made."""

import json
import sys

import torch

from utils.training.runs import how_made


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
