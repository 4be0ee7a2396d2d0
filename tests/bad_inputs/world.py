"""A data root of a few clips that every program can read, and the programs run on it."""

import contextlib
import importlib
import io
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from utils.base.errors import run_program
from utils.base.files import write_json

SECONDS = 32.0  # of each clip
ROWS, WIDTH = 60, 6
CLIPS = {"train": ["t1", "t2"], "val": ["v1", "v2"], "test": ["x1"]}
PREPARED = "dataset/nlq_official_v1"
VSLNET_RUN = "vslnet/vslnet_nlq_official_v1_egovlp_16_bert/model"
WORDS_RUN = "vslnet/vslnet_nlq_official_v1_egovlp_16_rnn/model"
RELER_RUN = "reler/video_tef-bad"
GROUNDNLQ_RUN = "groundnlq/groundnlq-bad"
TIME_LIMIT = 60  # seconds for one program: on a busy machine, a hundred times what it takes
MEMORY_LIMIT = 2**31  # bytes that one program may take on top of what is loaded already

NARRATIONS = (
    b"video_uid\tnarration_source\tclip_start\tclip_end\tclip_text\n"
    b"train0\tpass_1\t12.0\t13.5\t#C C picks the cup\n"
    b"train0\tpass_1\t30.25\t31.0\t#C C drops the cup\n"
    b"train1\tpass_2\t11\t12\t#C C talks to a person\n"
    b"elsewhere\tpass_1\t1.0\t2.0\t#C C looks around\n"
)
# Format -> a file of narrations of the train videos.
OTHER_NARRATIONS = {
    "ego4d": b'{"train0": {"narration_pass_1": {"narrations": [{"timestamp_sec": 12.5, '
    b'"timestamp_frame": 375, "narration_text": "#C C eats"}]}}}',
    "egoexo4d": b'{"annotations": {"train0": [{"rejected": false, "descriptions": [{"text": '
    b'"C eats.", "timestamp": 12.5}]}]}}',
    "epic": b"video_id,start_timestamp,stop_timestamp,narration\n"
    b"train0,00:00:12.50,00:00:13.00,open door\n",
    "csv": b"video,start,end,text\ntrain0,12,13,opens a door\ntrain1,1:20,1:25,cuts\n",
    "srt": b"1\n00:00:12,500 --> 00:00:13,000\nI open it.\n",
    "vtt": b"WEBVTT\n\n00:12.500 --> 00:13.000\nI open it.\n",
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "cup", "who", "?"]
VECTORS = b"the 0.1 0.2 0.3 0.4\ncup 1 -1 1e-3 0\n. . . 1 2 3 4\nwho 0 0 0 0"
TACOS = {
    f"s{k}-d{k}.avi": {
        "timestamps": [[0, 90], [100, 250]],
        "sentences": ["He takes a knife.", "He cuts."],
        "fps": 29.4,
        "num_frames": 300,
    }
    for k in (1, 2)
}
JSON_LINES = b"\n".join(
    b'{"query": "Where?", "query_id": "a_%d", "video_id": "v1", "duration": 32.0, '
    b'"timestamps": [[1.5, 4]]}' % number
    for number in range(3)
)
MANIFEST = {
    "features": {
        "egovlp": {
            "width": 256,
            "parts": [{"url": "https://127.0.0.1/a.zip", "size": 5, "sha256": "0" * 64}],
        },
        "clip": {"parts": []},
    }
}

_SPLITS = (
    "--input_train_split DATA/nlq_train.json --input_val_split DATA/nlq_val.json "
    "--input_test_split DATA/nlq_test_unannotated.json"
)
_MODEL = (
    "--task nlq_official_v1 --fv egovlp --data_root DATA --text_encoder DATA/bert --epochs 1 "
    "--eval_gt_json DATA/nlq_val.json"
)
_VSLNET = f"{_MODEL} --model_dir DATA/vslnet --dim 8 --num_heads 2 --max_pos_len 16"
_WORDS = f"{_VSLNET} --predictor rnn --word_dim 4 --char_dim 4"
_RELER = (
    f"{_MODEL} --results_root DATA/reler --exp_id bad --hidden_dim 8 --max_v_l 24 "
    "--bi_num_attention_heads 2 --v_intermediate_size 8 --intermediate_size 8 "
    "--conditioned_span_pred_num_heads 2 --num_cross_encoder_layers 1 --contrastive_hdim 4"
)
_GROUNDNLQ = (
    f"{_MODEL} --results_root DATA/groundnlq --exp_id bad --dim 8 --num_heads 2 --arch 1 1 1 0 2"
)
# The programs, each as it is run on the data root DATA; a second use has a word after its name.
COMMANDS = {
    "utils/prepare_ego4d_dataset.py": f"{_SPLITS} --output_save_path DATA/{PREPARED}",
    "utils/create_naq_dataset.py": "--type nlq --em_version v1 --data_root DATA",
    "utils/create_naq_dataset.py own":
        "--narrations DATA/narrations/train0.csv --format csv --features DATA/own --data_root DATA",
    "utils/convert_tacos.py": "--input_dir DATA/tacos --data_root DATA/out",
    "utils/convert_jsonl.py": "--input DATA/lines.jsonl --split val --output DATA/lines.json",
    "utils/subsample_clips.py":
        "--annotations DATA/nlq_train.json --shares 50 --output_dir DATA/out",
    "utils/check_data.py": "--data_root DATA --features egovlp --thorough",
    "utils/prepare_features.py": "--data_root DATA --features egovlp",
    "utils/evaluate_ego4d_nlq.py":
        "--ground_truth_json DATA/nlq_val.json --model_prediction_json DATA/challenge.json",
    "utils/analyse_predictions.py":
        "--ground_truth_json DATA/nlq_val.json --predictions A=DATA/challenge.json --samples 9",
    "utils/compare_runs.py": f"A=DATA/{VSLNET_RUN}",
    "utils/view_predictions.py":
        "--annotations DATA/nlq_val.json --predictions DATA/challenge.json --output DATA/page.html",
    "utils/validate_submission.py":
        "--annotations DATA/nlq_val.json --predictions DATA/challenge.json "
        "--output DATA/mended.json",
    "utils/ensemble_predictions.py":
        "--predictions DATA/challenge.json DATA/challenge_2.json --output DATA/joined.json",
    "utils/simulate_dataset.py":
        "--data_root DATA/stand_ins --annotations DATA/nlq_train.json --features egovlp",
    "utils/simulate_dataset.py tiny": "--data_root DATA/new --preset tiny --features egovlp",
    "utils/download_features.py":
        "--data_root DATA --feature_types clip --manifest DATA/manifest.json",
    "utils/extract_features.py":
        "--videos DATA/videos --type clip --encoder tiny --output_dir DATA/out",
    "utils/ask.py":
        f"--checkpoint DATA/{VSLNET_RUN} --features DATA/features/egovlp/v1.pt --device cpu "
        "--text_encoder DATA/bert --query Where?",
    "VSLNet/main.py": f"{_VSLNET} --mode val --output DATA/challenge.json",
    "VSLNet/main.py rnn": f"{_WORDS} --mode val",
    "VSLNet/main.py train": f"{_VSLNET} --mode train",
    "VSLNet/main.py train few":
        f"{_VSLNET} --mode train --scaling_subsample_clips DATA/clips.json --suffix few",
    "VSLNet/main.py train rnn": f"{_WORDS} --mode train",
    "ReLER/main.py": f"{_RELER} --mode val --output DATA/challenge_2.json",
    "ReLER/main.py train": f"{_RELER} --mode train",
    "GroundNLQ/main.py": f"{_GROUNDNLQ} --mode val --output DATA/challenge_3.json",
    "GroundNLQ/main.py tokens": f"{_GROUNDNLQ} --mode val --text_features DATA/tokens.npz",
    "GroundNLQ/main.py train": f"{_GROUNDNLQ} --mode train",
}  # fmt: skip
COMMANDS |= {
    f"utils/create_naq_dataset.py {form}":
        f"--type nlq --em_version v1 --data_root DATA --narrations DATA/narrations/train0.{form} "
        f"--format {form}"
    for form in OTHER_NARRATIONS
}  # fmt: skip


def annotations(split: str) -> dict:
    """Annotations of a split, in the schema of NLQ."""
    queries: list[dict[str, Any]] = [
        {
            "query": "Where is the cup?",
            "clip_start_sec": 3.0,
            "clip_end_sec": 5.5,
            "template": "Objects: Where is object X?",
            "slot_x": "cup",
        },
        {"query": "who did I talk to", "clip_start_sec": 20, "clip_end_sec": 31.9},
        {"query": None, "clip_start_sec": 1.0, "clip_end_sec": 2.0},
    ]
    if split == "test":
        queries = [{"query": query["query"]} for query in queries]
    videos = []
    for number, uid in enumerate(CLIPS[split]):
        clip = {
            "clip_uid": uid,
            "video_start_sec": 10.0,
            "video_end_sec": 10.0 + SECONDS,
            "annotations": [{"annotation_uid": f"a{uid}", "language_queries": queries}],
        }
        videos.append({"video_uid": f"{split}{number}", "split": split, "clips": [clip]})
    return {"version": "1", "videos": videos}


def make(root: Path) -> Path:
    """Write the data root, with a run and predictions of each model; returns it."""
    for split in CLIPS:
        name = "nlq_test_unannotated" if split == "test" else f"nlq_{split}"
        write_json(root / f"{name}.json", annotations(split))
        write_json(root / "tacos" / f"{split}.json", TACOS)
    for name in ("vq", "moments"):
        write_json(root / f"{name}_train.json", annotations("train"))
    (root / "egoclip.csv").write_bytes(NARRATIONS)
    (root / "narrations").mkdir()
    for form, content in OTHER_NARRATIONS.items():
        (root / "narrations" / f"train0.{form}").write_bytes(content)
    write_json(root / "own" / "feature_shapes.json", {"train0": ROWS, "train1": ROWS})
    (root / "lines.jsonl").write_bytes(JSON_LINES)
    write_json(root / "manifest.json", MANIFEST)
    write_json(root / "clips.json", ["t1", "t2"])
    for name in ("egovlp", "clip"):
        folder = root / "features" / name
        folder.mkdir(parents=True)
        lengths = {uid: ROWS for uids in CLIPS.values() for uid in uids}
        for uid in lengths:
            torch.save(torch.rand(ROWS, WIDTH), folder / f"{uid}.pt")
        write_json(folder / "feature_shapes.json", lengths)
    (root / "features" / "glove.840B.4d.txt").write_bytes(VECTORS)
    write_text_encoder(root / "bert")
    queries = [f"a{uid}_{number}" for uid in CLIPS["val"] for number in (0, 1)]
    np.savez(root / "tokens.npz", **{query: np.ones((3, 8), np.float32) for query in queries})
    for program in ("utils/prepare_ego4d_dataset.py", "utils/create_naq_dataset.py"):
        assert run(program, root) is None
    shutil.copytree(root / PREPARED, root / "dataset/nlq_aug_naq_official_v1")
    for name in ("VSLNet/main.py", "ReLER/main.py", "GroundNLQ/main.py"):
        assert run(f"{name} train", root) is None
        assert run(name, root) is None
    assert run("VSLNet/main.py train rnn", root) is None
    shutil.rmtree(root / "cache")
    return root


def write_text_encoder(folder: Path, **shape: int) -> Path:
    """A random BERT, by default of one layer; returns its folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast  # slow to import

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = {"vocab_size": len(WORDS), "num_hidden_layers": 1, **small, **shape}
    BertModel(BertConfig(**config)).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def checkpoint(run_folder: Path) -> Path:
    """The checkpoint of a run."""
    (file,) = run_folder.glob("*.t7")
    return file


def run(program: str, root: Path, *options: str, file_size: int = -1) -> str | None:
    """Run a program of COMMANDS, with further options, as `run_here` does."""
    words = COMMANDS[program].replace("DATA", str(root)).split()
    return run_here(program.split()[0], [*words, *options], root, file_size)


def run_here(name: str, words: list[str], folder: Path, file_size: int = -1) -> str | None:
    """Run a program in this process, as from the command line in a folder.

    Returns its line of error, or None if it succeeds. Any other end fails: a traceback, more than
    one line, another exit code, more time or memory than the limits, a command out of a file.
    No file can grow beyond `file_size` bytes (-1: any size), which is met as a full disk is.
    """
    main = importlib.import_module(name.removesuffix(".py").replace("/", ".")).main
    errors = io.StringIO()
    code: Any = 0
    with (
        patch.object(sys, "argv", [name, *words]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
        contextlib.chdir(folder),
        limits(file_size),
    ):
        try:
            run_program(main)
        except SystemExit as end:
            code = end.code
    canaries = list(folder.rglob("canary*"))
    assert not canaries, f"a command in a file was run: {canaries}"
    if not code:
        return None
    lines = errors.getvalue().splitlines()
    assert code == 2 and lines[-1].startswith("error: "), f"exit code {code}: {lines}"
    assert sum(line.startswith("error: ") for line in lines) == 1, lines
    assert "out of memory" not in lines[-1], lines[-1]
    return lines[-1].removeprefix("error: ")


@contextlib.contextmanager
def limits(file_size: int) -> Iterator[None]:
    """Bounds on the time, the memory and the files of what is run inside."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {TIME_LIMIT} s")

    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    bounds = {resource.RLIMIT_AS: loaded + MEMORY_LIMIT, resource.RLIMIT_FSIZE: file_size}
    before = {resource_id: resource.getrlimit(resource_id) for resource_id in bounds}
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(TIME_LIMIT)
    for resource_id, bound in bounds.items():
        resource.setrlimit(resource_id, (bound, before[resource_id][1]))
    try:
        yield
    finally:
        for resource_id, limit in before.items():
            resource.setrlimit(resource_id, limit)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


class Hostile:
    """Runs a command if it is unpickled without care."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch canary",)
