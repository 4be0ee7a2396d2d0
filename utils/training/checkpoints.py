"""Find checkpoints, and load their weights and optimizer states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from utils.base.errors import UserError, named
from utils.base.files import file_stamp, fingerprint
from utils.base.hub import fetch_folder, is_on_hub
from utils.base.lazy import torch

SHARED = "model.safetensors"  # the checkpoint of a shared run
SAMPLES = 16  # of a checkpoint's content, in its hash


class Trained(NamedTuple):
    """A trained model in evaluation mode, its options, and the text encoder of its queries."""

    options: Any
    model: Any
    text: Any


def step_of(path: Path) -> int:
    """The step at the end of a checkpoint's name (`vslnet_1200.t7` -> 1200), or -1."""
    number = re.search(r"_(\d+)$", path.stem)
    return int(number.group(1)) if number else -1


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint at a path: a file, or the last one in a run folder or its `model` folder.

    A shared run is a folder with one checkpoint, on this machine or the hub (`hf://owner/name`).
    Raises UserError if there is no checkpoint, or checkpoints of several runs.
    """
    path = fetch_folder(str(path)) if is_on_hub(path) else Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        parent = next(folder for folder in path.parents if folder.is_dir())
        beside = named(sorted(other.name for other in parent.iterdir() if other.is_dir()))
        hint = f"; folders in {parent}: {beside}" if beside else ""
        raise UserError(f"{path}: no such checkpoint file or run folder{hint}")
    if (path / SHARED).is_file():
        return path / SHARED
    files = [*path.glob("*.t7"), *path.glob("model/*.t7")] or list(path.rglob("*.t7"))
    folders = {file.parent for file in files}
    if not files:
        raise UserError(f"{path}: no checkpoint (*.t7) in this folder; has a run been trained?")
    if len(folders) > 1:
        names = ", ".join(sorted(map(str, folders)))
        raise UserError(f"{path}: holds checkpoints of several runs, name one: {names}")
    return max(files, key=step_of)


def checkpoint_hash(file: Path) -> str:
    """A hash of a checkpoint: of its size and samples, among them its end with checksums."""
    _, size, _, samples = file_stamp(file, SAMPLES)
    return fingerprint(size, samples)


def fit_optimizer(optimizer: torch.optim.Optimizer, state: Any, source: str | Path) -> None:
    """Load an optimizer's state; raises UserError if it does not fit the model."""
    try:
        optimizer.load_state_dict(state)
        fits = all(
            value.shape in (parameter.shape, ())
            for parameter, values in optimizer.state.items()
            for value in values.values()
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"{source}: its optimizer does not fit this model; continue with the weights only"
        )


def fit_state(model: torch.nn.Module, state: dict[str, torch.Tensor], source: str | Path) -> None:
    """Load weights into `model`; raises UserError naming keys or shapes that do not fit."""
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"{source}: not a state dict (parameter name -> tensor)")
    expected = model.state_dict()
    faults = [f"{key} missing" for key in expected if key not in state]
    faults += [f"{key} unknown" for key in state if key not in expected]
    faults += [
        f"{key} is {tuple(state[key].shape)}, this model has {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults:
        rest = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise UserError(
            f"{source}: does not fit this model: {'; '.join(faults[:4])}{rest}; "
            "check the feature, the number of units and the options it was trained with"
        )
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{source}: {key} holds NaN or infinite values; use another checkpoint")
    model.load_state_dict(state)
