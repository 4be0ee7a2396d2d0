"""ReLER's losses, in float32.

Span, saliency and contrastive losses are means over the queries of a batch. Highlight and part
losses are divided by the numbers of valid units and parts of the whole batch, which `Targets`
holds, divided by the number of processes. So losses averaged over processes are those of the batch.
Negatives of the contrastive loss are units of the query's own clip.

Shapes: B batch, V video units, Q query tokens, N parts, C contrastive dim, K units drawn.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from ReLER.model import Outputs
from ReLER.options import LossOptions
from utils.layers.span_encoder import MASKED_LOGIT

POSITIVE_WEIGHT = 2.0  # of highlighted units and of parts that hold an end of the window


class Targets(NamedTuple):
    """True outputs of a batch, and what its losses are divided by."""

    start: torch.Tensor  # (B,) first unit of the window
    end: torch.Tensor  # (B,) last unit
    highlight: torch.Tensor  # (B, V) 1 within the window extended at both ends
    salient: torch.Tensor  # (B, K) units drawn from inside the window
    unsalient: torch.Tensor  # (B, K) units drawn from outside
    units_total: float  # valid units of the whole batch / number of processes
    parts_total: float  # parts with valid units, likewise
    weight: float = 1.0  # of means over these queries, see `utils.training.processes.Share`


def losses(
    outputs: Outputs, targets: Targets, video_mask: torch.Tensor, options: LossOptions
) -> dict[str, torch.Tensor]:
    """Each loss by name, unweighted, and their weighted sum as `total`."""
    unweighted = {
        "start_end": targets.weight * start_end_loss(outputs, targets),
        "highlight": highlight_loss(outputs, targets, video_mask),
        "saliency": targets.weight * saliency_loss(outputs, targets, options.saliency_margin),
        "NPM": part_loss(outputs, targets),
        "contrastive": targets.weight
        * contrastive_loss(outputs, targets, video_mask, options.temperature),
    }
    weights = {
        "start_end": options.lw_start_end,
        "highlight": options.lw_highlight,
        "saliency": options.lw_saliency,
        "NPM": options.lw_npm,
        "contrastive": options.video_frame_contrastive_loss_coef,
    }
    total = sum(weights[name] * loss for name, loss in unweighted.items())
    return {**unweighted, "total": total}


def start_end_loss(outputs: Outputs, targets: Targets) -> torch.Tensor:
    """Cross-entropy of the window's first and of its last unit, a mean over the batch."""
    start = F.cross_entropy(outputs.start_logits.float(), targets.start)
    end = F.cross_entropy(outputs.end_logits.float(), targets.end)
    return start + end


def highlight_loss(outputs: Outputs, targets: Targets, video_mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy per unit, positives counting double, over the valid units."""
    return _balanced_loss(
        outputs.highlight_logits, targets.highlight, video_mask, targets.units_total
    )


def part_loss(outputs: Outputs, targets: Targets) -> torch.Tensor:
    """The same per part; positive is a part that holds the window's first or last unit."""
    mask = outputs.part_mask
    labels = part_labels(targets.start, targets.end, outputs.start_logits.shape[1], mask.shape[1])
    return _balanced_loss(outputs.part_logits, labels, mask, targets.parts_total)


def part_labels(start: torch.Tensor, end: torch.Tensor, units: int, parts: int) -> torch.Tensor:
    """(B, N): 1 for the parts with the first and the last unit, of `parts` equal parts of units."""
    part = torch.arange(parts, device=start.device)
    size = -(-units // parts)
    ends = torch.stack((start, end), 1) // size  # (B, 2)
    return (ends[..., None] == part).any(1).float()


def saliency_loss(outputs: Outputs, targets: Targets, margin: float) -> torch.Tensor:
    """Hinge: each unit drawn inside the window should beat its partner outside by the margin."""
    scores = outputs.saliency_scores.float()
    inside, outside = scores.gather(1, targets.salient), scores.gather(1, targets.unsalient)
    return 2 * (margin + outside - inside).clamp(min=0).mean()


def contrastive_loss(
    outputs: Outputs, targets: Targets, video_mask: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Each unit of the window against all units outside it, by similarity to the query.

    A mean over the window, then over the batch. A window that fills its clip costs nothing.
    """
    video, text = outputs.projected_video.float(), outputs.projected_text.float()
    mask = outputs.text_mask.float()[..., None]
    query = (text * mask).sum(1) / mask.sum(1)  # (B, C)
    similarity = (video * query[:, None]).sum(2) / temperature  # (B, V); float32 in autocast too
    unit = torch.arange(video.shape[1], device=video.device)
    inside = (unit >= targets.start[:, None]) & (unit <= targets.end[:, None])  # (B, V)
    outside = ~inside & video_mask.bool()
    negatives = similarity.masked_fill(~outside, MASKED_LOGIT).logsumexp(1, keepdim=True)  # (B, 1)
    per_unit = F.softplus(negatives - similarity) * inside
    return (per_unit.sum(1) / inside.sum(1)).mean()


def _balanced_loss(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, total: float
) -> torch.Tensor:
    weight = torch.where(labels > 0, POSITIVE_WEIGHT, 1.0) * mask
    per_unit = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    return (per_unit * weight).sum() / total
