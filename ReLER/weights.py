"""ReLER's checkpoints: model, optimizer, scheduler, epoch and options, in the published layout.

The frozen text encoder is never among the weights.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from ReLER.model import ReLER
from ReLER.options import FIXED_SHAPE, Options
from utils.base.errors import UserError
from utils.base.tensor_files import load_safely
from utils.training.checkpoints import fit_optimizer, fit_state

SCHEDULER_GAMMA = 0.1


def build_model(options: Options, video_dim: int, text_dim: int) -> ReLER:
    """A freshly initialised model that fits the features and the text.

    Raises UserError if the options name other widths.
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
    """A checkpoint with `opt` as a dictionary; nothing of it is executed.

    Published files hold their options as a pickled `argparse.Namespace`, the only class accepted.
    """
    content = load_safely(file, allow=(argparse.Namespace,))
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(f"{file}: not a ReLER checkpoint, it has no 'model'")
    opt = content.get("opt", {})
    opt = vars(opt) if isinstance(opt, argparse.Namespace) else opt
    if not isinstance(opt, dict):
        raise UserError(f"{file}: its 'opt' is no collection of options; the file is damaged")
    return {**content, "opt": opt}


def build_trained(
    options: Options, video_dim: int, text_dim: int, content: dict[str, Any], file: Path
) -> ReLER:
    """The model of the options, filled with a checkpoint's weights."""
    model = build_model(options, video_dim, text_dim)
    load_weights(model, content, file)
    return model


def load_weights(model: ReLER, content: dict[str, Any], file: Path) -> None:
    """Fill the model from a checkpoint's content."""
    fit_state(model, content["model"], file)


def load_optimizer(optimizer: torch.optim.Optimizer, content: dict[str, Any], file: Path) -> None:
    """Take over the state of a checkpoint's optimizer."""
    fit_optimizer(optimizer, content.get("optimizer"), file)


def checkpoint_content(
    model: ReLER, optimizer: torch.optim.Optimizer, options: Options, epoch: int
) -> dict[str, Any]:
    """What a checkpoint holds, key by key as published."""
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
