"""ReLER's entry points run as a user runs them, on a small simulated data set."""

import argparse
import json
import re

import numpy as np
import pytest

from tests.simulated import refuse, succeed
from utils.base.tensor_files import load_safely
from utils.evaluation.predictions import read_predictions, read_scores

pytestmark = pytest.mark.slow

TINY = (
    "--text_encoder", "minilm", "--hidden_dim", "16", "--bi_num_attention_heads", "2",
    "--v_intermediate_size", "32", "--intermediate_size", "32", "--max_v_l", "60",
    "--conditioned_span_pred_num_heads", "2", "--epochs", "1", "--batch_size", "32",
)  # fmt: skip
SCRIPTS = "ReLER/scripts"


def run_folder(folder, task="nlq_official_v1"):
    return folder / f"video_tef-{task}_egovlp"


@pytest.fixture(scope="module")
def joint(simulated, tmp_path_factory):
    """A stage-1 run."""
    folder = tmp_path_factory.mktemp("joint")
    said = succeed(
        f"{SCRIPTS}/train_naq.sh", "cpu", "nlq", "egovlp", folder, "2.5",
        "--data_root", simulated, *TINY,
    )  # fmt: skip
    return run_folder(folder, "nlq_aug_naq_official_v1"), said


def checkpoint(folder):
    return max(folder.glob("model_*.t7"))


def load(file):
    return load_safely(file, allow=(argparse.Namespace,))


def test_stage_1_leaves_the_published_files(joint):
    folder, said = joint
    names = {file.name for file in folder.iterdir()}
    assert {"opt.json", "train.log.txt", "eval_results.txt", "tensorboard_log"} <= names
    assert "0_preds.json" in names
    assert "Rank@1" in said and "queries evaluated" in said
    content = load(checkpoint(folder))
    assert set(content) == {"model", "optimizer", "lr_scheduler", "epoch", "opt"}
    assert content["epoch"] == 0
    assert content["opt"].hidden_dim == 16 and content["opt"].v_feat_dim == 256 + 512 + 2
    assert {"step_size", "gamma", "last_epoch", "base_lrs"} <= set(content["lr_scheduler"])
    (group,) = content["optimizer"]["param_groups"]
    assert group["weight_decay"] == 1e-4


def test_a_fine_tuned_run_predicts_val_and_test(joint, simulated, tmp_path):
    succeed(
        f"{SCRIPTS}/finetune.sh", "cpu", "nlq_v2", "egovlp", tmp_path, "0.0001", joint[0],
        "--data_root", simulated, *TINY,
    )  # fmt: skip
    folder = run_folder(tmp_path, "nlq_official_v2")
    said = succeed(
        f"{SCRIPTS}/infer.sh", "cpu", "nlq_v2", "val", "egovlp", checkpoint(folder),
        "--data_root", simulated,
    )  # fmt: skip
    assert "Rank@1" in said and "queries evaluated" in said
    said = succeed(f"{SCRIPTS}/infer.sh", "cpu", "test", "egovlp", folder, "--data_root", simulated)
    assert "no times" in said
    step = checkpoint(folder).stem.removeprefix("model_")
    file = folder / "preds" / f"{step}_test_preds.json"
    content = json.loads(file.read_text())
    assert content["challenge"] == "ego4d_nlq_challenge"
    assert all(len(result["predicted_times"]) == 5 for result in content["results"])
    scores = np.array(read_scores(file, read_predictions(file)))
    assert scores.shape[1] == 5 and (np.diff(scores) <= 0).all() and (scores[:, 0] > 0).all()


def test_published_commands_work_as_they_stand(simulated, tmp_path):
    """Those that the published scripts run, on less and with a small model."""
    (tmp_path / "data").symlink_to(simulated)
    data = (
        "--v_feat_dirs", "./data/features/egovlp", "./data/features/clip", "--v_feat_dim", "768",
        "--vsldataset_task", "nlq_official_v1", "--vsldataset_fv", "egovlp",
        "--vslnet_datapath", "./data/",
    )  # fmt: skip
    succeed(
        "ReLER/main.py", *data, *TINY[:2],
        "--ctx_mode", "video_tef", "--numscale_list", "2", "3", "4", "5", "6",
        "--t_feat_dim", "384", "--bsz", "768", "--eval_bsz", "256", "--results_root", "out",
        "--no_pin_memory", "--num_workers", "4", "--vsldataset_num_workers", "64",
        "--vslnet_dataset_save_dir", "./saved", "--eval_gt_json", "data/nlq_val.json",
        "--no_aux_loss", "--cross_first", "--max_v_l", "60", "--lw_saliency", "1",
        "--lw_highlight", "20", "--enc_layers", "0", "--hidden_dim", "16",
        "--v_hidden_size", "16", "--bi_hidden_size", "16", "--hidden_size", "16",
        "--num_cross_encoder_layers", "3", "--dropout", "0.1", "--v_hidden_dropout_prob", "0.1",
        "--hidden_dropout_prob", "0.1", "--v_attention_probs_dropout_prob", "0.1",
        "--attention_probs_dropout_prob", "0.1", "--vslnet_thres_in_train", "0",
        "--use_sw", "1", "--sw_len_ratio", "0.4", "0.8", "--use_vs", "1", "--vs_prob", "0.5",
        "--lr", "1.5e-4", "--video_frame_contrastive_loss",
        "--video_frame_contrastive_loss_coef", "1", "--contrastive_hdim", "64",
        "--nar_rand_window_expansion_factor", "2.5", "--nar_rand_window_translate",
        "--exp_id", "vlen600_egovlp", "--n_epoch", "1",
        folder=tmp_path,
    )  # fmt: skip
    file = checkpoint(tmp_path / "out" / "video_tef-vlen600_egovlp")
    said = succeed(
        "ReLER/main.py", *data, "--resume", file, "--split", "val",
        "--testing_gt_json", "data/nlq_val.json", "--eval_results_dir", "elsewhere",
        folder=tmp_path,
    )  # fmt: skip
    assert "queries evaluated" in said
    assert list((tmp_path / "elsewhere" / "preds").glob("*_val_preds.json"))


def test_a_run_resumes_with_everything(joint, simulated, tmp_path):
    command = (
        f"{SCRIPTS}/train_naq.sh", "cpu", "nlq", "egovlp", tmp_path, "2.5",
        "--data_root", simulated, *TINY, "--resume", joint[0], "--resume_all",
    )  # fmt: skip
    assert "leaves nothing to do" in refuse(*command)
    said = succeed(*command, "--epochs", "2", "--label_times", "published")
    content = load(checkpoint(run_folder(tmp_path, "nlq_aug_naq_official_v1")))
    assert content["epoch"] == 1
    exact, truncated = (
        int(re.search(r"training on (\d+) of", words)[1]) for words in (joint[1], said)
    )
    assert truncated < 0.9 * exact  # queries that are longer than a quantum of time
