"""The programs called by another project, from its own folder, with data of its own."""

import json
import shutil
import sys

import pytest
import torch

from tests import samples
from tests.bad_inputs.world import write_text_encoder
from tests.samples import timed
from tests.simulated import ROOT, succeed
from tests.utils.training.lives import free_port

pytestmark = pytest.mark.slow

ROWS_PER_SECOND = 1.875
MAIN = ROOT / "VSLNet" / "main.py"
PREPARE = ROOT / "utils" / "prepare_ego4d_dataset.py"


def annotations(clips, times=True):
    """Only the keys that matter: no frames, no split, no templates."""
    queries = [timed(f"Where is thing {k}?", 3.0 * k, 3.0 * k + 2) for k in range(1, 9)]
    if not times:
        queries = [{"query": query["query"]} for query in queries]
    videos = [samples.annotations(seconds, **{uid: queries}) for uid, seconds in clips.items()]
    return {"videos": [video for content in videos for video in content["videos"]]}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
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
    write_text_encoder(folder / "bert")
    succeed(
        PREPARE,
        "--input_train_split", "train.json", "--input_val_split", "val.json",
        "--input_test_split", "test.json", "--output_save_path", "data/dataset/mine",
        folder=folder,
    )  # fmt: skip
    return folder


@pytest.fixture
def project(original, tmp_path):
    return shutil.copytree(original, tmp_path / "work")


COMMON = (
    "--task", "mine", "--predictor", "bert", "--fv", "homemade", "--video_feature_dim", "48",
    "--max_pos_len", "64", "--num_workers", "2", "--model_dir", "runs",
    "--batch_size", "8", "--init_lr", "0.001", "--text_encoder", "bert",
)  # fmt: skip
TRAIN = (
    "--mode", "train", "--epochs", "1", "--eval_gt_json", "val.json",
    "--log_to_tensorboard", "mine", "--tb_log_dir", "boards",
    "--remove_empty_queries_from", "train", "val",
)  # fmt: skip
RUN = "runs/vslnet_mine_homemade_64_bert/model"


def test_another_project_trains_validates_and_tests(project):
    command = (MAIN, *COMMON)
    succeed(*command, *TRAIN, folder=project)
    assert list(project.glob(f"{RUN}/vslnet_*.t7")) and list(project.glob("boards/mine/events*"))
    printed = succeed(*command, "--mode", "val", "--eval_gt_json", "val.json", folder=project)
    assert "16 of 16 queries evaluated" in printed
    printed = succeed(*command, "--mode", "test", "--eval_gt_json", "test.json", folder=project)
    assert "test.json holds no times: predictions only" in printed
    (result,) = project.glob(f"{RUN}/*_test_result.json")
    results = json.loads(result.read_text())["results"]
    assert len(results) == 8
    assert max(end for r in results for _, end in r["predicted_times"]) <= 3600


def test_the_published_launcher_trains_with_two_processes(project):
    launch = (sys.executable, "-m", "torch.distributed.launch", "--use_env", "--master_port")
    launch += (free_port(), "--nproc_per_node", "2")
    succeed(*launch, MAIN, *COMMON, *TRAIN, folder=project, CUDA_VISIBLE_DEVICES="")
    assert list(project.glob(f"{RUN}/vslnet_*.t7"))


def test_a_published_checkpoint_is_read_with_its_text_encoder(project, tmp_path):
    """It holds the encoder, and buffers that newer libraries no longer have.

    The checkout has another name.
    """
    for package in ("VSLNet", "utils"):
        shutil.copytree(ROOT / package, tmp_path / "their-copy" / package)
    train = (tmp_path / "their-copy/VSLNet/main.py", *COMMON, *TRAIN)
    succeed(*train, "--save_text_encoder", folder=project)
    file = next(project.glob(f"{RUN}/*.t7"))
    state = torch.load(file, weights_only=True)
    assert any(key.startswith("embedding_net.embedder.") for key in state)
    state["embedding_net.embedder.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(state, project / "published.t7")
    succeed(*train, "--init_from", "published.t7", "--suffix", "tuned", folder=project)
