"""ReLER: a clip is cut into N parts, each part reads the query, and the parts predict one window.

    video (B, V, F) -> embed_video -> (B, V, D) -+
                                                 +-> encode -> (B, V, D) -> predict -> Outputs
    text  (B, Q, T) -> embed_text  -> (B, Q, D) -+   in N parts

Shapes: B clips, V video units, F feature dim, Q query tokens, T token dim, D hidden, N parts,
P = ceil(V / N) units of a part, C contrastive dim. Masks are 1 at what is there and 0 at padding.
Cutting is by the padded length V, so a part may hold padding alone; it gets a score all the same,
which `part_mask` keeps out of the loss.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ReLER.options import SCALES, TOP
from utils.base.errors import UserError
from utils.evaluation.predictions import best_spans
from utils.layers.dropout import Dropout
from utils.layers.span_encoder import SpanPredictor, mask_logits

LARGEST = 1 << 16  # of any whole number in the model's shape


@dataclass(frozen=True)
class ModelOptions:
    """The model's shape, named as in the published release, with its scripts' values."""

    v_feat_dim: int  # chosen feature + CLIP + 2 temporal endpoints
    t_feat_dim: int = 512
    hidden_dim: int = 256
    n_input_proj: int = 2
    input_dropout: float = 0.5

    position_embedding: str = "sine"  # of video units: sine or learned
    use_txt_pos: bool = False  # learned positions of query tokens
    max_v_l: int = 600
    max_q_l: int = 32

    num_cross_encoder_layers: int = 3
    bi_num_attention_heads: int = 8
    v_intermediate_size: int = 1024
    intermediate_size: int = 1024
    v_attention_probs_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    v_hidden_dropout_prob: float = 0.1
    hidden_dropout_prob: float = 0.1
    cross_input_dropout: float = 0.1
    cross_text_use_ori: bool = False  # each cross-modal layer hears the text as it entered

    enc_layers: int = 0  # self-attention layers over video and text together
    nheads: int = 8
    dim_feedforward: int = 1024
    dropout: float = 0.1
    cross_first: bool = True  # cross-modal layers before the self-attention layers
    pre_norm: bool = False

    NPM_score_norm: int = 0  # 1: the parts' scores are divided by the highest
    contrastive_hdim: int = 64
    conditioned_span_pred_predictor: str = "bert"  # bert (transformer), rnn (LSTM), justfc
    conditioned_span_pred_num_heads: int = 8
    conditioned_span_pred_drop_rate: float = 0.2

    @classmethod
    def of(cls, opt: Mapping[str, Any]) -> "ModelOptions":
        """The options of a checkpoint or of the command line; others among them are ignored.

        Raises `UserError` for a published configuration that this model cannot take.
        """
        hidden = opt.get("hidden_dim", cls.hidden_dim)
        for name in ("hidden_size", "v_hidden_size", "bi_hidden_size"):
            if opt.get(name, hidden) != hidden:
                raise UserError(f"{name} {opt[name]} differs from hidden_dim {hidden}")
        for name in ("hidden_act", "v_hidden_act"):
            if opt.get(name, "gelu") != "gelu":
                raise UserError(f"{name} is '{opt[name]}', but only 'gelu' is known")
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in opt.items() if name in names})

    def __post_init__(self) -> None:
        # Checkpoints bring values from anywhere.
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        for name, known in (
            ("position_embedding", ("sine", "learned")),
            ("conditioned_span_pred_predictor", ("bert", "rnn", "justfc")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is '{getattr(self, name)}', known are {', '.join(known)}")
        for heads in ("bi_num_attention_heads", "nheads", "conditioned_span_pred_num_heads"):
            if self.hidden_dim % getattr(self, heads):
                raise UserError(f"hidden_dim {self.hidden_dim} is no multiple of {heads}")


def _check_value(field: dataclasses.Field, value: Any) -> None:
    """Refuse what is no value of an option of the model's shape."""
    counts = ("num_cross_encoder_layers", "enc_layers", "NPM_score_norm")
    least = 0 if field.name in counts else 1
    sound = {
        int: isinstance(value, int) and least <= value <= LARGEST,
        float: isinstance(value, int | float) and 0 <= value < 1,  # chances of dropout
        bool: isinstance(value, bool | int) and value in (0, 1),
        str: isinstance(value, str),
    }
    if not sound[field.type]:
        shown = repr(value)[:40]
        raise UserError(f"{field.name} is {shown}, no value that a model can be built with")


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

    def __init__(self, options: ModelOptions):
        super().__init__()
        self.options = options
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
            options.t_feat_dim, hidden, options.input_dropout, options.n_input_proj
        )
        self.input_vid_proj = input_projection(
            options.v_feat_dim, hidden, options.input_dropout, options.n_input_proj
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
