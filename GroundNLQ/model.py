"""GroundNLQ: a clip and a query in; at each point of a pyramid a score and a window out.

    video (B, T, F) -> encode_video -> (B, T, D) -+
                                                  +-> ground -> Grounding
    text  (B, Q, E) -> encode_query -> (B, Q, D) -+

Level l of the pyramid has a point every 2**l rows. Shapes: B batch, T rows of feature, F feature
dim, Q query tokens, E token dim, D hidden, P points of all levels, the finest first. Masks are
(B, T) or (B, Q), 1 at what is there. The encoded video does not depend on the query: at inference
a clip is encoded once for all its queries. Source: GroundNLQ (Ego4D challenge 2023); state-dict
keys as published.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from GroundNLQ.layers import Block, MaskedConvolution, Norm, sine_positions

PRIOR = 0.01  # probability that a new model gives each point
POSITIONS = 2560  # rows of the stored table; longer clips have one of their own


class Grounding(NamedTuple):
    """What the model says at each point; padding has logits and offsets of 0."""

    logits: torch.Tensor  # (B, P)
    offsets: torch.Tensor  # (B, P, 2) to the window's start and end, in strides of the level
    mask: torch.Tensor  # (B, P)


class Head(nn.Module):
    """Two convolutions with norms, the same for all levels."""

    def __init__(self, dim: int):
        super().__init__()
        self.head = nn.ModuleList(MaskedConvolution(dim, dim) for _ in range(2))
        self.norm = nn.ModuleList(Norm(dim) for _ in range(2))

    def hidden(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D) of one level -> (B, T, D)."""
        return embed(self.head, self.norm, x, mask)


class ScoreHead(Head):
    """A logit for each point of a level: (B, T, D) -> (B, T)."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.cls_head = MaskedConvolution(dim, 1, bias=True)
        nn.init.constant_(self.cls_head.conv.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.cls_head(self.hidden(x, mask), mask)[..., 0].float()


class OffsetHead(Head):
    """Distances to the window's ends, 0 or more, in strides: (B, T, D) -> (B, T, 2)."""

    def __init__(self, dim: int, levels: int):
        super().__init__(dim)
        scales = (nn.ParameterDict({"scale": torch.tensor(1.0)}) for _ in range(levels))
        self.scale = nn.ModuleList(scales)
        self.offset_head = MaskedConvolution(dim, 2, bias=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, level: int) -> torch.Tensor:
        offsets = self.offset_head(self.hidden(x, mask), mask)
        return F.relu(offsets.float() * self.scale[level].scale)


def embed(
    convolutions: nn.ModuleList, norms: nn.ModuleList, x: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Convolutions, each followed by its norm and a ReLU; padding is left as the norms make it."""
    for convolution, norm in zip(convolutions, norms, strict=True):
        x = F.relu(norm(convolution(x, mask)))
    return x


class GroundNLQ(nn.Module):
    """The whole model; each verb can be called alone.

    Args:
        window: rows that a row sees in self-attention, itself included.
        arch: numbers of embedding layers, of blocks of the text and of the video stem, and of
            pyramid blocks with and without cross-attention.
        masked: hide padding from the convolutions of the text stem, so that windows depend on the
            query alone; as published they read across a query's end.
    """

    def __init__(
        self,
        video_dim: int,
        text_dim: int,
        dim: int = 384,
        num_heads: int = 4,
        window: int = 9,
        arch: Sequence[int] = (2, 4, 4, 0, 6),
        drop_path: float = 0.1,
        masked: bool = True,
    ):
        super().__init__()
        self.video_dim, self.text_dim = video_dim, text_dim
        embeddings, text_blocks, video_blocks, crossing, plain = arch
        self.levels = levels = 1 + crossing + plain
        shape = dim, num_heads, drop_path
        reach = window // 2

        def embedding(inputs: int, kernel: int) -> nn.ModuleList:
            widths = [inputs] + [dim] * (embeddings - 1)
            return nn.ModuleList(MaskedConvolution(width, dim, kernel) for width in widths)

        def norms(count: int) -> nn.ModuleList:
            return nn.ModuleList(Norm(dim) for _ in range(count))

        text_stem = [Block(*shape, masked=masked) for _ in range(text_blocks)]
        video_stem = [Block(*shape, reach, cross=True) for _ in range(video_blocks)]
        branch = [Block(*shape, reach, n < crossing, stride=2) for n in range(levels - 1)]
        self.backbone = nn.ModuleDict({
            "vid_embd": embedding(video_dim, 3),
            "vid_embd_norm": norms(embeddings),
            "txt_embd": embedding(text_dim, 1),
            "txt_embd_norm": norms(embeddings),
            "vid_stem": nn.ModuleList(video_stem),
            "txt_stem": nn.ModuleList(text_stem),
            "branch": nn.ModuleList(branch),
        })  # fmt: skip
        self.register_buffer("positions", sine_positions(POSITIONS, dim), persistent=False)
        self.neck = nn.ModuleDict({"fpn_norms": norms(levels)})
        self.cls_head = ScoreHead(dim)
        self.reg_head = OffsetHead(dim, levels)

    def forward(
        self,
        video: torch.Tensor,  # (B, T, F), T a multiple of the coarsest stride
        video_mask: torch.Tensor,  # (B, T)
        text: torch.Tensor,  # (B, Q, E)
        text_mask: torch.Tensor,  # (B, Q)
    ) -> Grounding:
        """All of it, one clip per query."""
        encoded = self.encode_video(video, video_mask)
        return self.ground(encoded, video_mask, self.encode_query(text, text_mask), text_mask)

    def encode_video(self, video: torch.Tensor, video_mask: torch.Tensor) -> torch.Tensor:
        """(B, T, F), (B, T) -> (B, T, D), all that is computed before the query is looked at."""
        mask = video_mask[..., None]
        x = embed(self.backbone.vid_embd, self.backbone.vid_embd_norm, video, mask)
        rows, dim = x.shape[1:]
        table = self.positions if rows <= POSITIONS else sine_positions(rows, dim).to(x.device)
        x = x + table[:rows] * mask
        return self.backbone.vid_stem[0].look_around(x, mask)

    def encode_query(self, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """(B, Q, E), (B, Q) -> (B, Q, D)."""
        mask = text_mask[..., None]
        x = embed(self.backbone.txt_embd, self.backbone.txt_embd_norm, text, mask)
        for block in self.backbone.txt_stem:
            x, _ = block(x, mask)
        return x

    def pyramid(
        self,
        video: torch.Tensor,  # (B, T, D) encoded
        video_mask: torch.Tensor,
        query: torch.Tensor,  # (B, Q, D) encoded
        query_mask: torch.Tensor,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Features (B, T / 2**l, D) and mask (B, T / 2**l, 1) of each level l."""
        mask, query_mask = video_mask[..., None], query_mask[..., None]
        x = self.stem(video, mask, query, query_mask)
        levels = [(x, mask)]
        for block in self.backbone.branch:
            x, mask = block(x, mask, query, query_mask)
            levels.append((x, mask))
        return levels

    def stem(
        self,
        video: torch.Tensor,  # (B, T, D) encoded
        mask: torch.Tensor,  # (B, T, 1)
        query: torch.Tensor,  # (B, Q, D) encoded
        query_mask: torch.Tensor,  # (B, Q, 1)
    ) -> torch.Tensor:
        """Rows that know the query: (B, T, D)."""
        first, *others = self.backbone.vid_stem
        x = first.look_at_text(video, mask, query, query_mask)
        for block in others:
            x, _ = block(x, mask, query, query_mask)
        return x

    def ground(
        self,
        video: torch.Tensor,  # (B, T, D) encoded
        video_mask: torch.Tensor,
        query: torch.Tensor,  # (B, Q, D) encoded
        query_mask: torch.Tensor,
    ) -> Grounding:
        """Score and window of each point given the query."""
        levels = self.pyramid(video, video_mask, query, query_mask)
        logits, offsets = [], []
        for level, (x, mask) in enumerate(levels):
            x = self.neck.fpn_norms[level](x)
            logits.append(self.cls_head(x, mask))
            offsets.append(self.reg_head(x, mask, level))
        mask = torch.cat([mask[..., 0] for _, mask in levels], 1)
        return Grounding(torch.cat(logits, 1), torch.cat(offsets, 1), mask)
