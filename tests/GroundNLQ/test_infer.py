"""Windows of a made-up released checkpoint are the published ones, if they are asked for."""

import json

import numpy as np
import pytest
import torch

from GroundNLQ.infer import infer
from GroundNLQ.options import Options
from tests.samples import annotations, timed
from tests.simulated import succeed
from utils.base.errors import UserError
from utils.prepare_ego4d_dataset import main as prepare

ROWS = (256, 150, 21)
CONFIGURATION = """
dataset: {num_frames: 16.043, feat_stride: 16.043, max_seq_len: 256}
model: {n_head: 4, n_mha_win_size: 9, backbone_arch: [2, 2, 2, 0, 3]}
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory, reference, weights):
    """A data root with three clips of one query, their token features, and a checkpoint."""
    folder = tmp_path_factory.mktemp("released")
    videos = []
    for n, duration in enumerate(reference["durations"].tolist()):
        queries = [timed("", 0.0, 1.0), timed("Where?", 1.0, 2.0)]
        (video,) = annotations(duration, **{f"c{n}": queries})["videos"]
        video["clips"][0]["annotations"][0]["annotation_uid"] = f"a{n}"
        videos.append(video)
    data = folder / "data"
    features = data / "features" / "internvideo"
    features.mkdir(parents=True)
    for name in ("nlq_train", "nlq_val", "nlq_test_unannotated"):
        (data / f"{name}.json").write_text(json.dumps({"videos": videos}))
    tokens = {}
    for n, rows in enumerate(ROWS):
        torch.save(reference["video_features"][n, :rows].clone(), features / f"c{n}.pt")
        tokens[f"a{n}_1"] = reference["text_features"][n, : reference["query_lengths"][n]].numpy()
    tokens["a2_1"] = tokens["a2_1"][0]  # a vector counts as one token
    np.savez(folder / "tokens.npz", **tokens)
    files = {"train": "nlq_train", "val": "nlq_val", "test": "nlq_test_unannotated"}
    options = [f"--input_{split}_split={data / file}.json" for split, file in files.items()]
    prepare([*options, "--output_save_path", str(data / "dataset/nlq_official_v1")])
    checkpoint = {"epoch": 4, "state_dict": weights["small"], "state_dict_ema": weights["small"]}
    torch.save(checkpoint, folder / "epoch_004.pth.tar")
    (folder / "config.yaml").write_text(CONFIGURATION)
    return folder


def predict_released(released, **settings):
    """The challenge file of the released checkpoint."""
    given = {
        "task": "nlq_official_v1", "fv": "internvideo", "mode": "val",
        "data_root": str(released / "data"), "eval_gt_json": str(released / "data/nlq_val.json"),
        "init_from": str(released / "epoch_004.pth.tar"), "output": str(released / "out.json"),
        "text_features": str(released / "tokens.npz"),
    }  # fmt: skip
    options = Options(**given | settings)
    return infer(options.init_from, **vars(options))


def read(file):
    """Windows (3, 5, 2) and scores (3, 5) of a challenge file."""
    results = json.loads(file.read_text())["results"]
    assert [(r["clip_uid"], r["annotation_uid"], r["query_idx"]) for r in results] == [
        (f"c{n}", f"a{n}", 1) for n in range(3)
    ]
    scores = json.loads(file.with_name(f"{file.stem}_scores.json").read_text())["scores"]
    return np.array([r["predicted_times"] for r in results]), np.array(scores)


def test_windows_are_the_published_ones(released, reference):
    output = released / "published.json"
    succeed(
        "GroundNLQ/scripts/infer.sh", "cpu", "nlq", "val", "internvideo",
        released / "epoch_004.pth.tar", "--data_root", released / "data",
        "--text_features", released / "tokens.npz", "--published", "all", "--output", output,
    )  # fmt: skip
    windows, scores = read(output)
    for clip in range(3):
        expected = reference[f"final/clip{clip}/seconds_published"].numpy()
        np.testing.assert_allclose(windows[clip], expected, rtol=0, atol=1e-3)
        expected = reference[f"final/clip{clip}/scores"].numpy()
        np.testing.assert_allclose(scores[clip], expected, rtol=0, atol=1e-5)
    assert not np.signbit(windows).any()
    windows, _ = read(predict_released(released, published="text_padding,fixed_length"))
    for clip in range(3):
        expected = reference[f"final/clip{clip}/seconds_without_half_row"].numpy()
        np.testing.assert_allclose(windows[clip], expected, rtol=0, atol=1e-3)


def test_corrected_windows_depend_on_the_query_alone(released):
    together, _ = read(predict_released(released))
    alone, _ = read(predict_released(released, eval_batch_size=1))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-3)


def test_mistakes_are_told_in_a_line(released, tmp_path):
    np.savez(tmp_path / "few.npz", a0_1=np.ones((2, 12), np.float32))
    torch.save({"state_dict": {}}, tmp_path / "other.pth.tar")
    for words, settings in (
        (r"none\.npz: no such file of token features", {"text_features": "none.npz"}),
        ("has no features of query a1_1", {"text_features": str(tmp_path / "few.npz")}),
        ("not a GroundNLQ checkpoint", {"init_from": str(tmp_path / "other.pth.tar")}),
        ("--published all,half: must be all, none or some of half_row", {"published": "all,half"}),
    ):
        with pytest.raises(UserError, match=words):
            predict_released(released, **settings)
