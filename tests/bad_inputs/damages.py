"""What is done to a data root to make an input bad."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import torch

from tests.bad_inputs import world
from tests.bad_inputs.world import GROUNDNLQ_RUN, RELER_RUN, VSLNET_RUN, WIDTH
from tests.samples import raw_queries

Damage = Callable[[Path], Any]  # done to the data root
CHALLENGE, CLIP = "challenge.json", "features/egovlp/v1.pt"


def untouched(root: Path) -> None:
    """For commands that are wrong by themselves."""


def gone(name: str) -> Damage:
    return lambda root: (root / name).unlink()


def renamed(name: str, new: str) -> Damage:
    return lambda root: (root / name).rename(root / new)


def written(name: str, content: bytes) -> Damage:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)

    return write


def cut_off(name: str) -> Damage:
    """Keep the first half of a file."""

    def cut(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])

    return cut


def changed_at(content: Any, path: Sequence[Any], value: Any) -> Any:
    """A JSON value with another value at a path, or (with `...`) none there."""
    *above, key = path
    parent = functools.reduce(lambda inner, step: inner[step], above, content)
    if value is ...:
        del parent[key]
    else:
        parent[key] = value
    return content


def edited(name: str, *path: Any, value: Any = ...) -> Damage:
    """Another value at a path of a JSON file, or none there."""

    def edit(root: Path) -> None:
        content = changed_at(json.loads((root / name).read_bytes()), path, value)
        (root / name).write_text(json.dumps(content))  # NaN is written as well

    return edit


def tensor(value: Any) -> Damage:
    return lambda root: torch.save(value, root / CLIP)


def checkpoint(run: str, change: Callable[[Any], Any]) -> Damage:
    """A checkpoint with something changed, in the program's own layout otherwise."""

    def damage(root: Path) -> None:
        file = world.checkpoint(root / run)
        torch.save(change(torch.load(file, weights_only=False)), file)  # it is our own

    return damage


def released_with(content: bytes) -> Damage:
    """A checkpoint of GroundNLQ that does not hold its options, and a file of them beside it."""

    def damage(root: Path) -> None:
        checkpoint(GROUNDNLQ_RUN, lambda ours: {**ours, "options": None})(root)
        written(f"{GROUNDNLQ_RUN}/options.json", content)(root)

    return damage


def changed(state: dict, change: Callable[[torch.Tensor], torch.Tensor]) -> dict:
    """A state dict with its first matrix changed."""
    name = next(name for name, value in state.items() if value.dim() > 1)
    return {**state, name: change(state[name])}


def with_option(content: dict, name: str, value: Any) -> dict:
    """A ReLER checkpoint with another value among its pickled options."""
    setattr(content["opt"], name, value)
    return content


def packed(root: Path) -> None:
    with h5py.File(root / "features/egovlp.h5", "w") as store:
        store["features"] = torch.rand(4096, WIDTH).numpy()


def packed_and_cut_off(root: Path) -> None:
    packed(root)
    cut_off("features/egovlp.h5")(root)


def of_another_split(root: Path) -> None:
    content = json.loads((root / CHALLENGE).read_bytes())
    for result in content["results"]:
        result["clip_uid"], result["annotation_uid"] = "x1", f"of {result['annotation_uid']}"
    (root / CHALLENGE).write_text(json.dumps(content))


def without_times(root: Path) -> None:
    content = json.loads((root / "nlq_val.json").read_bytes())
    for query in raw_queries(content):
        del query["clip_start_sec"], query["clip_end_sec"]
    (root / "nlq_val.json").write_text(json.dumps(content))


def of_vslnet(root: Path) -> None:
    content = world.checkpoint(root / VSLNET_RUN).read_bytes()
    world.checkpoint(root / RELER_RUN).write_bytes(content)
