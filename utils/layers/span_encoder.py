"""Layers that VSLNet and ReLER share: the feature encoder and the span predictor.

Shapes: B batch, V video units, Q query tokens, D hidden. Masks: 1 at valid positions, 0 at padding.
Attribute names follow the state dicts of the published release, where every width-1 convolution
keeps its weight as (out, in, 1); here they are linear layers, and everything stays (B, V, D).
Source: Zhang et al., "Span-based Localizing Network for Natural Language Video Localization",
ACL 2020, sections 3.2 to 3.4; the encoder is QANet's.
"""

import torch
import torch.nn.functional as F
from torch import nn

from utils.layers.attention import attend
from utils.layers.dropout import Dropout

MASKED_LOGIT = -1e30
NORM_EPS = 1e-6
CONVOLUTIONS = 4
KERNEL = 7
REACH = CONVOLUTIONS * (KERNEL // 2)  # positions that one convolution block sees ahead
PREDICTOR_REACH = 2 * REACH  # units of padding that a span predictor's logits depend on


def for_products(x: torch.Tensor) -> torch.Tensor:
    """`x` in the precision that autocast computes matrix products in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Conv1D(nn.Module):
    """A width-1 convolution: a linear layer over the last dimension."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1d = nn.Conv1d(inputs, outputs, 1)

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., outputs); of several parts, as if they lay side by side."""
        widths = [part.shape[-1] for part in parts]
        weights = self.conv1d.weight.squeeze(-1).split(widths, 1)
        y = F.linear(parts[0], weights[0], self.conv1d.bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            y = y + F.linear(part, weight)
        return y


class WeightedPool(nn.Module):
    """A softmax-weighted mean over positions: (B, Q, D), (B, Q) -> (B, D)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = (x @ self.weight).squeeze(-1).float().masked_fill(mask == 0, MASKED_LOGIT)
        return (scores.softmax(1).to(x.dtype)[:, None] @ x).squeeze(1)


class PositionEmbedding(nn.Module):
    """Learned positions, added."""

    def __init__(self, positions: int, dim: int):
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.position_embeddings.weight[: x.shape[1]]


class SeparableConvBlock(nn.Module):
    """Pre-norm depthwise-separable convolutions with residuals.

    As published they read across the end of a sample: its last `REACH` positions depend on the
    padding after it. `masked` hides the padding from them.
    """

    def __init__(self, dim: int, drop_rate: float, masked: bool = False):
        super().__init__()
        self.masked = masked
        self.depthwise_separable_conv = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim, bias=False),
                nn.Conv1d(dim, dim, 1),
            )
            for _ in range(CONVOLUTIONS)
        )
        self.layer_norms = nn.ModuleList(
            nn.LayerNorm(dim, eps=NORM_EPS) for _ in range(CONVOLUTIONS)
        )
        self.dropout = Dropout(drop_rate)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for (depthwise, pointwise), norm in zip(
            self.depthwise_separable_conv, self.layer_norms, strict=True
        ):
            y = norm(x)
            if self.masked:
                y = y * mask[..., None]
            # As a convolution of height 1 the (B, V, D) layout is the fast "channels last" one. On
            # a CPU its gradient is several times as slow in bfloat16.
            with torch.autocast("cpu", enabled=False):
                y = F.conv2d(
                    y.transpose(1, 2).unsqueeze(2),
                    depthwise.weight.unsqueeze(2),
                    padding=(0, KERNEL // 2),
                    groups=x.shape[-1],
                )
            y = y.squeeze(2).transpose(1, 2)
            y = F.relu(F.linear(y, pointwise.weight.squeeze(-1), pointwise.bias))
            x = x + self.dropout(y)
        return x


class AttentionBlock(nn.Module):
    """Pre-norm self-attention followed by a linear layer, both with residuals."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float):
        super().__init__()
        self.num_heads = num_heads
        self.drop_rate = drop_rate
        self.query = Conv1D(dim, dim)
        self.key = Conv1D(dim, dim)
        self.value = Conv1D(dim, dim)
        self.layer_norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.layer_norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.out_layer = Conv1D(dim, dim)
        self.dropout = Dropout(drop_rate)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.dropout(for_products(self.layer_norm1(x)))
        x = x + attend(
            self.query(y),
            self.key(y),
            self.value(y),
            (mask == 0) * MASKED_LOGIT,
            self.num_heads,
            self.drop_rate if self.training else 0.0,
        )
        y = self.dropout(for_products(self.layer_norm2(x)))
        return x + self.dropout(self.out_layer(y))


class FeatureEncoder(nn.Module):
    """Positions, convolutions, self-attention: (B, V, D), (B, V) -> (B, V, D)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        max_pos_len: int,
        drop_rate: float,
        extra_blocks: int = 0,
        masked: bool = False,
    ):
        super().__init__()
        self.pos_embedding = PositionEmbedding(max_pos_len, dim)
        self.conv_block = SeparableConvBlock(dim, drop_rate, masked)
        self.attention_block = AttentionBlock(dim, num_heads, drop_rate)
        self.extra_attention_blocks = nn.ModuleList(
            AttentionBlock(dim, num_heads, drop_rate) for _ in range(extra_blocks)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.attention_block(self.conv_block(self.pos_embedding(x), mask), mask)
        for block in self.extra_attention_blocks:
            x = block(x, mask)
        return x


class LSTMEncoder(nn.Module):
    """One LSTM over the units; padding comes out as 0."""

    def __init__(self, dim: int):
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):  # on a CPU not all precisions can be trained
            return self.lstm(x.float())[0] * mask[..., None]


class SpanHead(nn.Sequential):
    """Score of each unit from its encoded and its original features: 2 x (B, V, D) -> (B, V)."""

    def __init__(self, dim: int):
        super().__init__(Conv1D(2 * dim, dim), nn.ReLU(), Conv1D(dim, 1))

    def forward(self, encoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        first, activation, last = self
        return last(activation(first(encoded, x))).squeeze(-1)


class SpanPredictor(nn.Module):
    """Start and end logits, the end conditioned on the start: (B, V, D), (B, V) -> 2 x (B, V).

    `kind` is what encodes the units: `bert` a feature encoder applied twice in sequence, `rnn` two
    LSTMs in sequence. Logits are float32, -1e30 at padding.
    """

    def __init__(
        self,
        kind: str,
        dim: int,
        num_heads: int,
        max_pos_len: int,
        drop_rate: float,
        masked: bool = False,
    ):
        super().__init__()
        self.kind = kind
        if kind == "bert":
            self.encoder = FeatureEncoder(dim, num_heads, max_pos_len, drop_rate, masked=masked)
            self.start_layer_norm = nn.LayerNorm(dim, eps=NORM_EPS)
            self.end_layer_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        else:
            self.start_encoder = LSTMEncoder(dim)
            self.end_encoder = LSTMEncoder(dim)
        self.start_block = SpanHead(dim)
        self.end_block = SpanHead(dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kind == "bert":
            start = self.encoder(x, mask)
            end = self.encoder(start, mask)
            start, end = self.start_layer_norm(start), self.end_layer_norm(end)
        else:
            start = self.start_encoder(x, mask)
            end = self.end_encoder(start, mask)
        x = for_products(x)
        return (
            mask_logits(self.start_block(start, x), mask),
            mask_logits(self.end_block(end, x), mask),
        )


def mask_logits(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Float32 logits, -1e30 at padding: (B, V), (B, V) -> (B, V)."""
    return logits.float().masked_fill(mask == 0, MASKED_LOGIT)


def initialise(model: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as published, for every layer that has them."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            module.reset_parameters()
