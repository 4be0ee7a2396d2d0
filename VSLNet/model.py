"""VSLNet: from a clip and a query, scores of each unit as start and end of the answer.

    video (B, V, F) -> encode_video -> (B, V, D) -+
                                                  +-> fuse -> Predictions
    text  (B, Q, T) -> encode_query -> (B, Q, D) -+

Shapes: B batch, V video units, F feature dim, Q query tokens, T token dim, D hidden. Masks are 1 at
valid positions and 0 at padding. The encoded video does not depend on the query: at inference a
clip is encoded once for all its queries. Source: Zhang et al., ACL 2020; state-dict keys as
published.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils.layers.span_encoder import FeatureEncoder, SpanPredictor, initialise
from VSLNet.layers import (
    ContextQueryAttention,
    ContextQueryConcat,
    HighlightLayer,
    VideoAffine,
    WordsAndCharacters,
)

NO_DECAY = ("bias", "layer_norm", "LayerNorm")


class Predictions(NamedTuple):
    """Logits in float32, -1e30 at padding."""

    highlight_logits: torch.Tensor  # (B, V)
    start_logits: torch.Tensor  # (B, V)
    end_logits: torch.Tensor  # (B, V)


class Losses(NamedTuple):
    """Scalars; `total` is minimised."""

    total: torch.Tensor
    span: torch.Tensor
    highlight: torch.Tensor


class VSLNet(nn.Module):
    """The whole model; each method can be called by itself.

    `text_dim` is the width of the token features; without it (predictor `rnn`) words and characters
    are embedded here, with `word_vectors` and an embedding of `characters` characters.

    `padding`: `masked` hides padding from the convolutions, so that predictions do not depend on
    the batch; `published` lets convolutions read padding after the end of a clip or query.
    """

    def __init__(
        self,
        video_dim: int,
        text_dim: int | None,
        dim: int = 128,
        num_heads: int = 8,
        max_pos_len: int = 128,
        drop_rate: float = 0.2,
        predictor: str = "bert",
        num_extra_attn_blocks: int = 0,
        word_vectors: torch.Tensor | None = None,
        characters: int = 0,
        char_dim: int = 50,
        padding: str = "masked",
    ):
        super().__init__()
        if text_dim is None:
            self.embedding_net = WordsAndCharacters(
                word_vectors, characters, char_dim, dim, drop_rate
            )
        else:
            self.query_affine = nn.Linear(text_dim, dim)
        self.video_affine = VideoAffine(video_dim, dim, drop_rate)
        masked = padding == "masked"
        self.feature_encoder = FeatureEncoder(
            dim, num_heads, max_pos_len, drop_rate, num_extra_attn_blocks, masked
        )
        self.cq_attention = ContextQueryAttention(dim, drop_rate)
        self.cq_concat = ContextQueryConcat(dim)
        self.highlight_layer = HighlightLayer(dim)
        self.predictor = SpanPredictor(predictor, dim, num_heads, max_pos_len, drop_rate, masked)
        initialise(self)

    def forward(
        self,
        video: torch.Tensor,  # (B, V, F)
        video_mask: torch.Tensor,  # (B, V)
        text: torch.Tensor,  # (B, Q, T) token features, or (B, Q) word numbers
        text_mask: torch.Tensor,  # (B, Q)
        characters: torch.Tensor | None = None,  # (B, Q, C) character numbers
    ) -> Predictions:
        """Predict the answer of each query in its clip."""
        return self.fuse(
            self.encode_video(video, video_mask),
            video_mask,
            self.encode_query(text, text_mask, characters),
            text_mask,
        )

    def encode_video(self, video: torch.Tensor, video_mask: torch.Tensor) -> torch.Tensor:
        """(B, V, F), (B, V) -> (B, V, D)."""
        return self.feature_encoder(self.video_affine(video), video_mask)

    def encode_query(
        self, text: torch.Tensor, text_mask: torch.Tensor, characters: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, Q, T), (B, Q) -> (B, Q, D)."""
        if characters is None:
            embedded = self.query_affine(text)
        else:
            embedded = self.embedding_net(text, characters)
        return self.feature_encoder(embedded, text_mask)

    def fuse(
        self,
        video: torch.Tensor,  # (B, V, D) encoded
        video_mask: torch.Tensor,
        query: torch.Tensor,  # (B, Q, D) encoded
        query_mask: torch.Tensor,
    ) -> Predictions:
        """Logits of each unit, given the query."""
        features, highlight = self.highlight(video, video_mask, query, query_mask)
        features = features * highlight.sigmoid().to(features.dtype)[..., None]
        start, end = self.predictor(features, video_mask)
        return Predictions(highlight, start, end)

    def highlight(
        self,
        video: torch.Tensor,  # (B, V, D) encoded
        video_mask: torch.Tensor,
        query: torch.Tensor,  # (B, Q, D) encoded
        query_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Units fused with the query (B, V, D), and highlight logits (B, V)."""
        features = self.cq_attention(video, query, video_mask, query_mask)
        features = self.cq_concat(features, query, query_mask)
        return features, self.highlight_layer(features, video_mask)


def losses(
    predictions: Predictions,
    start: torch.Tensor,  # (B,) units
    end: torch.Tensor,  # (B,)
    highlight: torch.Tensor,  # (B, V) 0 or 1
    video_mask: torch.Tensor,  # (B, V)
    highlight_lambda: float = 5.0,
    units_total: float | None = None,
    weight: float = 1.0,
) -> Losses:
    """Cross-entropy of start and end, and weighted binary cross-entropy of the highlight.

    Highlighted units have weight 2. The highlight loss is a sum over units divided by
    `units_total`, by default their number; processes that share a batch pass their share of its
    units. The span loss is `weight` times the mean over the queries.
    """
    span = F.cross_entropy(predictions.start_logits, start)
    span = weight * (span + F.cross_entropy(predictions.end_logits, end))
    total = video_mask.sum() if units_total is None else units_total
    per_unit = F.binary_cross_entropy_with_logits(
        # Padding has weight 0; a logit of 0 there avoids 0 * infinity.
        predictions.highlight_logits.masked_fill(video_mask == 0, 0.0),
        highlight,
        weight=(1 + highlight) * video_mask,
        reduction="sum",
    )
    highlight_loss = per_unit / total
    return Losses(span + highlight_lambda * highlight_loss, span, highlight_loss)


def parameter_groups(model: nn.Module, weight_decay: float = 0.01) -> list[dict]:
    """Parameters for the optimizer; biases and layer norms are not decayed."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    exempt = [p for name, p in named if any(word in name for word in NO_DECAY)]
    decayed = [p for name, p in named if not any(word in name for word in NO_DECAY)]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
