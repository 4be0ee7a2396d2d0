"""A training step of ReLER, compared with a plain implementation of the same model.

The plain version encodes the text in the loop with CLIP, loops over the parts and over the samples
of the contrastive loss, computes attention as a softmax of a product, draws one random number per
dropped element, runs width-1 convolutions as convolutions and computes outputs that no loss reads.
Both have the same weights, and without dropout must give the same losses and gradients. Ours reads
token features from their store, and is also timed in bfloat16. Steps take the scales in turn. Video
features are random.

    python benchmarks/reler_step.py                   # batch 16, 600 units, 256 and 2304 + 512 dims
    python benchmarks/reler_step.py --batch 4 --steps 3
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain_layers import masked, plain_predictor
from benchmarks.text import clip_in_the_loop, stored
from benchmarks.timing import Contest, check_agreement, compare_steps, step_options
from ReLER.data import Inputs
from ReLER.layers import sine_positions
from ReLER.losses import Targets, losses
from ReLER.model import ReLER, real_parts
from ReLER.options import SCALES, LossOptions, ModelOptions
from utils.base.errors import run_program

TEXT_WIDTH, TOKENS = 512, 12
FURTHER_DIMS = 512 + 2  # CLIP's features and the temporal endpoints


def main(arguments: list[str] | None = None) -> None:
    """Check that both versions agree, then time them in float32 and bfloat16."""
    options = step_options(__doc__.splitlines()[0], arguments, batch=16, units=600, steps=5)

    def contest(width: int) -> Contest:
        torch.manual_seed(0)
        width += FURTHER_DIMS
        model = ReLER(ModelOptions(max_v_l=options.units), width)
        batch = random_batch(options.batch, options.units, width)

        def check() -> None:
            model.eval()
            for parts in (SCALES[0], SCALES[-1]):
                plain, ours = plain_loss(model, batch, parts), our_loss(model, batch, parts)
                check_agreement(model, plain, ours)
            model.train()

        return Contest(
            check=check,
            plain=lambda step: plain_loss(model, batch, SCALES[step % len(SCALES)]),
            ours=lambda step: our_loss(model, batch, SCALES[step % len(SCALES)]),
            optimizer=torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=1e-4, fused=True),
            clip_norm=0.1,
        )

    compare_steps(
        options,
        contest,
        lambda: clip_in_the_loop(options.batch),
        lambda: stored(TEXT_WIDTH, options.batch, TOKENS),
    )


class Batch(NamedTuple):
    """A random batch."""

    inputs: Inputs
    targets: Targets


def random_batch(size: int, units: int, width: int) -> Batch:
    """Clips of all units or fewer, queries of up to TOKENS tokens."""
    draw = np.random.default_rng(0)
    lengths = torch.from_numpy(draw.integers(units // 2, units, size, endpoint=True))
    lengths[0] = units
    tokens = torch.from_numpy(draw.integers(TOKENS // 2, TOKENS, size, endpoint=True))
    video_mask = (torch.arange(units) < lengths[:, None]).float()
    text_mask = (torch.arange(TOKENS) < tokens[:, None]).float()
    start = (lengths * 0.4).long()
    end = start + units // 60
    unit = torch.arange(units)
    targets = Targets(
        start,
        end,
        ((unit >= start[:, None] - 1) & (unit <= end[:, None] + 1)).float(),
        torch.stack((start, end), 1),
        torch.stack((start - units // 120, end + units // 120), 1),
        float(lengths.sum()),
        0.0,  # depends on the scale
    )
    video = torch.randn(size, units, width) * video_mask[..., None]
    text = torch.randn(size, TOKENS, TEXT_WIDTH)
    return Batch(Inputs(video, video_mask, text, text_mask), targets)


def our_loss(model: ReLER, batch: Batch, parts: int) -> torch.Tensor:
    """What a training step minimises."""
    inputs, targets = batch
    units = inputs.video_mask.sum(1)
    total = float(real_parts(units, inputs.video.shape[1], parts).sum())
    targets = targets._replace(parts_total=total)
    return losses(model(*inputs, parts), targets, inputs.video_mask, LossOptions())["total"]


# The plain version, on the same weights.


class PlainOutputs(NamedTuple):
    """Outputs of the plain model that the losses read."""

    start: torch.Tensor  # (B, V) logits
    end: torch.Tensor  # (B, V)
    highlight: torch.Tensor  # (B, V) probability
    saliency: torch.Tensor  # (B, V)
    video_projection: torch.Tensor  # (B, V, C)
    text_projection: torch.Tensor  # (B, Q, C)
    scores: torch.Tensor  # (B, N) of the parts
    real: torch.Tensor  # (B, N)


def plain_outputs(model: ReLER, inputs: Inputs, parts: int) -> PlainOutputs:
    """The model, part by part."""
    video, video_mask, text, text_mask = inputs
    size = math.ceil(video.shape[1] / parts)
    video = plain_projection(model.input_vid_proj, video)
    text = plain_projection(model.input_txt_proj, text)
    pieces, scores, real = [], [], []
    for piece, mask in zip(video.split(size, 1), video_mask.split(size, 1), strict=True):
        states, tokens = piece + sine_positions(mask, piece.shape[-1]), text
        states, tokens = (
            F.dropout(states, 0.1, model.training),
            F.dropout(tokens, 0.1, model.training),
        )
        for layer in model.cross_self_encoder.cross_encoder.layers:
            states, tokens = plain_cross_layer(layer, states, tokens, mask, text_mask)
        pool = masked(states @ model.NPM_proj.weighted_pool.weight, mask[..., None])
        pooled = (pool.float().softmax(1) * states).sum(1)
        scores.append(model.NPM_proj.linear(pooled)[:, 0].float().sigmoid())
        pieces.append(states * scores[-1][:, None, None])
        real.append(mask.amax(1))
    encoded, scores, real = torch.cat(pieces, 1), torch.stack(scores, 1), torch.stack(real, 1)

    start, end = plain_predictor(model.predictor, encoded, video_mask)
    highlight = model.highlight_proj(encoded)[..., 0].float()
    highlight = masked(highlight, video_mask).sigmoid()
    saliency = model.saliency_proj(encoded)[..., 0].float()
    video_projection = F.normalize(model.contrastive_align_projection_vid(encoded).float(), dim=-1)
    text_projection = F.normalize(model.contrastive_align_projection_txt(text).float(), dim=-1)
    return PlainOutputs(
        start, end, highlight, saliency, video_projection, text_projection, scores, real
    )


def plain_loss(model: ReLER, batch: Batch, parts: int) -> torch.Tensor:
    """All losses, mostly sample by sample."""
    (video, video_mask, _, text_mask), targets = batch
    size = math.ceil(video.shape[1] / parts)
    outputs = plain_outputs(model, batch.inputs, parts)
    start, end, highlight, saliency, video_projection, text_projection, scores, real = outputs
    labels = torch.zeros_like(scores)
    span, hinge, contrast = 0.0, 0.0, 0.0
    count = len(start)
    for i in range(count):
        first, last = int(targets.start[i]), int(targets.end[i])
        labels[i, first // size] = labels[i, last // size] = 1
        span = span + F.cross_entropy(start[i], targets.start[i])
        span = span + F.cross_entropy(end[i], targets.end[i])
        for inside, outside in zip(targets.salient[i], targets.unsalient[i], strict=True):
            hinge = hinge + (0.2 + saliency[i, outside] - saliency[i, inside]).clamp(min=0)
        query = text_projection[i, : int(text_mask[i].sum())].mean(0)
        likeness = video_projection[i, : int(video_mask[i].sum())] @ query / 0.07
        others = torch.cat((likeness[:first], likeness[last + 1 :])).float()
        cost = 0.0
        for unit in range(first, last + 1):
            cost = (
                cost - F.log_softmax(torch.cat((likeness[unit : unit + 1].float(), others)), 0)[0]
            )
        contrast = contrast + cost / (last - first + 1)
    weight = torch.where(targets.highlight > 0, 2.0, 1.0) * video_mask
    highlight_loss = F.binary_cross_entropy(highlight, targets.highlight, reduction="none")
    npm = F.binary_cross_entropy(scores, labels, reduction="none")
    npm = (npm * torch.where(labels > 0, 2.0, 1.0) * real).sum() / real.sum()
    highlight_loss = (highlight_loss * weight).sum() / video_mask.sum()
    return (span + hinge + contrast) / count + 20 * highlight_loss + npm


def plain_projection(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    for depth, layer in enumerate(layers):
        x = layer.net[1](F.dropout(layer.LayerNorm(x), 0.5, layer.training))
        x = x if depth == len(layers) - 1 else F.relu(x)
    return x


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, drop: float
) -> torch.Tensor:
    """8 heads, (B, V, D) each; `bias` (B, keys)."""
    query, key, value = (x.view(*x.shape[:2], 8, -1).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + bias[:, None, None]
    shares = F.dropout(scores.softmax(3), drop).to(value.dtype)
    return (shares @ value).transpose(1, 2).flatten(2)


def plain_cross_layer(
    layer: nn.Module,
    video: torch.Tensor,
    text: torch.Tensor,
    mask: torch.Tensor,
    text_mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    att, out, drop = layer.biattention, layer.biOutput, 0.1 if layer.training else 0.0
    from_text = plain_attention(
        att.query1(video), att.key2(text), att.value2(text), (1 - text_mask) * -10000.0, drop
    )
    from_video = plain_attention(
        att.query2(text), att.key1(video), att.value1(video), (1 - mask) * -10000.0, drop
    )
    video = out.LayerNorm1(F.dropout(out.dense1(from_text), drop) + video)
    text = out.LayerNorm2(F.dropout(out.dense2(from_video), drop) + text)
    inner = F.gelu(layer.v_intermediate.dense(video))
    video = layer.v_output.LayerNorm(F.dropout(layer.v_output.dense(inner), drop) + video)
    inner = F.gelu(layer.t_intermediate.dense(text))
    text = layer.t_output.LayerNorm(F.dropout(layer.t_output.dense(inner), drop) + text)
    return video, text


if __name__ == "__main__":
    run_program(main)
