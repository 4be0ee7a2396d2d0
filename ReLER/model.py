"""ReLER: a clip is cut into N parts, each part reads the query, and the parts predict one window.

    video (B, V, F) -> embed_video -> (B, V, D) -+
                                                 +-> encode -> (B, V, D) -> predict -> Outputs
    text  (B, Q, T) -> embed_text  -> (B, Q, D) -+   in N parts

Shapes: B clips, V video units, F feature dim, Q query tokens, T token dim, D hidden, N parts,
P = ceil(V / N) units of a part, C contrastive dim. Masks are 1 at what is there and 0 at padding.
Cutting is by the padded length V, so a part may hold padding alone; it gets a score all the same,
which `part_mask` keeps out of the loss.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ReLER.layers import (
    ABSENT,
    MASKED,
    CrossEncoder,
    CrossLayer,
    CrossSelfEncoder,
    LearnedPositions,
    PartScore,
    input_projection,
    self_encoder,
    sine_positions,
)
from ReLER.options import SCALES, ModelOptions
from utils.evaluation.decoding import best_spans
from utils.layers.dropout import Dropout
from utils.layers.span_encoder import SpanPredictor, mask_logits

TOP = 5  # windows predicted for a query


class Outputs(NamedTuple):
    """What the model says about a batch cut into N parts. Padded units have logits of -1e30."""

    start_logits: torch.Tensor  # (B, V)
    end_logits: torch.Tensor  # (B, V)
    highlight_logits: torch.Tensor  # (B, V)
    saliency_scores: torch.Tensor  # (B, V)
    part_logits: torch.Tensor  # (B, N) how likely a part holds the answer
    part_mask: torch.Tensor  # (B, N) 1 for parts that count as real (`real_parts`)
    projected_video: torch.Tensor  # (B, V, C) of length 1
    projected_text: torch.Tensor  # (B, Q, C) of length 1
    text_mask: torch.Tensor  # (B, Q)

    @property
    def highlight_scores(self) -> torch.Tensor:
        """(B, V) probability that a unit is near the answer; 0 at padding."""
        return self.highlight_logits.sigmoid()

    @property
    def part_scores(self) -> torch.Tensor:
        """(B, N) probability that a part holds the answer."""
        return self.part_logits.sigmoid()


class ReLER(nn.Module):
    """The whole model; each verb can be called alone. Published state dicts load as they are."""

    def __init__(self, options: ModelOptions, video_dim: int, text_dim: int = 512):
        """`video_dim` is F, with clip features and temporal endpoints, `text_dim` is T."""
        super().__init__()
        self.options = options
        self.video_dim = video_dim
        self.text_dim = text_dim
        hidden = options.hidden_dim
        self.cross_self_encoder = CrossSelfEncoder(
            CrossEncoder(
                [_cross_layer(options) for _ in range(options.num_cross_encoder_layers)],
                text_fixed=options.cross_text_use_ori,
            ),
            self_encoder(
                hidden,
                options.nheads,
                options.dim_feedforward,
                options.dropout,
                options.enc_layers,
                options.pre_norm,
            ),
            options.cross_first,
        )
        self.cross_input_dropout = Dropout(options.cross_input_dropout)
        self.input_txt_proj = input_projection(
            text_dim, hidden, options.input_dropout, options.n_input_proj
        )
        self.input_vid_proj = input_projection(
            video_dim, hidden, options.input_dropout, options.n_input_proj
        )
        if options.use_txt_pos:
            self.txt_position_embed = LearnedPositions(options.max_q_l, hidden)
        if options.position_embedding == "learned":
            self.vid_position_embed = LearnedPositions(options.max_v_l, hidden)
        self.contrastive_align_projection_txt = nn.Linear(hidden, options.contrastive_hdim)
        self.contrastive_align_projection_vid = nn.Linear(hidden, options.contrastive_hdim)
        self.highlight_proj = nn.Linear(hidden, 1)
        self.saliency_proj = nn.Linear(hidden, 1)
        self.NPM_proj = PartScore(hidden)
        self.predictor = SpanPredictor(
            options.conditioned_span_pred_predictor,
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
        """Everything the losses and the prediction need, with the clips cut into `num_parts`."""
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
        size: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Units that know the query, scaled by their part's score; the parts' logits and mask.

        With `size`, the units of a part, the clips may lack parts that hold padding alone.
        """
        batch, units, hidden = video.shape
        size = size or -(-units // num_parts)
        absent = num_parts * size - units  # the last parts may be shorter, or empty
        mask = F.pad(video_mask.float(), (0, absent)).view(batch * num_parts, size)
        bias = F.pad((1 - video_mask.float()) * MASKED, (0, absent), value=ABSENT).view_as(mask)
        text_bias = (1 - text_mask.float()) * MASKED

        parts = F.pad(video, (0, 0, 0, absent)).view(batch * num_parts, size, hidden)
        parts = parts + self._video_positions(mask).to(parts.dtype)
        if self.options.use_txt_pos:
            text = text + self.txt_position_embed(text.shape[1])
        parts = self.cross_self_encoder(
            self.cross_input_dropout(parts),
            self.cross_input_dropout(text).repeat_interleave(num_parts, 0),
            bias,
            text_bias.repeat_interleave(num_parts, 0),
        )

        logits = self.NPM_proj(parts, bias).float().view(batch, num_parts)
        real = real_parts(video_mask.sum(1, keepdim=True), units, num_parts)
        part_mask = (torch.arange(num_parts, device=video.device) < real).float()
        scores = logits.sigmoid()
        if self.options.NPM_score_norm:
            scores = scores / scores.amax(1, keepdim=True)
        parts = parts * scores.to(parts.dtype).view(-1, 1, 1)
        return parts.view(batch, num_parts * size, hidden)[:, :units], logits, part_mask

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
        scales: Sequence[int] = SCALES,
        top: int = TOP,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best windows in units (B, top, 2) and their scores (B, top), of all scales together.

        Each scale offers its `top` best pairs; of equal scores the earlier scale's comes first.
        Padding that no score depends on is left out, which changes nothing.
        """
        padded = video.shape[1]
        kept = padded
        if not self.options.NPM_score_norm:  # there an empty part counts too
            longest = int(video_mask.sum(1).max())
            kept = min(padded, longest + self.predictor.reach)
        sizes = [-(-padded // parts) for parts in scales]
        counts = [-(-kept // size) for size in sizes]  # of parts
        read = max(count * size for count, size in zip(counts, sizes, strict=True))
        video, text = self.embed_video(video[:, :read]), self.embed_text(text)
        offers = []
        for count, size in zip(counts, sizes, strict=True):
            some, mask = video[:, : count * size], video_mask[:, : count * size]
            encoded, _, _ = self.encode(some, mask, text, text_mask, count, size)
            start, end = self.predictor(encoded[:, :kept], video_mask[:, :kept])
            offers.append(best_spans(start, end, top))
        spans = torch.cat([spans for spans, _ in offers], 1)
        scores, order = torch.cat([scores for _, scores in offers], 1).sort(
            dim=1, descending=True, stable=True
        )
        order = order[:, :top]
        return spans.gather(1, order[..., None].expand(-1, -1, 2)), scores[:, :top]

    def _video_positions(self, mask: torch.Tensor) -> torch.Tensor:
        if self.options.position_embedding == "learned":
            return self.vid_position_embed(mask.shape[1])
        return sine_positions(mask, self.options.hidden_dim)


def real_parts(lengths: Any, units: int, num_parts: int) -> Any:
    """How many of the parts count as real, for an array or tensor of clip lengths.

    As published: one more than whole steps of `units // num_parts` fit, so that a part with padding
    alone may count as real.
    """
    return (lengths // max(units // num_parts, 1) + 1).clip(max=num_parts)


def _cross_layer(options: ModelOptions) -> CrossLayer:
    return CrossLayer(
        options.hidden_dim,
        options.bi_num_attention_heads,
        options.v_intermediate_size,
        options.intermediate_size,
        (options.v_attention_probs_dropout_prob, options.v_hidden_dropout_prob),
        (options.attention_probs_dropout_prob, options.hidden_dropout_prob),
        options.pre_norm,
    )
