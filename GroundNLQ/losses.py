"""GroundNLQ's losses: a focal loss of each point's score, a distance-IoU loss of its window.

Shapes: B queries, P points. Source: ActionFormer (Zhang et al., ECCV 2022), GroundNLQ (2023).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from GroundNLQ.model import Grounding

SMOOTHING = 0.1
ALPHA, GAMMA = 0.25, 2.0
MOMENTUM = 0.9  # of the normaliser
LEAST = 1e-8


class Losses(NamedTuple):
    """Scalars; `total` is minimised."""

    total: torch.Tensor
    classification: torch.Tensor
    regression: torch.Tensor


def next_normaliser(before: torch.Tensor, positives: int) -> torch.Tensor:
    """The running mean of positive points per batch, by which losses are divided."""
    return MOMENTUM * before + (1 - MOMENTUM) * max(positives, 1)


def losses(
    grounding: Grounding,
    positive: torch.Tensor,  # (B, P) bool
    offsets: torch.Tensor,  # (B, P, 2) true ones, of positive points
    normaliser: torch.Tensor | float,
) -> Losses:
    """Sums over points, divided by the normaliser."""
    target = positive * (1 - SMOOTHING) + SMOOTHING / 2
    focal = focal_loss(grounding.logits, target) * grounding.mask
    classification = focal.sum() / normaliser
    distance = offset_loss(grounding.offsets, offsets) * positive
    regression = distance.sum() / normaliser
    return Losses(classification + regression, classification, regression)


def focal_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss (Lin et al., ICCV 2017) of each point, with targets between 0 and 1."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    hit = probability * target + (1 - probability) * (1 - target)
    alpha = ALPHA * target + (1 - ALPHA) * (1 - target)
    return alpha * (1 - hit) ** GAMMA * entropy


def offset_loss(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Distance-IoU loss (Zheng et al., AAAI 2020) of windows (B, P, 2) around the same point."""
    inter = torch.minimum(predicted, true).sum(-1)
    union = predicted.sum(-1) + true.sum(-1) - inter
    hull = torch.maximum(predicted, true).sum(-1)
    apart = (predicted.diff(dim=-1) - true.diff(dim=-1))[..., 0] / 2
    return 1 - inter / union.clamp(min=LEAST) + (apart / hull.clamp(min=LEAST)) ** 2
