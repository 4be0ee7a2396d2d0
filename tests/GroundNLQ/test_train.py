"""Training runs: what they leave, how they continue; tuning, prediction and search with them."""

import dataclasses
import shutil

import pytest
import torch

from GroundNLQ.infer import infer
from GroundNLQ.options import Options
from GroundNLQ.train import Recipe, train
from GroundNLQ.weights import load_trained
from utils.base.errors import UserError
from utils.evaluation.predictions import read_predictions
from utils.search.trained_runs import predict_run
from utils.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))


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
