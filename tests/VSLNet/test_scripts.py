"""VSLNet's entry points run as a user runs them, on a small simulated data set."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.bad_inputs import world
from tests.simulated import ROOT, succeed

pytestmark = pytest.mark.slow

TINY = (
    "--text_encoder", "minilm", "--dim", "16", "--num_heads", "2",
    "--epochs", "1", "--batch_size", "32",
)  # fmt: skip
SCRIPTS = "VSLNet/scripts"


def run_folder(folder, dataset="nlq_official_v1", units=128):
    return folder / "checkpoints" / f"vslnet_{dataset}_egovlp_{units}_bert" / "model"


@pytest.fixture(scope="module")
def joint(quickstart):
    """The stage-1 run of the dry quickstart."""
    return quickstart / "vslnet" / "seed1" / "joint"


def test_a_run_leaves_the_published_files_and_says_how_it_was_made(joint, quickstart):
    model = run_folder(joint, "nlq_aug_naq_official_v1", 64)
    names = {file.name for file in model.iterdir()}
    assert {"configs.json", "eval_results.txt", "state.pt", "metrics.jsonl"} <= names
    checkpoints = [name for name in names if name.endswith(".t7")]
    assert 1 <= len(checkpoints) <= 3
    assert any(name.endswith("_preds.json") for name in names)
    state = torch.load(model / checkpoints[0], weights_only=True)
    assert state["video_affine.linear.conv1d.weight"].shape == (64, 256, 1)
    assert "Rank@1" in (model / "eval_results.txt").read_text()
    (made,) = json.loads((model / "made.json").read_text())
    assert "--nar_exp_factor 2.5" in made["command"]
    train = quickstart / "data/dataset/nlq_aug_naq_official_v1/train.json"
    assert str(train) in made["inputs"]
    board = EventAccumulator(str(joint / "tb_logs/nlq_aug_naq_official_v1_egovlp")).Reload()
    assert board.Tags()["images"] == ["val/windows (green: true)"]
    assert "options/text_summary" in board.Tags()["tensors"]


def test_live_text_is_trained_on_v2_from_another_folder_with_naq_root(simulated, tmp_path):
    (tmp_path / "home" / "data").parent.mkdir()
    (tmp_path / "home" / "data").symlink_to(simulated)
    script = ROOT / SCRIPTS / "train_scratch_nlq.sh"
    succeed(
        "bash", script, "cpu", "nlq_v2", "clip", "out", "0.001", *TINY, "--text_features", "live",
        folder=tmp_path, NAQ_ROOT=str(tmp_path / "home"),
    )  # fmt: skip
    model = tmp_path / "out" / "checkpoints" / "vslnet_nlq_official_v2_clip_128_bert" / "model"
    assert list(model.glob("vslnet_*.t7"))


def test_epochs_of_one_batch_are_trained_few_shot_in_mixed_precision(simulated, tmp_path):
    clips = tmp_path / "clips.txt"
    clips.write_text("")
    printed = succeed(
        f"{SCRIPTS}/train_naq.sh", "cpu", "nlq", "egovlp", tmp_path, "2.5",
        "--data_root", simulated, *TINY[:-1], "100000", "--amp", "bf16",
        "--zeroshot_subsample_clips", clips, "--label_times", "published",
        "--nms_threshold", "0.5", "--suffix", "zero",
    )  # fmt: skip
    assert "queries evaluated" in printed
    name = "vslnet_nlq_aug_naq_official_v1_egovlp_128_bert_zero"
    assert list((tmp_path / "checkpoints" / name / "model").glob("vslnet_1.t7"))


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(data):
    """On two clips, with one shape of a batch: most of the time goes into compiling."""
    words = world.COMMANDS["VSLNet/main.py train"].replace("DATA", str(data)).split()
    words += ["--epochs", "4", "--drop_rate", "0", "--batch_size", "4"]
    weights = []
    for suffix, extra in (("plain", ()), ("compiled", ("--compile",))):
        done = succeed("VSLNet/main.py", *words, "--suffix", suffix, *extra)
        assert "recompile_limit" not in done
        state = torch.load(next(data.rglob(f"*_{suffix}/model/state.pt")), weights_only=True)
        weights.append(state["model"])
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)
