"""ReLER's layers: input projections, positions and attention across the modalities.

Shapes: B clips or parts of clips, V video units, Q query tokens, D hidden, F feature dim. Attribute
names follow the state dict of the published release.

Masks are biases that are added to attention scores: 0 at valid positions, `PADDING_BIAS` at padding
of the published model, `ABSENT_BIAS` at further padding of parts of different lengths in a tensor,
which is ignored even by a softmax over padding alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ReLER.options import ModelOptions
from utils.layers.attention import attend
from utils.layers.dropout import Dropout
from utils.layers.span_encoder import WeightedPool, for_products

PADDING_BIAS = -10_000.0
ABSENT_BIAS = -60_000.0  # far below PADDING_BIAS, and within the range of half precision
CROSS_NORM_EPS = 1e-12


class InputLayer(nn.Module):
    """LayerNorm, dropout, linear and optionally a ReLU: (B, V, F) -> (B, V, D)."""

    def __init__(self, inputs: int, outputs: int, dropout: float, relu: bool):
        super().__init__()
        self.LayerNorm = nn.LayerNorm(inputs)
        self.net = nn.Sequential(Dropout(dropout), nn.Linear(inputs, outputs))
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.net(for_products(self.LayerNorm(x)))
        return F.relu(x) if self.relu else x


def input_projection(inputs: int, hidden: int, dropout: float, layers: int) -> nn.Sequential:
    """`layers` input layers in a row; all but the last end in a ReLU."""
    widths = [inputs] + [hidden] * layers
    return nn.Sequential(
        *(InputLayer(widths[i], widths[i + 1], dropout, relu=i < layers - 1) for i in range(layers))
    )


def sine_positions(mask: torch.Tensor, width: int) -> torch.Tensor:
    """Positions of valid units as sines, a part's last unit at 2 pi: (B, V) -> (B, V, width)."""
    position = mask.float().cumsum(1)
    position = position / (position[:, -1:] + 1e-6) * (2 * math.pi)
    channel = torch.arange(width, device=mask.device)
    period = 10_000.0 ** (2 * (channel // 2) / width)
    angle = position[..., None] / period
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class BiAttention(nn.Module):
    """Attention of video units to query tokens, and of tokens to units."""

    def __init__(self, options: ModelOptions):
        super().__init__()
        hidden = options.hidden_dim
        self.heads = options.bi_num_attention_heads
        self.video_dropout = options.v_attention_probs_dropout_prob  # of attention to units
        self.text_dropout = options.attention_probs_dropout_prob  # of attention to tokens
        self.query1, self.key1, self.value1 = (nn.Linear(hidden, hidden) for _ in range(3))
        self.query2, self.key2, self.value2 = (nn.Linear(hidden, hidden) for _ in range(3))

    def video_to_text(
        self, video: torch.Tensor, text: torch.Tensor, text_bias: torch.Tensor
    ) -> torch.Tensor:
        """Attention of units to tokens: (B, V, D), (B, Q, D), (B, Q) -> (B, V, D)."""
        query, key, value = self.query1(video), self.key2(text), self.value2(text)
        drop_rate = self.text_dropout if self.training else 0.0
        return attend(query, key, value, text_bias, self.heads, drop_rate)

    def text_to_video(
        self, text: torch.Tensor, video: torch.Tensor, video_bias: torch.Tensor
    ) -> torch.Tensor:
        """Attention of tokens to units: (B, Q, D), (B, V, D), (B, V) -> (B, Q, D)."""
        query, key, value = self.query2(text), self.key1(video), self.value1(video)
        drop_rate = self.video_dropout if self.training else 0.0
        return attend(query, key, value, video_bias, self.heads, drop_rate)


class BiOutput(nn.Module):
    """The last linear layers and norms of the attention sublayer, 1 for video, 2 for text."""

    def __init__(self, options: ModelOptions):
        super().__init__()
        hidden = options.hidden_dim
        self.dense1 = nn.Linear(hidden, hidden)
        self.LayerNorm1 = nn.LayerNorm(hidden, eps=CROSS_NORM_EPS)
        self.dropout1 = Dropout(options.v_hidden_dropout_prob)
        self.dense2 = nn.Linear(hidden, hidden)
        self.LayerNorm2 = nn.LayerNorm(hidden, eps=CROSS_NORM_EPS)
        self.dropout2 = Dropout(options.hidden_dropout_prob)


class Intermediate(nn.Module):
    """First half of a feed-forward sublayer."""

    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.dense = nn.Linear(hidden, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.dense(x))


class Output(nn.Module):
    """Second half of a feed-forward sublayer, with the norm of the whole."""

    def __init__(self, inner: int, hidden: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(inner, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=CROSS_NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(x))


class CrossLayer(nn.Module):
    """Attention across the modalities, then a feed-forward net for each of them.

    Both directions of attention read the layer's inputs. Norms follow each residual sum, or precede
    each sublayer with `pre_norm`. Without `updates_text` the text is returned unchanged; modules
    that only update it are there for the checkpoint, and are not trained.
    """

    def __init__(self, options: ModelOptions, updates_text: bool):
        super().__init__()
        hidden = options.hidden_dim
        video_inner, text_inner = options.v_intermediate_size, options.intermediate_size
        self.pre_norm = options.pre_norm
        self.updates_text = updates_text
        self.biattention = attention = BiAttention(options)
        self.biOutput = output = BiOutput(options)
        self.v_intermediate = Intermediate(hidden, video_inner)
        self.v_output = Output(video_inner, hidden, options.v_hidden_dropout_prob)
        self.t_intermediate = Intermediate(hidden, text_inner)
        self.t_output = Output(text_inner, hidden, options.hidden_dropout_prob)
        if not updates_text:
            unused = [attention.query2, attention.key1, attention.value1, output.dense2]
            unused += [self.t_intermediate, self.t_output]
            if not self.pre_norm:
                unused.append(output.LayerNorm2)
            for module in unused:
                module.requires_grad_(False)

    def forward(
        self,
        video: torch.Tensor,  # (B, V, D)
        text: torch.Tensor,  # (B, Q, D)
        video_bias: torch.Tensor,  # (B, V)
        text_bias: torch.Tensor,  # (B, Q)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New states of both, in the same shapes."""
        attention, output = self.biattention, self.biOutput
        video_in, text_in = video, text
        if self.pre_norm:
            video_in, text_in = output.LayerNorm1(video), output.LayerNorm2(text)
        attended = output.dense1(attention.video_to_text(video_in, text_in, text_bias))
        video = self._add(video, output.dropout1(attended), output.LayerNorm1)
        video = self._feed_forward(video, self.v_intermediate, self.v_output)
        if self.updates_text:
            attended = output.dense2(attention.text_to_video(text_in, video_in, video_bias))
            text = self._add(text, output.dropout2(attended), output.LayerNorm2)
            text = self._feed_forward(text, self.t_intermediate, self.t_output)
        return video, text

    def _add(self, x: torch.Tensor, update: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        return x + update if self.pre_norm else norm(x + update)

    def _feed_forward(self, x: torch.Tensor, first: Intermediate, second: Output) -> torch.Tensor:
        x_in = second.LayerNorm(x) if self.pre_norm else x
        return self._add(x, second(first(x_in)), second.LayerNorm)


class CrossEncoder(nn.Module):
    """Cross-modal layers in a row."""

    def __init__(self, options: ModelOptions):
        super().__init__()
        count = options.num_cross_encoder_layers
        self.layers = nn.ModuleList(
            CrossLayer(options, updates_text=i < count - 1) for i in range(count)
        )

    def forward(
        self,
        video: torch.Tensor,  # (B, V, D)
        text: torch.Tensor,  # (B, Q, D)
        video_bias: torch.Tensor,  # (B, V)
        text_bias: torch.Tensor,  # (B, Q)
    ) -> torch.Tensor:
        """Units fused with the query: (B, V, D)."""
        for layer in self.layers:
            video, text = layer(video, text, video_bias, text_bias)
        return video


class PartScore(nn.Module):
    """How likely a part holds the answer: a weighted pool over its units, and a linear layer."""

    def __init__(self, hidden: int):
        super().__init__()
        self.weighted_pool = WeightedPool(hidden)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(B, V, D), (B, V) -> (B,) logits."""
        scores = (x @ self.weighted_pool.weight)[..., 0].float()
        weights = (scores + bias).softmax(1)  # (B, V)
        pooled = (weights[:, None].to(x.dtype) @ x)[:, 0]  # (B, D)
        return self.linear(pooled)[:, 0]
