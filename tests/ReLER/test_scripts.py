"""ReLER's entry points run as a user runs them, on a small simulated data set."""

import argparse

import pytest

from tests.simulated import refuse, succeed
from utils.base.tensor_files import load_safely


@pytest.mark.slow
def test_published_commands_work_as_they_stand(simulated, tmp_path):
    """Those that the published scripts run, on less and with a small model."""
    (tmp_path / "data").symlink_to(simulated)
    data = (
        "--v_feat_dirs", "./data/features/egovlp", "./data/features/clip", "--v_feat_dim", "768",
        "--vsldataset_task", "nlq_official_v1", "--vsldataset_fv", "egovlp",
        "--vslnet_datapath", "./data/",
    )  # fmt: skip
    command = (
        "ReLER/main.py", *data, "--text_encoder", "minilm",
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
    )  # fmt: skip
    succeed(*command, folder=tmp_path)
    (file,) = tmp_path.glob("out/video_tef-vlen600_egovlp/model_*.t7")
    content = load_safely(file, allow=(argparse.Namespace,))
    assert content["opt"].hidden_dim == 16 and content["opt"].v_feat_dim == 256 + 512 + 2
    assert {"step_size", "gamma", "last_epoch", "base_lrs"} <= set(content["lr_scheduler"])
    assert content["optimizer"]["param_groups"][0]["weight_decay"] == 1e-4
    said = succeed(
        "ReLER/main.py", *data, "--resume", file, "--split", "val",
        "--testing_gt_json", "data/nlq_val.json", "--eval_results_dir", "elsewhere",
        folder=tmp_path,
    )  # fmt: skip
    assert "queries evaluated" in said
    assert list((tmp_path / "elsewhere" / "preds").glob("*_val_preds.json"))

    resume = (*command, "--results_root", "more", "--resume", file, "--resume_all")
    assert "leaves nothing to do" in refuse(*resume, folder=tmp_path)
    succeed(*resume, "--n_epoch", "2", folder=tmp_path)
    (last,) = tmp_path.glob("more/video_tef-vlen600_egovlp/model_*.t7")
    assert load_safely(last, allow=(argparse.Namespace,))["epoch"] == 1
