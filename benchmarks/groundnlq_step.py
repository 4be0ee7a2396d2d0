"""A training step and inference of GroundNLQ, compared with a plain version of the same model.

The plain version pads every clip to 2,560 rows as published, normalises by mean and variance, and
attends to shifted keys one after another; ours pads clips of 900 rows to 1,024. Both have the same
weights and must have the same loss and gradients. Features are random; ours is also timed in
bfloat16.

    python benchmarks/groundnlq_step.py                     # 256 and 2304 dims, batch 2
    OMP_NUM_THREADS=1 python benchmarks/groundnlq_step.py --steps 3 --widths 2304
"""

import math
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from unittest.mock import patch

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import Contest, Work, check_agreement, compare, compare_steps, step_options
from GroundNLQ import layers
from GroundNLQ.data import Inputs, Targets
from GroundNLQ.losses import losses
from GroundNLQ.model import Grounding, GroundNLQ
from GroundNLQ.points import label_points, make_points, padded_rows
from GroundNLQ.train import parameter_groups
from utils.base.errors import run_program

PADDED = 2560  # rows of every clip as published
TEXT_WIDTH, TOKENS = 512, 10
NORMALISER = 200.0
LEVELS = 7  # of the published pyramid


def main(arguments: list[str] | None = None) -> None:
    """Check that both versions agree, then time them."""
    options = step_options(__doc__.splitlines()[0], arguments, batch=2, units=900, steps=5)
    # The text is encoded by neither version.
    compare_steps(options, partial(contest, options), lambda: list, lambda: list)
    for width in options.widths:
        versions = {
            name: partial(inference, width, options, name == "plain") for name in ("plain", "ours")
        }
        compare(f"{width} dims, inference", versions, options.steps)


def make_model(width: int) -> GroundNLQ:
    """The same weights at each call."""
    torch.manual_seed(0)
    model = GroundNLQ(width, TEXT_WIDTH, drop_path=0.0)
    for name, parameter in model.named_parameters():
        if "drop_path" in name:  # else blocks would do next to nothing
            nn.init.constant_(parameter, 0.5)
    return model


def make_batch(width: int, batch: int, rows: int, padded: int) -> tuple[Inputs, Targets]:
    """The same clips of so many rows at each call, padded."""
    torch.manual_seed(0)
    video = torch.randn(batch, rows, width)
    text, text_mask = torch.randn(batch, TOKENS, TEXT_WIDTH), torch.ones(batch, TOKENS)
    mask = (torch.arange(padded) < rows).float().expand(batch, -1)
    windows = np.linspace(0.2, 0.6, batch)[:, None, None] * rows + np.array([[[0.0, 30.0]]])
    points = make_points(padded, LEVELS)
    labels = label_points(points, windows, np.full(batch, rows), nearest=True)
    inputs = Inputs(F.pad(video, (0, 0, 0, padded - rows)), mask, text, text_mask)
    return inputs, Targets(*map(torch.from_numpy, labels))


def our_padding(rows: int) -> int:
    """Rows that clips of so many are padded to."""
    return int(padded_rows(np.array(rows), LEVELS))


def random_batch(batch: int, rows: int, width: int) -> tuple[Inputs, Targets]:
    """Clips of so many rows, padded as in training."""
    return make_batch(width, batch, rows, our_padding(rows))


def our_loss(model: GroundNLQ, batch: tuple[Inputs, Targets]) -> torch.Tensor:
    """What a training step minimises."""
    inputs, targets = batch
    return losses(model(*inputs), *targets, NORMALISER).total


def contest(options: Namespace, width: int) -> Contest:
    """Both versions of a training step, each with the padding of its own."""
    model = make_model(width)
    plain_batch = make_batch(width, options.batch, options.units, PADDED)
    our_batch = random_batch(options.batch, options.units, width)

    def plain(_: int) -> torch.Tensor:
        inputs, targets = plain_batch
        return losses(plain_grounding(model, *inputs), *targets, NORMALISER).total

    def ours(_: int) -> torch.Tensor:
        return our_loss(model, our_batch)

    def check() -> None:
        check_agreement(model, plain(0), ours(0))

    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-6, fused=True)
    return Contest(check, plain, ours, optimizer, clip_norm=1.0)


def inference(width: int, options: Namespace, is_plain: bool) -> Work:
    """Groundings of several queries of one clip, which ours encodes once."""
    model = make_model(width)
    padded = PADDED if is_plain else our_padding(options.units)
    inputs, _ = make_batch(width, options.batch, options.units, padded)
    video, mask, text, text_mask = inputs

    @torch.inference_mode()
    def ours(_: int) -> None:
        encoded = model.encode_video(video[:1], mask[:1]).expand(len(text), -1, -1)
        model.ground(encoded, mask, model.encode_query(text, text_mask), text_mask)

    @torch.inference_mode()
    def plain(_: int) -> None:
        plain_grounding(model, video[:1].expand_as(video), mask, text, text_mask)

    return plain if is_plain else ours


# The plain version: the same layers, but for two of them.


def plain_grounding(model: GroundNLQ, *inputs: torch.Tensor) -> Grounding:
    """The model with plain windowed attention and layer norms."""
    with (
        patch.object(layers, "attend_nearby", plain_attention),
        patch.object(layers.Norm, "forward", plain_norm),
    ):
        return model(*inputs)


def plain_norm(norm: layers.Norm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(2, keepdim=True)
    variance = (centred**2).mean(2, keepdim=True)
    normed = centred / torch.sqrt(variance + 1e-5)
    return normed * norm.weight[..., 0] + norm.bias[..., 0]


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    num_heads: int,
    reach: int,
) -> torch.Tensor:
    """Keys are shifted against queries, one position after another: (B, T, D)."""
    rows = query.shape[1]
    hidden = F.pad(mask - 1, (0, 0, reach, reach), value=-1.0) * 1e4  # (B, T, 1)
    key, value = (
        F.pad(x, (0, 0, reach, reach)).unflatten(2, (num_heads, -1)) for x in (key, value)
    )
    query = query.unflatten(2, (num_heads, -1))
    query = query / math.sqrt(query.shape[3])
    shifts = [slice(shift, shift + rows) for shift in range(2 * reach + 1)]
    scores = [(query * key[:, s]).sum(3) + hidden[:, s] for s in shifts]
    shares = torch.stack(scores, 3).softmax(3)  # (B, T, H, shifts)
    return sum(shares[..., n, None] * value[:, s] for n, s in enumerate(shifts)).flatten(2)


if __name__ == "__main__":
    run_program(main)
