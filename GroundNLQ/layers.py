"""GroundNLQ's layers; state-dict keys and shapes as published (every linear map is a convolution).

Shapes: B batch, T rows of a level, Q query tokens, D hidden, H heads, E = D / H. Tensors are
(B, T, D), masks (B, T, 1) float, 1 at what is there. Source: GroundNLQ (Ego4D challenge 2023),
after ActionFormer (Zhang et al., ECCV 2022).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.layers.attention import attend

BLOCK = 32  # queries of windowed attention that are computed together, with the keys around them
MASKED = -1e4  # added to scores of padding: weight 0 in float32, and no overflow in float16


class Convolution(nn.Module):
    """Along time, zeros beyond both ends: (B, T, inputs) -> (B, T // stride, outputs)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, bias: bool = True, groups: int = 1
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel))
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.groups = groups

    def forward(self, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        kernel = self.weight.shape[2]
        if kernel == 1:
            return F.linear(x, self.weight[:, :, 0], self.bias)
        # As an image of height 1, whose layout (channels last) needs no copy.
        image = F.conv2d(
            x.transpose(1, 2)[:, :, None],
            self.weight[:, :, None],
            self.bias,
            (1, stride),
            (0, kernel // 2),
            groups=self.groups,
        )
        return image[:, :, 0].transpose(1, 2)


class MaskedConvolution(nn.Module):
    """A convolution whose output is 0 at padding."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, bias: bool = False, groups: int = 1
    ):
        super().__init__()
        self.conv = Convolution(inputs, outputs, kernel, bias, groups)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """`mask` is that of the output."""
        return self.conv(x, stride) * mask


class Norm(nn.Module):
    """Layer norm over the hidden width, with parameters shaped (1, D, 1)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dim, 1))
        self.bias = nn.Parameter(torch.zeros(1, dim, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight.flatten(), self.bias.flatten(), 1e-5)


class DropPath(nn.Module):
    """A learned scale per channel; in training whole samples are dropped with probability `p`."""

    def __init__(self, dim: int, p: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, dim, 1), 1e-4))
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.scale[..., 0]
        if self.training and self.p:
            kept = torch.rand(len(x), 1, 1, device=x.device) >= self.p
            x = x * (kept / (1 - self.p)).to(x.dtype)
        return x


def hiding(mask: torch.Tensor) -> torch.Tensor:
    """What is added to attention's scores (B, T) to hide padding, by its mask (B, T, 1)."""
    return (1 - mask[..., 0]) * MASKED


def attend_nearby(
    query: torch.Tensor,  # (B, T, D)
    key: torch.Tensor,  # (B, T, D)
    value: torch.Tensor,  # (B, T, D)
    mask: torch.Tensor,  # (B, T, 1)
    num_heads: int,
    reach: int,
) -> torch.Tensor:
    """What each position finds among those at most `reach` away: (B, T, D).

    Blocks of queries meet the keys of their block and of `reach` positions on both sides.
    """
    rows = query.shape[1]
    missing = -rows % BLOCK
    around = BLOCK + 2 * reach
    query = F.pad(query, (0, 0, 0, missing)).unfold(1, BLOCK, BLOCK)
    key, value = (
        F.pad(x, (0, 0, reach, reach + missing)).unfold(1, around, BLOCK) for x in (key, value)
    )
    # (B, blocks, D, BLOCK or around) -> (B, blocks, H, BLOCK or around, E)
    query, key, value = (
        x.unflatten(2, (num_heads, -1)).transpose(3, 4) for x in (query, key, value)
    )
    bias = F.pad(hiding(mask), (reach, reach + missing), value=MASKED)
    bias = bias.unfold(1, around, BLOCK)[:, :, None, None]  # (B, blocks, 1, 1, around)
    distance = torch.arange(around, device=bias.device) - reach
    distance = (distance - torch.arange(BLOCK, device=bias.device)[:, None]).abs()
    bias = torch.where(distance <= reach, bias, 3 * MASKED).to(query.dtype)
    attended = F.scaled_dot_product_attention(
        *(x.flatten(0, 1) for x in (query, key, value)), attn_mask=bias.flatten(0, 1)
    )
    attended = attended.transpose(1, 2).flatten(2).unflatten(0, (len(mask), -1))
    return attended.flatten(1, 2)[:, :rows]


class SelfAttention(nn.Module):
    """Attention within a sequence, after a depthwise convolution each for query, key and value.

    `reach`: how far a position sees to each side; None for all that is there.
    """

    def __init__(self, dim: int, num_heads: int, reach: int | None):
        super().__init__()
        self.num_heads = num_heads
        self.reach = reach
        for role in ("query", "key", "value"):
            setattr(self, f"{role}_conv", MaskedConvolution(dim, dim, groups=dim))
            setattr(self, f"{role}_norm", Norm(dim))
        for role in ("key", "query", "value", "proj"):
            setattr(self, role, Convolution(dim, dim))

    def forward(self, x: torch.Tensor, mask: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """(B, T, D) -> (B, T // stride, D), 0 at padding; `mask` is that of the output."""
        query = self.query(self.query_norm(self.query_conv(x, mask, stride)))
        key = self.key(self.key_norm(self.key_conv(x, mask, stride)))
        value = self.value(self.value_norm(self.value_conv(x, mask, stride)))
        if self.reach is None:
            attended = attend(query, key, value, hiding(mask), self.num_heads, 0.0)
        else:
            attended = attend_nearby(query, key, value, mask, self.num_heads, self.reach)
        return self.proj(attended) * mask


class CrossAttention(nn.Module):
    """What each row finds in the query: (B, T, D), (B, Q, D) -> (B, T, D), 0 at padding."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        for role in ("key", "query", "value", "proj"):
            setattr(self, role, Convolution(dim, dim))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> torch.Tensor:
        query, key, value = self.query(x), self.key(text), self.value(text)
        attended = attend(query, key, value, hiding(text_mask), self.num_heads, 0.0)
        return self.proj(attended) * mask


class Block(nn.Module):
    """A pre-norm transformer block; with `stride` 2 it halves the number of rows.

    `masked` hides padding from the depthwise convolutions, so that a query's features do not
    depend on the others of its batch.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        drop_path: float,
        reach: int | None = None,
        cross: bool = False,
        stride: int = 1,
        masked: bool = False,
    ):
        super().__init__()
        self.stride = stride
        self.masked = masked
        self.ln1 = Norm(dim)
        self.ln2 = Norm(dim)
        self.attn = SelfAttention(dim, num_heads, reach)
        if cross:
            self.cross_attn = CrossAttention(dim, num_heads)
            self.ln3 = Norm(dim)
        # The numbers 0 and 3 are in the names of the weights.
        self.mlp = nn.Sequential(
            Convolution(dim, 4 * dim), nn.GELU(), nn.Identity(), Convolution(4 * dim, dim)
        )
        self.drop_path_attn = DropPath(dim, drop_path)
        self.drop_path_mlp = DropPath(dim, drop_path)

    def forward(
        self,
        x: torch.Tensor,  # (B, T, D)
        mask: torch.Tensor,  # (B, T, 1)
        text: torch.Tensor | None = None,  # (B, Q, D), for a block with cross-attention
        text_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T // stride, D), and its mask."""
        x = self.look_around(x, mask)
        mask = mask[:, :: self.stride]
        return self.look_at_text(x, mask, text, text_mask), mask

    def look_around(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The first half of the block, which no query takes part in: 0 at padding."""
        normed = self.ln1(x)
        if self.masked:
            normed = normed * mask
        mask = mask[:, :: self.stride]
        attended = self.attn(normed, mask, self.stride)
        if self.stride > 1:
            x = halve(x)
        return x * mask + self.drop_path_attn(attended)

    def look_at_text(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The second half: cross-attention, if the block has any, and the feed-forward layers."""
        if hasattr(self, "cross_attn"):
            attended = self.cross_attn(self.ln3(x), mask, self.ln3(text), text_mask)
            x = x * mask + self.drop_path_attn(attended)
        return x + self.drop_path_mlp(self.mlp(self.ln2(x)) * mask)


def halve(x: torch.Tensor) -> torch.Tensor:
    """The largest of positions 2t - 1, 2t and 2t + 1: (B, T, D) -> (B, T / 2, D), T even."""
    even, odd = x[:, ::2], x[:, 1::2]
    before = F.pad(odd[:, :-1], (0, 0, 1, 0), value=-math.inf)
    return torch.maximum(torch.maximum(even, odd), before)


def sine_positions(rows: int, dim: int) -> torch.Tensor:
    """(rows, D) sines at even channels, cosines at odd ones, divided by sqrt(D)."""
    channel = torch.arange(dim, dtype=torch.float64)
    rate = 10000 ** (-2 * (channel // 2) / dim)
    angle = torch.arange(rows, dtype=torch.float64)[:, None] * rate
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos()) / math.sqrt(dim)
    return table.float()
