"""ReLER's checkpoints: model, optimizer, scheduler, epoch and options, in the published layout.

The frozen text encoder is never among the weights.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from ReLER.model import ReLER
from ReLER.options import FIXED_SHAPE, IGNORED_OF_MODEL, ModelOptions, Options
from ReLER.text import open_text
from utils.base.errors import UserError
from utils.base.options import adopt
from utils.base.tensor_files import load_safely
from utils.training.checkpoints import Trained, fit_state
from utils.training.options import INHERITED

SCHEDULER_GAMMA = 0.1
VIDEO_WEIGHT = "input_vid_proj.0.LayerNorm.weight"  # (F,)


def load_trained(checkpoint: Path, device: torch.device, **overrides: Any) -> Trained:
    """Load the model of a checkpoint, with its options except for `overrides`.

    The model's shape is always that of the checkpoint.

    Raises:
        UserError: not a ReLER checkpoint, or one that its options don't fit.
    """
    content = read_checkpoint(checkpoint)
    options = trained_options(checkpoint, content["opt"], overrides)
    weights = content["model"]
    weight = weights.get(VIDEO_WEIGHT) if isinstance(weights, dict) else None
    if not torch.is_tensor(weight) or weight.ndim != 1:
        raise UserError(f"{checkpoint}: not a ReLER checkpoint, it has no {VIDEO_WEIGHT}")
    text = open_text(options, checkpoint.parent)
    model = build_model(options, len(weight), text.width)
    fit_state(model, weights, checkpoint)
    return Trained(options, model.to(device).eval(), text)


def trained_options(checkpoint: Path, opt: dict[str, Any], overrides: dict) -> Options:
    """Options for prediction: `opt` of the checkpoint except for `overrides`."""
    shape = {field.name for field in dataclasses.fields(ModelOptions)} | {"no_norm_vfeat"}
    # Published checkpoints have other names for some of the options.
    named = {
        name: field.name
        for field in dataclasses.fields(Options)
        for name in (*field.metadata["aliases"], field.name)
    }
    trained = {named[name]: value for name, value in opt.items() if name in named}
    values = {"mode": "val"} | {name: trained[name] for name in INHERITED if name in trained}
    values |= overrides | {name: trained[name] for name in shape if name in trained}
    options = adopt(Options(task="unknown", fv="unknown"), values, checkpoint)
    for published in IGNORED_OF_MODEL:
        if published.name in opt:
            published.check(opt[published.name], options, f"{checkpoint}: ")
    return options


def build_model(options: Options, video_dim: int, text_dim: int) -> ReLER:
    """Initialise a model that fits the features and the text.

    Raises UserError if the options give other widths.
    """
    rows_dim = video_dim - 2  # as published, without temporal endpoints
    for name, width in (("v_feat_dim", rows_dim), ("t_feat_dim", text_dim)):
        if getattr(options, name) not in (None, width):
            raise UserError(
                f"--{name} is {getattr(options, name)}, but the inputs are {width} wide"
            )
    torch.manual_seed(options.seed)
    return ReLER(options, video_dim, text_dim)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Load a checkpoint with `opt` as a dictionary, without running code from it.

    Published files hold their options as a pickled `argparse.Namespace`, the only class accepted.
    """
    content = load_safely(file, allow=(argparse.Namespace,))
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(f"{file}: not a ReLER checkpoint, it has no 'model'")
    opt = content.get("opt", {})
    opt = vars(opt) if isinstance(opt, argparse.Namespace) else opt
    if not isinstance(opt, dict):
        raise UserError(f"{file}: its 'opt' must be a collection of options")
    return {**content, "opt": opt}


def checkpoint_content(
    model: ReLER, optimizer: torch.optim.Optimizer, options: Options, epoch: int
) -> dict[str, Any]:
    """The content of a checkpoint, with keys as published."""
    scheduler = {
        "step_size": options.lr_drop,
        "gamma": SCHEDULER_GAMMA,
        "base_lrs": [options.lr],
        "last_epoch": epoch + 1,
        "_step_count": epoch + 2,
        "_last_lr": [group["lr"] for group in optimizer.param_groups],
    }
    widths = {"v_feat_dim": model.video_dim, "t_feat_dim": model.text_dim}
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler,
        "epoch": epoch,
        "opt": argparse.Namespace(**(dataclasses.asdict(options) | FIXED_SHAPE | widths)),
    }
