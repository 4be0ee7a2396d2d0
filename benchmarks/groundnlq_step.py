"""A training step and inference of GroundNLQ beside a plain version of the same model.

The plain version pads every clip to 2,560 rows as published, normalises by mean and variance, and
attends to shifted keys one after another; ours pads clips of 900 rows to 1,024. Both have the same
weights and must have the same loss and gradients. Each works in a process of its own, ours in one
set up like our programs.

    python benchmarks/groundnlq_step.py                     # 256 and 2304 dims, batch 2
    OMP_NUM_THREADS=1 python benchmarks/groundnlq_step.py --steps 3 --widths 2304
"""

import math
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from unittest.mock import patch

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import (
    Work,
    alternate,
    as_our_programs,
    circumstances,
    step_options,
    training_step,
)
from GroundNLQ import layers
from GroundNLQ.data import Inputs, Targets
from GroundNLQ.losses import losses
from GroundNLQ.model import Grounding, GroundNLQ
from GroundNLQ.points import label_points, make_points, padded_rows
from GroundNLQ.train import parameter_groups
from utils.base.errors import UserError, run_program

PADDED = 2560  # rows of every clip as published
TEXT_WIDTH, TOKENS = 512, 10
NORMALISER = 200.0
AGREEMENT = 1e-4  # relative difference of losses, and of gradients to the largest entry


def main(arguments: list[str] | None = None) -> None:
    """Check that both versions agree, then time them."""
    options = step_options(__doc__.splitlines()[0], arguments, batch=2, units=900, steps=5)
    print(
        f"batch {options.batch}, {options.units} rows, {circumstances()}; seconds by the clock "
        f"(CPU time), medians of {options.steps} taken in turn"
    )
    for width in options.widths:
        alternate((lambda width=width: check(width, options),), 1)  # in a process of its own
        for make in (step, inference):
            plain = partial(make, width, options, PADDED)
            ours = as_our_programs(partial(make, width, options, None))
            times = alternate((plain, ours), options.steps)
            (plain_clock, plain_cpu), (our_clock, our_cpu) = np.median(times, 0)
            ratio = np.median(times[:, 0] / times[:, 1], 0)
            print(
                f"{width:5} dims, {make.__name__}: plain {plain_clock:.2f} ({plain_cpu:.2f})   "
                f"ours {our_clock:.2f} ({our_cpu:.2f})   ratio {ratio[0]:.2f}x ({ratio[1]:.2f}x)",
                flush=True,
            )


def made(width: int, options: Namespace, padded: int | None) -> tuple[GroundNLQ, Inputs, Targets]:
    """The model and a batch, padded to so many rows or as ours is."""
    torch.manual_seed(0)
    model = GroundNLQ(width, TEXT_WIDTH, drop_path=0.0)
    for name, parameter in model.named_parameters():
        if "drop_path" in name:  # else blocks would do next to nothing
            nn.init.constant_(parameter, 0.5)
    rows, batch = options.units, options.batch
    video = torch.randn(batch, rows, width)
    text, text_mask = torch.randn(batch, TOKENS, TEXT_WIDTH), torch.ones(batch, TOKENS)
    padded = padded or int(padded_rows(np.array(rows), model.levels))
    mask = (torch.arange(padded) < rows).float().expand(batch, -1)
    windows = np.linspace(0.2, 0.6, batch)[:, None, None] * rows + np.array([[[0.0, 30.0]]])
    points = make_points(padded, model.levels)
    labels = label_points(points, windows, np.full(batch, rows), nearest=True)
    inputs = Inputs(F.pad(video, (0, 0, 0, padded - rows)), mask, text, text_mask)
    return model, inputs, Targets(*map(torch.from_numpy, labels))


def step(width: int, options: Namespace, padded: int | None) -> Work:
    """Training steps of the plain version, if `padded` is given, or of ours."""
    model, inputs, targets = made(width, options, padded)
    ground = plain_grounding if padded else GroundNLQ.forward
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-6, fused=True)
    return training_step(
        lambda _: losses(ground(model, *inputs), *targets, NORMALISER).total, optimizer, 1.0
    )


def inference(width: int, options: Namespace, padded: int | None) -> Work:
    """Groundings of several queries of one clip, which ours encodes once."""
    model, (video, mask, text, text_mask), _ = made(width, options, padded)

    @torch.inference_mode()
    def ours(_: int) -> None:
        encoded = model.encode_video(video[:1], mask[:1]).expand(len(text), -1, -1)
        model.ground(encoded, mask, model.encode_query(text, text_mask), text_mask)

    @torch.inference_mode()
    def plain(_: int) -> None:
        plain_grounding(model, video[:1].expand_as(video), mask, text, text_mask)

    return plain if padded else ours


def check(width: int, options: Namespace) -> Work:
    """Both versions must find the same loss and gradients."""
    found = []
    for padded, ground in ((PADDED, plain_grounding), (None, GroundNLQ.forward)):
        model, inputs, targets = made(width, options, padded)
        loss = losses(ground(model, *inputs), *targets, NORMALISER).total
        found.append((loss.item(), *torch.autograd.grad(loss, list(model.parameters()))))
    (loss, *gradients), (our_loss, *our_gradients) = found
    if not math.isclose(our_loss, loss, rel_tol=AGREEMENT):
        raise UserError(f"our loss is {our_loss}, the plain version's {loss}")
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    for gradient, expected in zip(our_gradients, gradients, strict=True):
        if (gradient - expected).abs().max() > AGREEMENT * largest:
            raise UserError("gradients differ from the plain version's")
    return lambda _: None


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
