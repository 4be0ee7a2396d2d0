"""ReLER's own layers: input projections, positions, cross-modal and self-attention encoders.

Shapes: B clips or parts of clips, V video units, Q query tokens, D hidden, F feature dim. Attribute
names follow the state dict of the published release.

Masks come as biases that are added to attention scores: 0 where there is something to attend to,
`MASKED` at padding that the published model sees, `ABSENT` at places that exist only because parts
of different lengths share a tensor. A softmax over masked places alone is uniform over them, and
still blind to the absent ones.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.layers.attention import attend
from utils.layers.dropout import Dropout, for_products, joint
from utils.layers.span_encoder import WeightedPool

MASKED = -10_000.0
ABSENT = -60_000.0  # far below MASKED, and within the range of half precision
CROSS_NORM_EPS = 1e-12


class InputLayer(nn.Module):
    """LayerNorm, dropout, linear and perhaps a ReLU: (B, V, F) -> (B, V, D)."""

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
    place = mask.float().cumsum(1)
    place = place / (place[:, -1:] + 1e-6) * (2 * math.pi)
    channel = torch.arange(width, device=mask.device)
    period = 10_000.0 ** (2 * (channel // 2) / width)
    angle = place[..., None] / period
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class LearnedPositions(nn.Module):
    """One trained vector per place; places past the last share its vector."""

    def __init__(self, places: int, hidden: int):
        super().__init__()
        self.position_embeddings = nn.Embedding(places, hidden)

    def forward(self, length: int) -> torch.Tensor:
        """(1, length, D)."""
        weight = self.position_embeddings.weight
        place = torch.arange(length, device=weight.device).clamp(max=len(weight) - 1)
        return self.position_embeddings(place)[None]


class BiAttention(nn.Module):
    """Video attends to text and text to video, both reading the states before the exchange."""

    def __init__(self, hidden: int, heads: int, video_dropout: float, text_dropout: float):
        super().__init__()
        self.heads = heads
        self.video_dropout = video_dropout  # of attention over video units
        self.text_dropout = text_dropout  # of attention over query tokens
        self.query1, self.key1, self.value1 = (nn.Linear(hidden, hidden) for _ in range(3))
        self.query2, self.key2, self.value2 = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(
        self,
        video: torch.Tensor,  # (B, V, D)
        text: torch.Tensor,  # (B, Q, D)
        video_bias: torch.Tensor,  # (B, V)
        text_bias: torch.Tensor,  # (B, Q)
        text_wanted: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What each video unit hears from the text, (B, V, D), and, if that is wanted, what each
        token sees in the video, (B, Q, D)."""
        of_text = joint(text, self.key2, self.value2, *([self.query2] if text_wanted else []))
        of_video = joint(video, self.query1, *([self.key1, self.value1] if text_wanted else []))
        heard = self._attend(of_video[0], *of_text[:2], text_bias, self.text_dropout)
        if not text_wanted:
            return heard, None
        return heard, self._attend(of_text[2], *of_video[1:], video_bias, self.video_dropout)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor,
        dropout: float,
    ) -> torch.Tensor:
        return attend(query, key, value, bias, self.heads, dropout if self.training else 0.0)


class BiOutput(nn.Module):
    """The linear layers and norms that close the attention sublayer, 1 for video, 2 for text."""

    def __init__(self, hidden: int, video_dropout: float, text_dropout: float):
        super().__init__()
        self.dense1 = nn.Linear(hidden, hidden)
        self.LayerNorm1 = nn.LayerNorm(hidden, eps=CROSS_NORM_EPS)
        self.dropout1 = Dropout(video_dropout)
        self.dense2 = nn.Linear(hidden, hidden)
        self.LayerNorm2 = nn.LayerNorm(hidden, eps=CROSS_NORM_EPS)
        self.dropout2 = Dropout(text_dropout)


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

    Norms come after each residual sum, or with `pre_norm` before each sublayer.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        video_inner: int,
        text_inner: int,
        video_dropouts: tuple[float, float],  # of attention, of outputs
        text_dropouts: tuple[float, float],
        pre_norm: bool,
    ):
        super().__init__()
        self.biattention = BiAttention(hidden, heads, video_dropouts[0], text_dropouts[0])
        self.biOutput = BiOutput(hidden, video_dropouts[1], text_dropouts[1])
        self.v_intermediate = Intermediate(hidden, video_inner)
        self.v_output = Output(video_inner, hidden, video_dropouts[1])
        self.t_intermediate = Intermediate(hidden, text_inner)
        self.t_output = Output(text_inner, hidden, text_dropouts[1])
        self.pre_norm = pre_norm

    def forward(
        self,
        video: torch.Tensor,  # (B, V, D)
        text: torch.Tensor,  # (B, Q, D)
        video_bias: torch.Tensor,  # (B, V)
        text_bias: torch.Tensor,  # (B, Q)
        update_text: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New states of both; without `update_text` the text is handed back as it came."""
        attention, out = self.biattention, self.biOutput
        seen, heard = video, text
        if self.pre_norm:
            seen, heard = out.LayerNorm1(video), out.LayerNorm2(text)
        of_text, of_video = attention(seen, heard, video_bias, text_bias, update_text)
        new_video = self._add(video, out.dropout1(out.dense1(of_text)), out.LayerNorm1)
        new_video = self._feed_forward(new_video, self.v_intermediate, self.v_output)
        if of_video is None:
            return new_video, text
        new_text = self._add(text, out.dropout2(out.dense2(of_video)), out.LayerNorm2)
        return new_video, self._feed_forward(new_text, self.t_intermediate, self.t_output)

    def text_branch(self) -> list[nn.Module]:
        """The modules that only the new text states depend on."""
        attention, out = self.biattention, self.biOutput
        return [
            *(attention.query2, attention.key1, attention.value1),
            *(out.dense2, self.t_intermediate, self.t_output),
            *([] if self.pre_norm else [out.LayerNorm2]),
        ]

    def _add(self, x: torch.Tensor, update: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        return x + update if self.pre_norm else norm(x + update)

    def _feed_forward(self, x: torch.Tensor, first: Intermediate, second: Output) -> torch.Tensor:
        entering = second.LayerNorm(x) if self.pre_norm else x
        return self._add(x, second(first(entering)), second.LayerNorm)


class CrossEncoder(nn.Module):
    """Cross-modal layers in a row; with `text_fixed` each of them hears the text as it entered."""

    def __init__(self, layers: list[CrossLayer], text_fixed: bool):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.text_fixed = text_fixed

    def forward(
        self,
        video: torch.Tensor,
        text: torch.Tensor,
        video_bias: torch.Tensor,
        text_bias: torch.Tensor,
        text_wanted: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, V, D) and (B, Q, D); the text is up to date only if it is wanted afterwards."""
        for layer in self.layers:
            update = self._updates_text(layer, text_wanted)
            video, text = layer(video, text, video_bias, text_bias, update)
        return video, text

    def _updates_text(self, layer: nn.Module, text_wanted: bool) -> bool:
        return not self.text_fixed and (text_wanted or layer is not self.layers[-1])

    def unread(self, text_wanted: bool) -> list[nn.Module]:
        """Modules that `forward` leaves out."""
        idle = [layer for layer in self.layers if not self._updates_text(layer, text_wanted)]
        return [module for layer in idle for module in layer.text_branch()]


class CrossSelfEncoder(nn.Module):
    """Cross-modal layers and, if there are any, self-attention layers over video and text."""

    def __init__(
        self, cross_encoder: CrossEncoder, self_encoder: nn.Module | None, cross_first: bool
    ):
        super().__init__()
        self.cross_encoder = cross_encoder
        self.self_encoder = self_encoder
        self.cross_first = cross_first
        # What nothing reads is kept for the checkpoint's sake, and not trained.
        for module in cross_encoder.unread(self._text_wanted):
            module.requires_grad_(False)

    @property
    def _text_wanted(self) -> bool:
        """Whether anything reads the text after the cross-modal layers."""
        return self.self_encoder is not None and self.cross_first

    def forward(
        self,
        video: torch.Tensor,  # (B, V, D)
        text: torch.Tensor,  # (B, Q, D)
        video_bias: torch.Tensor,  # (B, V)
        text_bias: torch.Tensor,  # (B, Q)
    ) -> torch.Tensor:
        """Video units that know the text: (B, V, D)."""
        if self.self_encoder is not None and not self.cross_first:
            video, text = self._self_attend(video, text, video_bias, text_bias)
        video, text = self.cross_encoder(video, text, video_bias, text_bias, self._text_wanted)
        if self.self_encoder is not None and self.cross_first:
            video, text = self._self_attend(video, text, video_bias, text_bias)
        return video

    def _self_attend(
        self,
        video: torch.Tensor,
        text: torch.Tensor,
        video_bias: torch.Tensor,
        text_bias: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # A query has a token at least, so that no row is masked as a whole.
        padding = torch.cat((video_bias, text_bias), 1) < 0
        both = self.self_encoder(torch.cat((video, text), 1), src_key_padding_mask=padding)
        return both.split((video.shape[1], text.shape[1]), 1)


def self_encoder(
    hidden: int, heads: int, inner: int, dropout: float, layers: int, pre_norm: bool
) -> nn.TransformerEncoder | None:
    """`layers` self-attention layers (none: None), closed by a norm if norms come first."""
    if not layers:
        return None
    layer = nn.TransformerEncoderLayer(
        hidden, heads, inner, dropout, batch_first=True, norm_first=pre_norm
    )
    norm = nn.LayerNorm(hidden) if pre_norm else None
    return nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)


class PartScore(nn.Module):
    """How likely a part holds the answer: a weighted pool over its units, and a linear layer."""

    def __init__(self, hidden: int):
        super().__init__()
        self.weighted_pool = WeightedPool(hidden)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(B, V, D), (B, V) -> (B,) logits."""
        weight = self.weighted_pool.weight
        shares = ((x @ weight)[..., 0].float() + bias).softmax(1)  # (B, V)
        pooled = (shares[:, None].to(x.dtype) @ x)[:, 0]  # (B, D)
        return self.linear(pooled)[:, 0]
