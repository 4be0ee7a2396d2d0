"""The simulated task needs both language and video: without either a model scores far lower."""

import json

import pytest

from tests.simulated import succeed
from utils.training.evaluations import best_evaluation

SMALL = (
    "--text_encoder", "minilm", "--max_pos_len", "64", "--dim", "64", "--num_heads", "2",
    "--drop_rate", "0", "--epochs", "3", "--batch_size", "32", "--init_lr", "0.004",
    "--warmup_proportion", "0.1", "--eval_period", "150",
)  # fmt: skip


def forget_text(prepared):
    """Make every sentence of a data set the same."""
    for name in ("train", "val"):
        file = prepared / f"{name}.json"
        content = json.loads(file.read_text())
        for clip in content.values():
            # Narrations stay narrations, so that their windows are jittered as before.
            clip["sentences"] = ["#?" if s.startswith("#") else "?" for s in clip["sentences"]]
        file.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.long
def test_needs_language_and_video(tmp_path):
    data = tmp_path / "data"
    succeed("utils/simulate_dataset.py", "--data_root", data, "--features", "egovlp")
    succeed("utils/create_naq_dataset.py", "--type", "nlq", "--em_version", "v1",
            "--data_root", data)  # fmt: skip
    prepared = data / "dataset" / "nlq_aug_naq_official_v1"
    succeed(
        "utils/prepare_ego4d_dataset.py", "--output_save_path", prepared,
        "--input_train_split", data / "nlq_aug_naq_train.json",
        "--input_val_split", data / "nlq_val.json",
        "--input_test_split", data / "nlq_test_unannotated.json",
    )  # fmt: skip

    def trained(name, *options):
        folder = tmp_path / name
        train = ("VSLNet/scripts/train_naq.sh", "cpu", "nlq", "egovlp", folder, "2.5")
        succeed(*train, "--data_root", data, *SMALL, *options)
        return best_evaluation(folder)["R@1 IoU=0.3"]

    whole = trained("whole")
    no_video = trained("no_video", "--video_agnostic")
    forget_text(prepared)
    no_text = trained("no_text")
    assert whole > 15
    assert no_video < whole / 3
    assert no_text < whole / 3
