"""A data root of a few clips made in a moment, what programs read it, and how they may end."""

import contextlib
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.base.errors import UserError
from utils.base.files import read_json, write_json
from utils.evaluation.predictions import scores_file, write_results

SECONDS = 32.0  # of each clip
ROWS, WIDTH = 60, 6
UIDS = {"train": ["t1", "t2"], "val": ["v1", "v2"], "test": ["x1"]}
LIMIT_S = 20  # for one program: on a busy machine, a hundred times what it takes


def annotations(split: str) -> dict:
    """Annotations of a split, in the schema of NLQ."""
    videos = []
    for number, uid in enumerate(UIDS[split]):
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
        clip = {
            "clip_uid": uid,
            "video_start_sec": 10.0,
            "video_end_sec": 10.0 + SECONDS,
            "annotations": [{"annotation_uid": f"a{uid}", "language_queries": queries}],
        }
        videos.append({"video_uid": f"{split}{number}", "split": split, "clips": [clip]})
    return {"version": "1", "videos": videos}


def prepared(split: str) -> dict:
    """A prepared split, as `prepare_ego4d_dataset.py` writes it."""
    times = [[3.0, 5.5], [20.0, 31.9]] if split != "test" else [[0.0, 0.0]] * 2
    return {
        uid: {
            "fps": 1.875,
            "num_frames": ROWS,
            "timestamps": [[int(t * 1.875) for t in pair] for pair in times],
            "exact_times": times,
            "sentences": ["where is the cup?", "who did i talk to?"],
            "annotation_uids": [f"a{uid}"] * 2,
            "query_idx": [0, 1],
        }
        for uid in UIDS[split]
    }


def challenge() -> dict:
    """A challenge file for val."""
    windows = [[3.0, 5.0], [1.0, 2.0], [0.0, 30.5], [4.0, 9.0], [7.0, 8.0]]
    results = [
        {"clip_uid": uid, "annotation_uid": f"a{uid}", "query_idx": n, "predicted_times": windows}
        for uid in UIDS["val"]
        for n in range(2)
    ]
    return {"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": results}


NARRATIONS = (
    b"video_uid\tnarration_source\tclip_start\tclip_end\tclip_text\n"
    b"train0\tpass_1\t12.0\t13.5\t#C C picks the cup\n"
    b"train0\tpass_1\t30.25\t31.0\t#C C drops the cup\n"
    b"train1\tpass_2\t11\t12\t#C C talks to a person\n"
    b"train1\tpass_2\t90.0\t91.0\t#O a man walks\n"
    b"elsewhere\tpass_1\t1.0\t2.0\t#C C looks around\n"
)


def challenge_scores() -> dict:
    """The side file of the challenge file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "challenge.json"
        keys = [tuple(result.values())[:3] for result in challenge()["results"]]
        windows = np.array([result["predicted_times"] for result in challenge()["results"]])
        write_results(
            file, keys, windows, np.linspace(1.0, 0.1, windows[..., 0].size).reshape(-1, 5)
        )
        return read_json(scores_file(file))


MANIFEST = {
    "features": {
        "egovlp": {
            "width": 256,
            "parts": [{"url": "https://127.0.0.1/a.zip", "size": 5, "sha256": "0" * 64}],
        },
        "clip": {"parts": []},
    }
}
FIGURES = ("R@1 IoU=0.3", "R@1 IoU=0.5", "R@5 IoU=0.3", "R@5 IoU=0.5", "mIoU")
EVALUATION = dict.fromkeys(FIGURES, 1.5) | {"step": 3, "evaluated": 4, "listed": 5}


def toy_folder(root: Path) -> Path:
    """The run folder of a training that ended."""
    return root / "toy"


def tacos() -> dict:
    """A public TACoS file."""
    sentences = ["He takes a knife.", "He cuts."]
    video = {"timestamps": [[0, 90], [100, 250]], "sentences": sentences, "fps": 29.4}
    return {"s1-d1.avi": {**video, "num_frames": 600}, "s2-d2.avi": {**video, "num_frames": 300}}


def make(root: Path) -> Path:
    """Write the data root; returns it."""
    for split in UIDS:
        name = "nlq_test_unannotated" if split == "test" else f"nlq_{split}"
        write_json(root / f"{name}.json", annotations(split))
        for dataset in ("nlq_official_v1", "nlq_aug_naq_official_v1"):
            write_json(root / "dataset" / dataset / f"{split}.json", prepared(split))
        write_json(root / "tacos" / f"{split}.json", tacos())
    for name in ("vq", "moments"):
        write_json(root / f"{name}_train.json", annotations("train"))
    (root / "egoclip.csv").write_bytes(NARRATIONS)
    write_json(root / "challenge.json", challenge())
    for name in ("egovlp", "clip"):
        folder = root / "features" / name
        folder.mkdir(parents=True, exist_ok=True)
        shapes = {uid: ROWS for uids in UIDS.values() for uid in uids}
        for uid in shapes:
            torch.save(torch.rand(ROWS, WIDTH), folder / f"{uid}.pt")
        write_json(folder / "feature_shapes.json", shapes)
    write_json(root / "challenge_2.json", challenge())
    write_json(root / "challenge_scores.json", challenge_scores())
    write_json(root / "manifest.json", MANIFEST)
    write_json(root / "clips.json", ["t1", "t2"])
    return root


class FaultError(AssertionError):
    """A program ended in another way than it may."""


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise FaultError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ends_well(program: Callable[..., None], *arguments: object) -> str | None:
    """Run a program in this process; returns its line of error, or None if it did its work.

    Anything but a `UserError` or an exit is a `FaultError`, and so is a line that names nothing.
    """
    with Path(os.devnull).open("w") as null, _time_limit(LIMIT_S), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                program([str(argument) for argument in arguments])
        except UserError as error:
            line = " ".join(str(error).split())
            if len(line) < 10:
                raise FaultError(f"says no more than: {line!r}") from error
            line.encode()  # a lone surrogate could not be printed
            return line
        except SystemExit as end:
            if end.code not in (0, 2):
                raise FaultError(f"exit code {end.code}") from end
            return f"exit code {end.code}"
    return None
