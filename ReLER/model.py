"""ReLER: a clip is cut into N parts, each part reads the query, and the parts predict one window.

    video (B, V, F) -> embed_video -> (B, V, D) -+
                                                 +-> encode -> (B, V, D) -> predict -> Outputs
    text  (B, Q, T) -> embed_text  -> (B, Q, D) -+   in N parts

Shapes: B batch, V video units, F feature dim, Q query tokens, T token dim, D hidden, N parts,
P = ceil(V / N) units of a part, C contrastive dim. Masks are 1 at valid positions and 0 at padding.
The padded length V is cut, so a part may contain padding only; `part_mask` excludes its score from
the loss. Source: Liu et al., "ReLER@ZJU-Alibaba Submission to the Ego4D Natural Language Queries
Challenge 2022"; state-dict keys as published.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ReLER.layers import (
    ABSENT_BIAS,
    PADDING_BIAS,
    CrossEncoder,
    PartScore,
    input_projection,
    sine_positions,
)
from ReLER.options import SCALES, ModelOptions
from utils.evaluation.decoding import best_spans
from utils.layers.dropout import Dropout
from utils.layers.span_encoder import PREDICTOR_REACH, SpanPredictor, mask_logits

TOP = 5  # windows predicted for a query


class Outputs(NamedTuple):
    """Outputs for a batch cut into N parts. Logits of padded units are -1e30."""

    start_logits: torch.Tensor  # (B, V)
    end_logits: torch.Tensor  # (B, V)
    highlight_logits: torch.Tensor  # (B, V)
    saliency_scores: torch.Tensor  # (B, V)
    part_logits: torch.Tensor  # (B, N) how likely a part holds the answer
    part_mask: torch.Tensor  # (B, N) 1 for real parts (`real_parts`)
    projected_video: torch.Tensor  # (B, V, C) of length 1
    projected_text: torch.Tensor  # (B, Q, C) of length 1
    text_mask: torch.Tensor  # (B, Q)


class ReLER(nn.Module):
    """The whole model; each method can be called by itself. Loads published state dicts."""

    def __init__(self, options: ModelOptions, video_dim: int, text_dim: int = 512):
        """`video_dim` is F, with clip features and temporal endpoints, `text_dim` is T."""
        super().__init__()
        self.video_dim = video_dim
        self.text_dim = text_dim
        hidden = options.hidden_dim
        # As in published keys.
        self.cross_self_encoder = nn.ModuleDict({"cross_encoder": CrossEncoder(options)})
        self.cross_input_dropout = Dropout(options.cross_input_dropout)
        self.input_txt_proj = input_projection(
            text_dim, hidden, options.input_dropout, options.n_input_proj
        )
        self.input_vid_proj = input_projection(
            video_dim, hidden, options.input_dropout, options.n_input_proj
        )
        self.contrastive_align_projection_txt = nn.Linear(hidden, options.contrastive_hdim)
        self.contrastive_align_projection_vid = nn.Linear(hidden, options.contrastive_hdim)
        self.highlight_proj = nn.Linear(hidden, 1)
        self.saliency_proj = nn.Linear(hidden, 1)
        self.NPM_proj = PartScore(hidden)
        self.predictor = SpanPredictor(
            "bert",
            hidden,
            options.conditioned_span_pred_num_heads,
            options.max_v_l,
            options.conditioned_span_pred_drop_rate,
        )
        # As published: Xavier-uniform weights in the cross-modal layers, PyTorch's defaults for
        # their biases and for all other layers.
        for parameter in self.cross_self_encoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        video: torch.Tensor,  # (B, V, F)
        video_mask: torch.Tensor,  # (B, V)
        text: torch.Tensor,  # (B, Q, T)
        text_mask: torch.Tensor,  # (B, Q)
        num_parts: int,
    ) -> Outputs:
        """Outputs for losses and prediction, with the clips cut into `num_parts` parts."""
        video, text = self.embed_video(video), self.embed_text(text)
        encoded, part_logits, part_mask = self.encode(video, video_mask, text, text_mask, num_parts)
        return self.predict(encoded, video_mask, text, text_mask, part_logits, part_mask)

    def embed_video(self, video: torch.Tensor) -> torch.Tensor:
        """(B, V, F) -> (B, V, D); the same for every number of parts."""
        return self.input_vid_proj(video)

    def embed_text(self, text: torch.Tensor) -> torch.Tensor:
        """(B, Q, T) -> (B, Q, D); the same for every number of parts."""
        return self.input_txt_proj(text)

    def encode(
        self,
        video: torch.Tensor,  # (B, V, D)
        video_mask: torch.Tensor,
        text: torch.Tensor,  # (B, Q, D)
        text_mask: torch.Tensor,
        num_parts: int,
        part_units: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Units fused with the query and scaled by their part's score; the parts' logits and mask.

        If `part_units`, P, is given, parts that contain padding only may be left out.
        """
        batch, units, hidden = video.shape
        part_units = part_units or -(-units // num_parts)
        absent = num_parts * part_units - units  # the last parts may be shorter, or empty
        mask = F.pad(video_mask.float(), (0, absent)).view(batch * num_parts, part_units)
        bias = (1 - video_mask.float()) * PADDING_BIAS
        bias = F.pad(bias, (0, absent), value=ABSENT_BIAS).view_as(mask)
        text_bias = (1 - text_mask.float()) * PADDING_BIAS

        parts = F.pad(video, (0, 0, 0, absent)).view(batch * num_parts, part_units, hidden)
        parts = parts + sine_positions(mask, hidden).to(parts.dtype)
        parts = self.cross_self_encoder["cross_encoder"](
            self.cross_input_dropout(parts),
            self.cross_input_dropout(text).repeat_interleave(num_parts, 0),
            bias,
            text_bias.repeat_interleave(num_parts, 0),
        )

        part_logits = self.NPM_proj(parts, bias).float().view(batch, num_parts)
        real = real_parts(video_mask.sum(1, keepdim=True), units, num_parts)
        part_mask = (torch.arange(num_parts, device=video.device) < real).float()
        parts = parts * part_logits.sigmoid().to(parts.dtype).view(-1, 1, 1)
        encoded = parts.view(batch, num_parts * part_units, hidden)[:, :units]
        return encoded, part_logits, part_mask

    def predict(
        self,
        encoded: torch.Tensor,  # (B, V, D)
        video_mask: torch.Tensor,
        text: torch.Tensor,  # (B, Q, D) as embedded
        text_mask: torch.Tensor,
        part_logits: torch.Tensor,
        part_mask: torch.Tensor,
    ) -> Outputs:
        """Heads over the encoded units."""
        start, end = self.predictor(encoded, video_mask)
        return Outputs(
            start,
            end,
            mask_logits(self.highlight_proj(encoded)[..., 0], video_mask),
            self.saliency_proj(encoded)[..., 0].float(),
            part_logits,
            part_mask,
            F.normalize(self.contrastive_align_projection_vid(encoded).float(), dim=-1),
            F.normalize(self.contrastive_align_projection_txt(text).float(), dim=-1),
            text_mask,
        )

    @torch.no_grad()
    def predict_scales(
        self,
        video: torch.Tensor,  # (B, V, F)
        video_mask: torch.Tensor,
        text: torch.Tensor,  # (B, Q, T)
        text_mask: torch.Tensor,
        longest: int,
        scales: Sequence[int] = SCALES,
        top: int = TOP,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best windows of all scales in units (B, top, 2), and their scores (B, top).

        Candidates are the `top` best pairs of each scale; of equal scores the earlier scale is
        first. Padding beyond the `longest` clip's units that no score depends on is left out.
        """
        units = video.shape[1]
        needed = min(units, longest + PREDICTOR_REACH)
        sizes = [-(-units // num_parts) for num_parts in scales]  # of a part, in units
        counts = [-(-needed // size) for size in sizes]  # of parts
        read_units = max(count * size for count, size in zip(counts, sizes, strict=True))
        video, text = self.embed_video(video[:, :read_units]), self.embed_text(text)
        all_spans, all_scores = [], []
        for count, size in zip(counts, sizes, strict=True):
            part_video, part_mask = video[:, : count * size], video_mask[:, : count * size]
            encoded, _, _ = self.encode(part_video, part_mask, text, text_mask, count, size)
            start, end = self.predictor(encoded[:, :needed], video_mask[:, :needed])
            spans, scores = best_spans(start, end, top)
            all_spans.append(spans)
            all_scores.append(scores)
        scores, order = torch.cat(all_scores, 1).sort(dim=1, descending=True, stable=True)
        order = order[:, :top, None].expand(-1, -1, 2)
        return torch.cat(all_spans, 1).gather(1, order), scores[:, :top]


def real_parts(lengths: Any, units: int, num_parts: int) -> Any:
    """The number of real parts, for an array or tensor of clip lengths.

    As published: one more than `lengths // (units // num_parts)`, so that a part that contains
    padding only may count as real.
    """
    return (lengths // max(units // num_parts, 1) + 1).clip(max=num_parts)
