"""Training runs: what they leave, how they continue; tuning, prediction and search with them."""

import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from GroundNLQ.data import open_split
from GroundNLQ.infer import infer
from GroundNLQ.options import Options
from GroundNLQ.points import padded_rows
from GroundNLQ.train import Recipe, train
from GroundNLQ.weights import load_trained
from tests.simulated import succeed
from utils.base.errors import UserError
from utils.evaluation.predictions import read_predictions
from utils.search.search import load_run
from utils.search.trained_runs import predict_run
from utils.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))
ASK = ["Where was the plate?", "Who was there?"]


@pytest.fixture(scope="module")
def settings(simulated, tmp_path_factory):
    """Options of a short training with drop-path and jitter."""
    return Options(
        task="nlq_aug_naq_official_v1", fv="egovlp", data_root=str(simulated), dim=16, num_heads=2,
        arch=[1, 1, 1, 0, 2], text_encoder="minilm", epochs=2, warmup_epochs=0.5, batch_size=40,
        optimizer="muon", nms_threshold=0.3,
        nar_exp_factor=10.0, nar_translate=True, cache_dir=str(tmp_path_factory.mktemp("cache")),
        results_root=str(tmp_path_factory.mktemp("runs")), exp_id="whole", tb_log_freq=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(settings):
    """The folder of a run that nobody stopped."""
    train(settings)
    return settings.run_folder


def last(folder):
    return max(folder.glob("*.t7"), key=lambda file: file.stat().st_mtime)


def state(folder):
    return torch.load(folder / "state.pt", weights_only=True)


def test_a_run_leaves_the_published_checkpoint(whole):
    names = {file.name for file in whole.iterdir()}
    assert {"options.json", "text.json", "metrics.jsonl", "eval_results.txt", "state.pt"} <= names
    content = torch.load(last(whole), weights_only=True)
    assert {*content} == {"epoch", "state_dict", "state_dict_ema", "optimizer", "options"}
    weights, average = content["state_dict"], content["state_dict_ema"]
    assert weights.keys() == average.keys()
    assert any(not torch.equal(weights[name], average[name]) for name in weights)
    assert state(whole)["model"]["normaliser"] != 200


def test_a_stopped_run_continues_to_the_same_end(whole, settings, monkeypatch):
    settings = dataclasses.replace(settings, exp_id="stopped")
    gathered = Recipe.batch

    def batch(self, share, plan):
        if plan.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return gathered(self, share, plan)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Recipe, "batch", batch)
        train(settings)
    assert state(settings.run_folder)["step"] == 4
    train(settings)
    one, other = state(whole), state(settings.run_folder)
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert one["history"] == other["history"]


@pytest.mark.slow
def test_two_processes_train_as_one(settings, tmp_path):
    given = [
        "--dim", 16, "--num_heads", 2, "--arch", 1, 1, 1, 0, 2, "--text_encoder", "minilm",
        "--epochs", 1, "--warmup_epochs", 0.3, "--batch_size", 40, "--drop_path", 0,
        "--data_root", settings.data_root, "--cache_dir", settings.cache_dir,
    ]  # fmt: skip
    runs = []
    for devices in ("cpu", "cpu,cpu"):
        folder = tmp_path / devices
        script = "GroundNLQ/scripts/train_naq.sh"
        succeed(script, devices, "nlq", "egovlp", folder, 10, *given)
        runs.append(state(folder / "groundnlq-nlq_aug_naq_official_v1_egovlp")["model"])
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-3, atol=1e-5)


def test_fine_tuning_takes_all_weights_or_begins_with_new_heads(whole, settings):
    weights = torch.load(last(whole), weights_only=True)["state_dict"]
    for new_heads in (False, True):
        options = dataclasses.replace(settings, init_from=str(whole), new_heads=new_heads)
        model = Recipe(options, ALONE).model
        for name, value in model.model.state_dict().items():
            assert torch.equal(value, model.average.state_dict()[name])
            if "norm" not in name and "bias" not in name and "scale" not in name:
                assert torch.equal(value, weights[name]) != (new_heads and "head" in name), name
        assert model.normaliser == 200


def test_a_run_predicts_with_its_own_options(whole, settings, tmp_path):
    file = predict_run(whole, "val")
    assert all(len(prediction.windows) == 5 for prediction in read_predictions(file))
    # Its checkpoint holds them, wherever it is copied to.
    copied = load_trained(shutil.copy(last(whole), tmp_path / "best.t7"), ALONE.device)
    assert copied.options == load_trained(last(whole), ALONE.device).options
    assert (copied.options.row_frames, copied.options.text_encoder) == (16, "minilm")
    averaged = load_trained(last(whole), ALONE.device, use_average=True)
    expected = torch.load(last(whole), weights_only=True)["state_dict_ema"]
    state = averaged.model.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    options = dataclasses.replace(settings, mode="val", fv="clip")
    with pytest.raises(UserError, match=r"\(512, 384\) wide, but .* trained on \(256, 384\)"):
        infer(whole, **vars(options))


def test_search_reads_clips_as_inference_does(whole, simulated, tmp_path):
    searcher = load_run(whole).model
    assert searcher.features == ("egovlp",) and searcher.width == 256
    options, model, encoder = load_trained(last(whole), ALONE.device)
    split = open_split(options, "val", encoder, ALONE.device, tolerant=False)
    clip = int(split.records.clip[0])
    rows = int(split.clip_rows[clip])
    file = simulated / "features" / "egovlp" / f"{split.records.clip_uids[clip]}.pt"
    features = torch.from_numpy(searcher.join([torch.load(file).float().numpy()]))
    padded = int(padded_rows(np.array(rows), options.levels))
    with torch.inference_mode():
        encoded = searcher.encode(features[None])
        expected = model.encode_video(*split.video(np.array([clip]), padded, ALONE.device))
        spans, scores = searcher.ask(encoded, searcher.read(ASK), 1, 7)
    torch.testing.assert_close(encoded, expected[:, :rows], rtol=0, atol=1e-4)
    assert spans.shape == (1, 7, 2) and (scores.diff() <= 0).all()
    assert (spans[..., 0] >= 0).all() and (spans[..., 1] <= rows - 1).all()
