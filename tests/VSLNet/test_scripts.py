"""VSLNet's entry points run as a user runs them, on a small simulated data set."""

import json
import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.simulated import ROOT, refuse, run, succeed
from utils.evaluation.predictions import read_predictions, read_scores

TINY = (
    "--text_encoder", "minilm", "--dim", "16", "--num_heads", "2",
    "--epochs", "1", "--batch_size", "32",
)  # fmt: skip
SCRIPTS = "VSLNet/scripts"


@pytest.fixture(scope="module")
def joint(simulated, tmp_path_factory):
    """A stage-1 run."""
    folder = tmp_path_factory.mktemp("joint")
    said = succeed(
        f"{SCRIPTS}/train_naq.sh", "cpu", "nlq", "egovlp", folder, "2.5",
        "--data_root", simulated, *TINY,
    )  # fmt: skip
    return folder, said


def run_folder(folder, dataset="nlq_official_v1", units=128):
    return folder / "checkpoints" / f"vslnet_{dataset}_egovlp_{units}_bert" / "model"


def check_challenge_file(file, annotations):
    content = json.loads(file.read_text())
    assert content["version"] == "1.0"
    assert content["challenge"] == "ego4d_nlq_challenge"
    asked = {
        (clip["clip_uid"], annotation["annotation_uid"], index)
        for video in json.loads(annotations.read_text())["videos"]
        for clip in video["clips"]
        for annotation in clip["annotations"]
        for index, query in enumerate(annotation.get("language_queries", []))
        if query.get("query")
    }
    answered = {(r["clip_uid"], r["annotation_uid"], r["query_idx"]) for r in content["results"]}
    assert answered == asked
    for result in content["results"]:
        assert len(result["predicted_times"]) == 5
        assert all(0 <= start < end for start, end in result["predicted_times"])


def test_stage_1_leaves_the_published_files(joint):
    folder, said = joint
    model = run_folder(folder, "nlq_aug_naq_official_v1")
    names = {file.name for file in model.iterdir()}
    assert {"configs.json", "eval_results.txt", "state.pt", "metrics.jsonl"} <= names
    checkpoints = [name for name in names if name.endswith(".t7")]
    assert 1 <= len(checkpoints) <= 3
    assert any(name.endswith("_preds.json") for name in names)
    state = torch.load(model / checkpoints[0], weights_only=True)
    assert state["video_affine.linear.conv1d.weight"].shape == (16, 256, 1)
    assert "Rank@1" in said and "queries evaluated" in said
    assert list(folder.glob("tb_logs/nlq_aug_naq_official_v1_egovlp/events*"))


def test_a_run_says_how_it_was_made_and_shows_windows(joint, simulated):
    folder, _ = joint
    model = run_folder(folder, "nlq_aug_naq_official_v1")
    (made,) = json.loads((model / "made.json").read_text())
    assert "--nar_exp_factor 2.5" in made["command"]
    assert str(simulated / "dataset/nlq_aug_naq_official_v1/train.json") in made["inputs"]
    board = EventAccumulator(str(folder / "tb_logs/nlq_aug_naq_official_v1_egovlp")).Reload()
    assert board.Tags()["images"] == ["val/windows (green: true)"]
    assert "options/text_summary" in board.Tags()["tensors"]


def test_finetune_then_infer_val_and_test(joint, simulated, tmp_path):
    succeed(
        f"{SCRIPTS}/finetune.sh", "cpu", "nlq", "egovlp", tmp_path, "0.0002", joint[0],
        "--data_root", simulated, *TINY,
    )  # fmt: skip
    said = succeed(
        f"{SCRIPTS}/infer.sh", "cpu", "nlq", "val", "egovlp", tmp_path, "--data_root", simulated
    )
    assert "Rank@1" in said and "queries evaluated" in said
    said = succeed(
        f"{SCRIPTS}/infer.sh", "cpu", "nlq", "test", "egovlp", tmp_path, "--data_root", simulated
    )
    assert "no times" in said
    (result,) = run_folder(tmp_path).glob("*_test_result.json")
    check_challenge_file(result, simulated / "nlq_test_unannotated.json")
    (val,) = run_folder(tmp_path).glob("*_val_result.json")
    scored = succeed(
        "utils/evaluate_ego4d_nlq.py",
        "--ground_truth_json", simulated / "nlq_val.json",
        "--model_prediction_json", val,
        "--thresholds", "0.3", "0.5", "--topK", "1", "3", "5",
    )  # fmt: skip
    assert "Rank@5" in scored
    for file in (result, val):
        scores = np.array(read_scores(file, read_predictions(file)))
        assert scores.shape[1] == 5 and (np.diff(scores) <= 0).all() and (scores[:, 0] > 0).all()


def test_predictions_go_where_they_are_told_and_logs_are_not_lost(joint, simulated, tmp_path):
    log, output = tmp_path / "job.log", tmp_path / "out" / "windows.json"
    log.write_text("earlier lines\n")
    script = ROOT / SCRIPTS / "infer.sh"
    command = f"{script} cpu nlq test egovlp {joint[0]} --data_root {simulated} --output {output}"
    succeed("bash", "-c", f"bash {command} >> {log} 2>&1")
    said = log.read_text()
    assert said.startswith("earlier lines\n") and f"{output}: acceptable" in said
    check_challenge_file(output, simulated / "nlq_test_unannotated.json")


def test_scratch_on_v2_from_another_folder_with_naq_root(simulated, tmp_path):
    (tmp_path / "home" / "data").parent.mkdir()
    (tmp_path / "home" / "data").symlink_to(simulated)
    script = ROOT / SCRIPTS / "train_scratch_nlq.sh"
    succeed(
        "bash", script, "cpu", "nlq_v2", "clip", "out", "0.001", *TINY,
        folder=tmp_path, NAQ_ROOT=str(tmp_path / "home"),
    )  # fmt: skip
    model = tmp_path / "out" / "checkpoints" / "vslnet_nlq_official_v2_clip_128_bert" / "model"
    assert list(model.glob("vslnet_*.t7"))


def test_two_processes(simulated, tmp_path):
    succeed(
        f"{SCRIPTS}/train_scratch_nlq.sh", "cpu,cpu", "nlq", "egovlp", tmp_path, "0.001",
        "--data_root", simulated, *TINY,
    )  # fmt: skip
    said = succeed(
        f"{SCRIPTS}/infer.sh", "cpu,cpu", "nlq", "test", "egovlp", tmp_path,
        "--data_root", simulated,
    )  # fmt: skip
    assert "test_result.json" in said
    (result,) = run_folder(tmp_path).glob("*_test_result.json")
    check_challenge_file(result, simulated / "nlq_test_unannotated.json")
    one = json.loads(result.read_text())
    succeed(f"{SCRIPTS}/infer.sh", "cpu", "nlq", "test", "egovlp", tmp_path,
            "--data_root", simulated)  # fmt: skip
    for alone, shared in zip(
        json.loads(result.read_text())["results"], one["results"], strict=True
    ):
        assert alone["query_idx"] == shared["query_idx"]
        assert alone["predicted_times"] == [
            pytest.approx(window) for window in shared["predicted_times"]
        ]


def test_one_batch_epochs_few_shot_and_mixed_precision(simulated, tmp_path):
    clips = tmp_path / "clips.txt"
    clips.write_text("")
    said = succeed(
        f"{SCRIPTS}/train_naq.sh", "cpu", "nlq", "egovlp", tmp_path, "2.5",
        "--data_root", simulated, *TINY[:-1], "100000", "--amp", "bf16",
        "--zeroshot_subsample_clips", clips, "--label_times", "published",
        "--nms_threshold", "0.5", "--suffix", "zero",
    )  # fmt: skip
    assert "queries evaluated" in said
    name = "vslnet_nlq_aug_naq_official_v1_egovlp_128_bert_zero"
    assert list((tmp_path / "checkpoints" / name / "model").glob("vslnet_1.t7"))


def test_live_text(simulated, tmp_path):
    succeed(
        f"{SCRIPTS}/train_scratch_nlq.sh", "cpu", "nlq", "egovlp", tmp_path, "0.001",
        "--data_root", simulated, *TINY, "--text_features", "live",
    )  # fmt: skip
    assert list(run_folder(tmp_path).glob("vslnet_*.t7"))


def test_tacos(simulated, tmp_path):
    """The TACoS task: real names and schema, features simulated for its annotations."""
    source = tmp_path / "tacos"
    source.mkdir()
    for split, video in (("train", "s1"), ("val", "s2"), ("test", "s3")):
        content = {
            f"{video}-d{day}.avi": {
                "timestamps": [[30 * k, 30 * k + 90] for k in range(1, 12)],
                "sentences": [f"He took out the {word}" for word in ["pan", "egg", "cup"] * 4][:11],
                "fps": 29.4,
                "num_frames": 3000,
            }
            for day in (1, 2)
        }
        (source / f"{split}.json").write_text(json.dumps(content))
    data = tmp_path / "data"
    succeed("utils/convert_tacos.py", "--input_dir", source, "--data_root", data)
    files = [data / f"tacos_{split}.json" for split in ("train", "val", "test")]
    succeed(
        "utils/simulate_dataset.py", "--data_root", data, "--features", "egovlp",
        "--annotations", *files,
    )  # fmt: skip
    for name in ("vq_train.json", "nlq_train.json", "moments_train.json", "egoclip.csv"):
        shutil.copy(simulated / name, data)
    succeed("utils/create_naq_dataset.py", "--type", "tacos", "--em_version", "v1",
            "--data_root", data)  # fmt: skip
    assert (data / "tacos_aug_naq_train.json").is_file()
    succeed(
        "utils/prepare_ego4d_dataset.py",
        "--input_train_split", files[0], "--input_val_split", files[1],
        "--input_test_split", files[2],
        "--output_save_path", data / "dataset" / "tacos_official_v1",
    )  # fmt: skip
    succeed(
        f"{SCRIPTS}/train_scratch_nlq.sh", "cpu", "tacos", "egovlp", tmp_path, "0.001",
        "--data_root", data, *TINY,
    )  # fmt: skip
    said = succeed(
        f"{SCRIPTS}/infer.sh", "cpu", "tacos", "test", "egovlp", tmp_path, "--data_root", data
    )
    assert "Rank@1" in said  # its test split has times
    assert list(run_folder(tmp_path, "tacos_official_v1", 512).glob("*_test_result.json"))


class TestWrongUse:
    """One clear line, exit code 2."""

    def scratch(self, data, folder, *options, task="nlq", feature="egovlp"):
        return refuse(
            f"{SCRIPTS}/train_scratch_nlq.sh", "cpu", task, feature, folder, "0.001",
            "--data_root", data, *TINY, *options,
        )  # fmt: skip

    def test_arguments(self, simulated, tmp_path):
        assert "unknown task 'ego5d'" in self.scratch(simulated, tmp_path, task="ego5d")
        assert "features" in self.scratch(simulated, tmp_path, feature="nothing")
        assert "--bogus" in self.scratch(simulated, tmp_path, "--bogus", "1")
        assert "multiple of --num_heads" in self.scratch(simulated, tmp_path, "--num_heads", "3")
        assert "EXPT_ROOT is missing" in refuse(f"{SCRIPTS}/finetune.sh", "cpu", "nlq", "egovlp")
        assert "DEVICES" in refuse(f"{SCRIPTS}/infer.sh", "gpu", "nlq", "val", "egovlp", tmp_path)
        assert "SPLIT" in refuse(f"{SCRIPTS}/infer.sh", "cpu", "nlq", "dev", "egovlp", tmp_path)

    def test_width_that_contradicts_the_features(self, simulated, tmp_path):
        assert "256" in self.scratch(simulated, tmp_path, "--video_feature_dim", "2304")

    def test_missing_data(self, tmp_path):
        assert "prepare_ego4d_dataset" in self.scratch(tmp_path / "nowhere", tmp_path)

    def test_checkpoint_of_another_width(self, joint, simulated, tmp_path):
        line = refuse(
            f"{SCRIPTS}/finetune.sh", "cpu", "nlq", "clip", tmp_path, "0.001", joint[0],
            "--data_root", simulated, *TINY,
        )  # fmt: skip
        assert "video_affine.linear.conv1d.weight is (16, 256, 1)" in line
        line = refuse(
            f"{SCRIPTS}/finetune.sh", "cpu", "nlq", "egovlp", tmp_path, "0.001", tmp_path / "none",
            "--data_root", simulated, *TINY,
        )  # fmt: skip
        assert "no such checkpoint" in line

    def test_inference_without_a_run(self, simulated, tmp_path):
        line = refuse(
            f"{SCRIPTS}/infer.sh", "cpu", "nlq", "val", "egovlp", tmp_path,
            "--data_root", simulated,
        )  # fmt: skip
        assert "no such checkpoint" in line or "no checkpoint" in line

    def test_clip_without_features(self, joint, simulated, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(simulated, data, ignore=shutil.ignore_patterns("cache"))
        clips = json.loads((data / "dataset/nlq_official_v1/train.json").read_text())
        gone = sorted(clips)[0]
        (data / "features/egovlp" / f"{gone}.pt").unlink()
        shapes = json.loads((data / "features/egovlp/feature_shapes.json").read_text())
        (data / "features/egovlp/feature_shapes.json").write_text(
            json.dumps({k: v for k, v in shapes.items() if k != gone})
        )
        done = run(
            f"{SCRIPTS}/train_scratch_nlq.sh", "cpu", "nlq", "egovlp", tmp_path, "0.001",
            "--data_root", data, *TINY,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "warning: train: 1 clips with" in done.stderr and gone in done.stderr
        lost = sorted(json.loads((data / "dataset/nlq_official_v1/test.json").read_text()))[0]
        (data / "features/egovlp" / f"{lost}.pt").unlink()
        (data / "features/egovlp/feature_shapes.json").unlink()
        infer = (f"{SCRIPTS}/infer.sh", "cpu", "nlq", "test", "egovlp", tmp_path,
                 "--data_root", data)  # fmt: skip
        line = refuse(*infer)
        assert lost in line and "--allow_missing" in line
        succeed(*infer, "--allow_missing")

    def test_bad_features(self, simulated, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(simulated, data, ignore=shutil.ignore_patterns("cache"))
        clips = json.loads((data / "dataset/nlq_official_v1/train.json").read_text())
        uid = list(clips)[-1]  # the others say what it should be like
        file = data / "features/egovlp" / f"{uid}.pt"
        whole = torch.load(file, weights_only=True)
        broken = whole.clone()
        broken[3, 5] = torch.nan
        for content, word in (
            (broken, "NaN"),
            (whole[:, :100].clone(), "100"),
            (whole[:0].clone(), "empty"),
            ({"x": whole}, "tensor"),
        ):
            torch.save(content, file)
            line = self.scratch(data, tmp_path)
            assert uid in line and word in line, line
        file.write_bytes(b"torn")
        assert uid in self.scratch(data, tmp_path)

    def test_malformed_prepared_split(self, simulated, tmp_path):
        data = tmp_path / "data"
        (data / "dataset/nlq_official_v1").mkdir(parents=True)
        (data / "features").symlink_to(simulated / "features")
        train = data / "dataset/nlq_official_v1/train.json"
        train.write_text('{"clip": ')
        assert "not valid JSON" in self.scratch(data, tmp_path)
        train.write_text('{"clip": {"fps": 1.875}}')
        assert "clip" in self.scratch(data, tmp_path)
        train.write_text("{}")
        assert "no queries" in self.scratch(data, tmp_path)


@pytest.mark.long
def test_a_compiled_model_learns_the_same(simulated, tmp_path):
    """Compiled, batches have one shape, so nothing is compiled twice but the epoch's last one."""
    losses = []
    for extra in ((), ("--compile",)):
        folder = tmp_path / f"run{len(extra)}"
        said = succeed(
            f"{SCRIPTS}/train_scratch_nlq.sh", "cpu", "nlq", "egovlp", folder, "0.001",
            "--data_root", simulated, *TINY, "--drop_rate", "0", "--tb_log_freq", "1",
            "--max_pos_len", "32", "--batch_size", "4", *extra,
        )  # fmt: skip
        assert "recompile_limit" not in said
        (log,) = folder.rglob("events.out.tfevents.*")
        events = EventAccumulator(str(log)).Reload().Scalars("train/total")
        losses.append([event.value for event in events])
    assert len(losses[0]) > 1
    # Padding reaches a little into what convolutions see.
    np.testing.assert_allclose(*losses, rtol=0.05)
