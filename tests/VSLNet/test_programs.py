"""The programs called by another project, from its own folder, with data of its own."""

import json
import shutil
import sys

import pytest
import torch

from tests.simulated import ROOT, refuse, succeed
from utils.base.tensor_files import load_last_whole

ROWS_PER_SECOND = 1.875
MAIN = ROOT / "VSLNet" / "main.py"
PREPARE = ROOT / "utils" / "prepare_ego4d_dataset.py"


def annotations(clips, times=True):
    """Only the keys that matter: no frames, no split, no templates."""
    videos = []
    for number, (uid, seconds) in enumerate(clips.items()):
        queries = [
            {
                "query": f"Where is thing {k}?",
                "clip_start_sec": 3.0 * k,
                "clip_end_sec": 3.0 * k + 2,
            }
            for k in range(1, 9)
        ]
        if not times:
            queries = [{"query": query["query"]} for query in queries]
        clip = {
            "clip_uid": uid,
            "video_start_sec": 0.0,
            "video_end_sec": seconds,
            "annotations": [{"annotation_uid": f"a{uid}", "language_queries": queries}],
        }
        videos.append({"video_uid": f"v{number}", "clips": [clip]})
    return {"videos": videos}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder of another project: task `mine`, feature `homemade`, 48 wide, hour-long clips."""
    folder = tmp_path_factory.mktemp("project")
    features = folder / "data" / "features" / "homemade"
    features.mkdir(parents=True)
    splits = {
        "train": {"t1": 3600.0, "t2": 50.0, "t3": 4000.5},
        "val": {"x1": 3600.0, "x2": 60.0},
        "test": {"y1": 3600.0},
    }
    lengths = {}
    for split, clips in splits.items():
        content = annotations(clips, times=split != "test")
        (folder / f"{split}.json").write_text(json.dumps(content))
        for uid, seconds in clips.items():
            lengths[uid] = int(seconds * ROWS_PER_SECOND)
            torch.save(torch.randn(lengths[uid], 48), features / f"{uid}.pt")
    (features / "feature_shapes.json").write_text(json.dumps(lengths))
    succeed(
        sys.executable, PREPARE,
        "--input_train_split", "train.json", "--input_val_split", "val.json",
        "--input_test_split", "test.json", "--output_save_path", "data/dataset/mine",
        folder=folder,
    )  # fmt: skip
    return folder


COMMON = (
    "--task", "mine", "--predictor", "bert", "--fv", "homemade", "--video_feature_dim", "48",
    "--max_pos_len", "64", "--num_workers", "2", "--model_dir", "runs",
    "--batch_size", "8", "--init_lr", "0.001", "--text_encoder", "minilm",
)  # fmt: skip
TRAIN = (
    "--mode", "train", "--epochs", "1", "--eval_gt_json", "val.json",
    "--log_to_tensorboard", "mine", "--tb_log_dir", "boards",
    "--remove_empty_queries_from", "train", "val",
)  # fmt: skip


@pytest.mark.parametrize(
    "launcher",
    [
        (),
        ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        ("-m", "torch.distributed.launch", "--use_env", "--nproc_per_node", "2",
         "--master_port", "29713"),
    ],
    ids=["plain", "torchrun", "launch"],
)  # fmt: skip
def test_train_val_and_test_from_another_folder(project, launcher, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(project, folder)
    command = (sys.executable, *launcher, MAIN, *COMMON)
    succeed(*command, *TRAIN, folder=folder, CUDA_VISIBLE_DEVICES="")
    model = folder / "runs" / "vslnet_mine_homemade_64_bert" / "model"
    assert list(model.glob("vslnet_*.t7")) and list(folder.glob("boards/mine/events*"))
    said = succeed(*command, "--mode", "val", "--eval_gt_json", "val.json", folder=folder)
    assert "16 of 16 queries evaluated" in said
    said = succeed(*command, "--mode", "test", "--eval_gt_json", "test.json", folder=folder)
    assert "test.json holds no times: predictions only" in said
    (result,) = model.glob("*_test_result.json")
    results = json.loads(result.read_text())["results"]
    assert len(results) == 8
    assert max(end for r in results for _, end in r["predicted_times"]) <= 3600


LIMITED = """
import resource, runpy, sys
import torch, transformers, tensorboard.summary.writer.event_file_writer
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_out_of_memory_is_one_line(project, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(project, folder)
    large = ("--max_pos_len", "1000", "--dim", "1024", "--batch_size", "24")
    train = (MAIN, *COMMON, *TRAIN, *large)
    line = refuse(sys.executable, "-c", LIMITED, "1_000_000_000", *train, folder=folder)
    assert "error: the machine is out of memory (tried to allocate " in line
    assert "lower --batch_size, --max_pos_len, --dim" in line
    state = next(folder.glob("runs/*/model/state.pt"))
    assert load_last_whole(state)[0]["step"] == 0


def test_checkout_of_another_name(project, tmp_path):
    checkout = tmp_path / "their-copy"
    for package in ("VSLNet", "utils"):
        shutil.copytree(ROOT / package, checkout / package)
    said = succeed(
        sys.executable, checkout / "VSLNet" / "main.py", *COMMON, *TRAIN,
        "--model_dir", tmp_path / "runs", folder=project,
    )  # fmt: skip
    assert "queries evaluated" in said


def test_published_checkpoint_with_its_text_encoder(project, tmp_path):
    """Published checkpoints hold the encoder, and buffers that newer libraries no longer have."""
    folder = tmp_path / "work"
    shutil.copytree(project, folder)
    train = (sys.executable, MAIN, *COMMON, *TRAIN)
    succeed(*train, "--save_text_encoder", folder=folder)
    file = next(folder.glob("runs/*/model/*.t7"))
    state = torch.load(file, weights_only=True)
    assert any(key.startswith("embedding_net.embedder.") for key in state)
    state["embedding_net.embedder.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(state, folder / "published.t7")
    succeed(*train, "--init_from", "published.t7", "--suffix", "tuned", folder=folder)


def test_inference_with_another_text_encoder_is_refused(project, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(project, folder)
    succeed(sys.executable, MAIN, *COMMON, *TRAIN, folder=folder)
    (text,) = folder.glob("runs/*/model/text.json")
    described = json.loads(text.read_text())
    text.write_text(json.dumps({**described, "hash": "0" * 20}))
    line = refuse(sys.executable, MAIN, *COMMON, "--mode", "val", folder=folder)
    assert "trained with the text encoder minilm" in line
