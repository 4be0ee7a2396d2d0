"""Bad inputs: a way to damage a small data root, and the program that is then run on it."""

import functools
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import torch

from tests.fuzz import models, programs, project
from utils import ask, download_features, prepare_features
from utils.base.files import write_json

Command = tuple  # a program's main, and its arguments
PREPARED = "dataset/nlq_official_v1"
CLIP = "features/egovlp/v1.pt"


class Case(NamedTuple):
    """One bad input."""

    what: str  # is wrong
    program: str  # as a user calls it
    command: Callable[[Path], Command]  # of the data root
    damage: Callable[[Path], Any]  # done to the data root


class Hostile:
    """Runs a command if it is unpickled without care."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch canary",)


def make(root: Path) -> Path:
    """The whole data root, with an untrained run of each model; returns it."""
    project.make(root)
    models.write_runs(root)
    return root


def pack(root: Path) -> Command:
    return prepare_features.main, "--data_root", root, "--features", "egovlp"


def question(root: Path) -> Command:
    run = models.vslnet_file(root)
    return (
        ask.main, "--checkpoint", run, "--features", root / CLIP, "--text_encoder", root / "bert",
        "--device", "cpu", "--query", " ? ",
    )  # fmt: skip


def download(root: Path) -> Command:
    manifest = root / "manifest.json"
    manifest.write_text('{"features": {"slowfast": {"parts": []}}}')
    return (
        download_features.main, "--data_root", root, "--feature_types", "slowfast",
        "--manifest", manifest,
    )  # fmt: skip


def unpack(root: Path) -> Command:
    """What `download_features.py` does with an archive once it is there."""
    source = download_features.Source(())
    return lambda _: download_features.unpack([root / "egovlp.zip"], root / "new", source), ""


def more(command: Callable[[Path], Command], *arguments: object) -> Callable[[Path], Command]:
    """The command with further arguments."""
    return lambda root: (*command(root), *arguments)


def untouched(root: Path) -> None:
    """For commands that are wrong by themselves."""


def gone(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def renamed(name: str, new: str) -> Callable[[Path], Path]:
    return lambda root: (root / name).rename(root / new)


def holds(name: str, content: bytes) -> Callable[[Path], int]:
    return lambda root: (root / name).write_bytes(content)


def torn(name: str) -> Callable[[Path], int]:
    """The first half of a file."""

    def tear(root: Path) -> int:
        content = (root / name).read_bytes()
        return (root / name).write_bytes(content[: len(content) // 2])

    return tear


def edited(name: str, *place: Any, value: Any = ...) -> Callable[[Path], None]:
    """Another value at a place of a JSON file, or none there."""

    def edit(root: Path) -> None:
        content = json.loads((root / name).read_bytes())
        *above, key = place
        parent = functools.reduce(lambda inner, step: inner[step], above, content)
        if value is ...:
            del parent[key]
        else:
            parent[key] = value
        # Python's own writer: NaN is wanted as well.
        (root / name).write_text(json.dumps(content))

    return edit


def doubled(name: str) -> Callable[[Path], None]:
    """The first entry of a JSON object once more, at its end."""

    def double(root: Path) -> None:
        content = json.loads((root / name).read_bytes())
        first = json.dumps(dict([next(iter(content.items()))]))
        (root / name).write_text(json.dumps(content)[:-1] + ", " + first[1:])

    return double


def tensor(value: Any, name: str = CLIP) -> Callable[[Path], None]:
    return lambda root: torch.save(value, root / name)


def weights(file: Callable[[Path], Path], change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A checkpoint with something changed; it is the program's own layout otherwise."""

    def damage(root: Path) -> None:
        content = torch.load(file(root), weights_only=False)  # written by `make`
        torch.save(change(content), file(root))

    return damage


def with_nan(content: dict) -> dict:
    state = content["model"]
    name = next(iter(state))
    return {**content, "model": {**state, name: torch.full_like(state[name], torch.nan)}}


def narrower(state: dict) -> dict:
    name = next(iter(state))
    return {**state, name: state[name][:, :1]}


def packed_torn(root: Path) -> None:
    """A packed file that lost its second half."""
    file = root / "features" / "egovlp.h5"
    with h5py.File(file, "w") as store:
        store["features"] = torch.rand(4096, project.WIDTH).numpy()
    torn("features/egovlp.h5")(root)


def zipped(*names: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        with zipfile.ZipFile(root / "egovlp.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"x")

    return write


def linked(root: Path) -> None:
    """An archive with a link to a file of the machine."""
    link = zipfile.ZipInfo("v1.pt")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(root / "egovlp.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")


def foreign(root: Path) -> None:
    """Predictions for another split only."""
    content = project.challenge()
    for result in content["results"]:
        result["clip_uid"] = "x1"
        result["annotation_uid"] = f"of {result['annotation_uid']}"
    write_json(root / CHALLENGE, content)


VIDEO = ("videos", 0)
ANNOTATION = (*VIDEO, "clips", 0, "annotations", 0)
QUERY = (*ANNOTATION, "language_queries", 0)
PREPARE, NAQ, PACK = "prepare_ego4d_dataset.py", "create_naq_dataset.py", "prepare_features.py"
EVALUATE, VALIDATE = "evaluate_ego4d_nlq.py", "validate_submission.py"
VSLNET, RELER = "VSLNet/main.py", "ReLER/main.py"
TRAIN, VAL, CHALLENGE = "nlq_train.json", "nlq_val.json", "challenge.json"

CASES = [
    # annotations
    Case("annotations are not there", PREPARE, programs.prepare, gone(TRAIN)),
    Case("annotations under another name", NAQ, programs.create, renamed(TRAIN, "train.json")),
    Case("annotations are cut off", PREPARE, programs.prepare, torn(TRAIN)),
    Case("annotations are a web page", PREPARE, programs.prepare, holds(TRAIN, b"<html></html>")),
    Case("a video without its name", PREPARE, programs.prepare,
         edited(TRAIN, *VIDEO, "video_uid")),
    Case("a clip named `../x`", PREPARE, programs.prepare,
         edited(TRAIN, *VIDEO, "clips", 0, "clip_uid", value="../x")),
    Case("a clip ends before it starts", PREPARE, programs.prepare,
         edited(TRAIN, *VIDEO, "clips", 0, "video_end_sec", value=1.0)),
    Case("a time is a text", PREPARE, programs.prepare,
         edited(TRAIN, *QUERY, "clip_start_sec", value="soon")),
    Case("a time of 1e308", PREPARE, programs.prepare,
         edited(TRAIN, *QUERY, "clip_end_sec", value=1e308)),
    Case("a window without its end", PREPARE, programs.prepare,
         edited(TRAIN, *QUERY, "clip_end_sec")),
    # narrations
    Case("narrations are not there", NAQ, programs.create, gone("egoclip.csv")),
    Case("narrations lack a column", NAQ, programs.create,
         holds("egoclip.csv", project.NARRATIONS.replace(b"\tclip_end\t", b"\t"))),
    Case("narrations with commas, not tabs", NAQ, programs.create,
         holds("egoclip.csv", project.NARRATIONS.replace(b"\t", b","))),
    # prepared data sets
    Case("the data set was not prepared", VSLNET, programs.vslnet, gone(f"{PREPARED}/val.json")),
    Case("a prepared clip lacks a key", VSLNET, programs.vslnet,
         edited(f"{PREPARED}/val.json", "v1", "sentences")),
    Case("a prepared clip has fewer windows than queries", RELER, programs.reler,
         edited(f"{PREPARED}/val.json", "v1", "exact_times", value=[[1.0, 2.0]])),
    Case("a prepared clip is there twice", RELER, programs.reler, doubled(f"{PREPARED}/val.json")),
    Case("a prepared split is empty", VSLNET, programs.vslnet,
         holds(f"{PREPARED}/val.json", b"{}")),
    # features
    Case("no folder of features", PACK, pack, renamed("features/egovlp", "features/other")),
    Case("a clip has no features", VSLNET, programs.vslnet, gone(CLIP)),
    Case("features are cut off", PACK, pack, torn(CLIP)),
    Case("features that would run a command", PACK, pack, tensor(Hostile())),
    Case("features with NaN", PACK, pack,
         tensor(torch.full((project.ROWS, project.WIDTH), torch.nan))),
    Case("features of another width", PACK, pack, tensor(torch.ones(project.ROWS, 5))),
    Case("features of one dimension", PACK, pack, tensor(torch.ones(project.ROWS))),
    Case("sparse features", PACK, pack,
         tensor(torch.ones(project.ROWS, project.WIDTH).to_sparse())),
    Case("fewer rows than listed", PACK, pack, tensor(torch.ones(9, project.WIDTH))),
    Case("a packed file is cut off", VSLNET, programs.vslnet, packed_torn),
    # checkpoints
    Case("no checkpoint", VSLNET, programs.vslnet, lambda root: models.vslnet_file(root).unlink()),
    Case("a VSLNet checkpoint that would run a command", VSLNET, programs.vslnet,
         weights(models.vslnet_file, lambda state: {**state, "more": Hostile()})),
    Case("a ReLER checkpoint that would run a command", RELER, programs.reler,
         weights(models.reler_file, lambda content: {**content, "opt": Hostile()})),
    Case("a checkpoint of another shape", VSLNET, programs.vslnet,
         weights(models.vslnet_file, narrower)),
    Case("a checkpoint with NaN", RELER, programs.reler,
         weights(models.reler_file, with_nan)),
    Case("a VSLNet checkpoint given to ReLER", RELER, programs.reler,
         lambda root: models.reler_file(root).write_bytes(models.vslnet_file(root).read_bytes())),
    # challenge files
    Case("a challenge file is not JSON", EVALUATE, programs.evaluate,
         holds(CHALLENGE, b"clip,0,1\n")),
    Case("a challenge file lacks queries", VALIDATE, programs.validate,
         edited(CHALLENGE, "results", 0)),
    Case("a challenge file of another split", EVALUATE, programs.evaluate, foreign),
    Case("a predicted time is NaN", EVALUATE, programs.evaluate,
         edited(CHALLENGE, "results", 0, "predicted_times", 0, value=[float("nan"), 1.0])),
    Case("a predicted time is a text", EVALUATE, programs.evaluate,
         edited(CHALLENGE, "results", 0, "predicted_times", 0, value=["1", 2.0])),
    Case("four windows for a query, not five", VALIDATE, programs.validate,
         edited(CHALLENGE, "results", 0, "predicted_times", 4)),
    Case("a query is predicted twice", "ensemble_predictions.py", programs.ensemble,
         edited(CHALLENGE, "results", 1, "query_idx", value=0)),
    # archives, downloads, options, questions
    Case("an archive that leads out of its folder", "download_features.py", unpack,
         zipped("egovlp/v1.pt", "../../canary.pt")),
    Case("an archive with a link", "download_features.py", unpack, linked),
    Case("an archive is a web page", "download_features.py", unpack,
         holds("egovlp.zip", b"<html></html>")),
    Case("no link to features is known", "download_features.py", download, untouched),
    Case("an option that is none", PREPARE, more(programs.prepare, "--output", "x"),
         untouched),
    Case("a value out of range", VSLNET, more(programs.vslnet, "--num_heads", "3"),
         untouched),
    Case("an empty question", "ask.py", question, untouched),
]  # fmt: skip
