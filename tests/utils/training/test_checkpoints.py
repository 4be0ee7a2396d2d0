"""Checkpoints: nothing from a file is executed, and what does not fit is named."""

import argparse
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.bad_inputs.world import GROUNDNLQ_RUN, RELER_RUN, VSLNET_RUN, checkpoint
from utils.base.errors import UserError
from utils.base.tensor_files import load_safely, save_atomically
from utils.training.checkpoints import find_checkpoint, fit_state, step_of


def test_namespace_needs_to_be_allowed(tmp_path):
    options = argparse.Namespace(lr=0.1, device=torch.device("cuda:0"))
    torch.save({"opt": options, "x": torch.ones(2)}, tmp_path / "a.t7")
    with pytest.raises(UserError, match=r"argparse\.Namespace"):
        load_safely(tmp_path / "a.t7")
    assert load_safely(tmp_path / "a.t7", allow=(argparse.Namespace,))["opt"] == options


@pytest.mark.parametrize("content", [b"hi", b"<!DOCTYPE html>", b"garbage", b"x"])
def test_files_of_no_tensors_are_named(tmp_path, content):
    """Whatever their first byte means to the parser, or if it means nothing."""
    (tmp_path / "features.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"features.pt: (not a file of tensors|damaged)") as refusal:
        load_safely(tmp_path / "features.pt")
    assert not re.search(r"\(\d+\)", str(refusal.value))  # a parser's number says nothing


def test_the_last_checkpoint_is_found(tmp_path):
    for name in ("vslnet_20.t7", "vslnet_100.t7", "vslnet_9.t7"):
        save_atomically({}, tmp_path / "run" / "model" / name)
    last = tmp_path / "run" / "model" / "vslnet_100.t7"
    assert find_checkpoint(tmp_path / "run" / "model") == last
    assert find_checkpoint(tmp_path / "run") == last
    assert find_checkpoint(tmp_path) == last
    assert find_checkpoint(last) == last
    assert step_of(last) == 100
    assert step_of(Path("vslnet.t7")) == -1
    save_atomically({}, tmp_path / "other" / "model" / "vslnet_1.t7")
    with pytest.raises(UserError, match="several runs"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has a run been trained"):
        find_checkpoint(tmp_path / "empty")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (nn.Linear(4, 2).state_dict(), r"weight is \(2, 4\), this model has \(2, 3\)"),
        ({"weight": torch.zeros(2, 3)}, "bias missing"),
        ({**nn.Linear(3, 2).state_dict(), "extra": torch.zeros(1)}, "extra unknown"),
        ({"weight": torch.zeros(2, 3), "bias": torch.tensor([0, torch.nan])}, "bias holds NaN"),
        ([1, 2], "not a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_named(state, words):
    with pytest.raises(UserError, match=words):
        fit_state(nn.Linear(3, 2), state, "a.t7")


@pytest.mark.parametrize(
    ("run", "names", "keys"),
    [
        (VSLNET_RUN, {"configs.json"}, {"video_affine.linear.conv1d.weight"}),
        (
            RELER_RUN,
            {"opt.json", "train.log.txt", "tensorboard_log", "0_preds.json"},
            {"model", "optimizer", "lr_scheduler", "epoch", "opt"},
        ),
        (
            GROUNDNLQ_RUN,
            {"options.json", "text.json"},
            {"epoch", "state_dict", "state_dict_ema", "optimizer", "options"},
        ),
    ],
)
def test_runs_leave_the_published_files(small_root, run, names, keys):
    files = {file.name for file in (small_root / run).iterdir()}
    assert names | {"eval_results.txt", "state.pt", "metrics.jsonl", "made.json"} <= files
    content = load_safely(checkpoint(small_root / run), allow=(argparse.Namespace,))
    assert keys == set(content) if "epoch" in keys else keys < set(content)
