"""GroundNLQ's checkpoints, in the published layout: weights, their average, optimizer, epoch.

The frozen text encoder is never among the weights. Ours hold the options of their run, too; for
released files shapes are read off the weights, the rest out of a configuration beside them.
"""

from pathlib import Path
from typing import Any

import torch

from GroundNLQ.model import GroundNLQ
from GroundNLQ.options import PUBLISHED_FRAMES, Options
from GroundNLQ.text import open_text
from utils.base.errors import UserError, in_brief
from utils.base.options import adopt
from utils.base.tensor_files import load_safely
from utils.training.checkpoints import Trained, fit_state
from utils.training.options import INHERITED

WEIGHTS, AVERAGE, OPTIONS = "state_dict", "state_dict_ema", "options"
VIDEO_WEIGHT = "backbone.vid_embd.0.conv.weight"  # (D, F, 3)
TEXT_WEIGHT = "backbone.txt_embd.0.conv.weight"  # (D, E, 1)
HEADS = "head"  # in the names of the heads' weights
SHAPE = ("num_heads", "window", "max_seq_len")  # always the trained run's, if it says so
UNSAID = ("published", "frames_per_row", "text_encoder", "nms_threshold")  # None: as trained
# What published configurations call our options.
PUBLISHED_NAMES = {
    "n_head": "num_heads",
    "n_mha_win_size": "window",
    "num_frames": "frames_per_row",
    "max_seq_len": "max_seq_len",
}


def load_trained(checkpoint: Path, device: torch.device, **overrides: Any) -> Trained:
    """The model of a checkpoint, with the options of its run but for `overrides`.

    The model's shape is always the checkpoint's. Raises `UserError` if it is no GroundNLQ
    checkpoint, or its options don't fit it.
    """
    content = read_checkpoint(checkpoint)
    options = _trained_options(checkpoint, content, overrides)
    weights = content.get(AVERAGE) if options.use_average else content[WEIGHTS]
    video_dim, text_dim = (content[WEIGHTS][n].shape[1] for n in (VIDEO_WEIGHT, TEXT_WEIGHT))
    model = build_model(options, video_dim, text_dim)
    fit_state(model, weights, checkpoint)
    return Trained(options, model.to(device).eval(), open_text(options, checkpoint.parent))


def _trained_options(checkpoint: Path, content: dict, overrides: dict) -> Options:
    weights, trained, source = content[WEIGHTS], content.get(OPTIONS), checkpoint
    if not isinstance(trained, dict):
        trained, source = read_options(checkpoint.parent)
    names = (*INHERITED, *UNSAID, "text_features")
    values = {"mode": "val"} | {name: trained[name] for name in names if name in trained}
    values |= {k: v for k, v in overrides.items() if v is not None or k not in UNSAID}
    values |= {name: trained[name] for name in SHAPE if name in trained}
    values |= {"dim": len(weights[VIDEO_WEIGHT]), "arch": layers_of(weights)}
    return adopt(Options(task="unknown", fv="unknown"), values, source)


def read_options(folder: Path) -> tuple[dict[str, Any], Path]:
    """Options that lie beside a checkpoint without them, and their file.

    They are those of a run, or a configuration as published; released models count 16.043 frames a
    row.
    """
    files = (folder / name for name in (Options.OPTIONS_FILE, "config.yaml", "config.json"))
    file = next(filter(Path.is_file, files), folder)
    values = {} if file == folder else read_values(file)
    if file.name == Options.OPTIONS_FILE:
        return values, file
    renamed = {name: values[old] for old, name in PUBLISHED_NAMES.items() if old in values}
    return {"frames_per_row": PUBLISHED_FRAMES} | renamed, file


def read_values(file: Path) -> dict[str, Any]:
    """The values of a YAML file (JSON is a kind of it) by name, wherever they are nested."""
    import yaml  # comes with transformers

    try:
        waiting = [yaml.safe_load(file.read_text(encoding="utf-8"))]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a file of options ({in_brief(error)})") from None
    values: dict[str, Any] = {}
    for settings in waiting:
        if not isinstance(settings, dict):
            raise UserError(f"{file}: must be an object of options")
        values |= settings
        waiting += [value for value in settings.values() if isinstance(value, dict)]
    return values


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The content of a checkpoint; nothing of it is executed."""
    content = load_safely(file)
    weights = content.get(WEIGHTS) if isinstance(content, dict) else None
    for name in (VIDEO_WEIGHT, TEXT_WEIGHT):
        weight = weights.get(name) if isinstance(weights, dict) else None
        if not torch.is_tensor(weight) or weight.ndim != 3:
            raise UserError(f"{file}: not a GroundNLQ checkpoint, it has no {name}")
    return content


def layers_of(weights: dict[str, torch.Tensor]) -> list[int]:
    """The `arch` of a model with such weights."""

    def blocks(part: str, inside: str = "") -> int:
        parts = [str(name).split(".") for name in weights if inside in str(name)]
        return len({name[2] for name in parts if name[:2] == ["backbone", part]})

    crossing = blocks("branch", ".cross_attn.")
    stems = [blocks(part) for part in ("vid_embd", "txt_stem", "vid_stem")]
    return [*stems, crossing, blocks("branch") - crossing]


def build_model(options: Options, video_dim: int, text_dim: int) -> GroundNLQ:
    """A freshly initialised model that fits the features and the text."""
    torch.manual_seed(options.seed)
    return GroundNLQ(
        video_dim,
        text_dim,
        options.dim,
        options.num_heads,
        options.window,
        options.arch,
        options.drop_path,
        masked="text_padding" not in options.quirks,
    )


def begin_with(model: GroundNLQ, checkpoint: Path, new_heads: bool) -> None:
    """Take over the weights of a checkpoint, on request all but the heads'."""
    weights = read_checkpoint(checkpoint)[WEIGHTS]
    if new_heads:
        heads = {name: value for name, value in model.state_dict().items() if HEADS in name}
        weights = {name: value for name, value in weights.items() if HEADS not in name} | heads
    fit_state(model, weights, checkpoint)
