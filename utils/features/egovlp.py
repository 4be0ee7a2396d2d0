"""EgoVLP (Lin et al., NeurIPS 2022): its released checkpoint, and its video branch.

The video branch is the space-time transformer of Frozen in Time (Bain et al., ICCV 2021). Sizes
are read from the weights, and parameters are named as in the checkpoint.

Shapes: B rows, T frames a row, P patches a frame, N = 1 + T P tokens, D hidden, H heads, F feature
dim.
"""

from collections import OrderedDict
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from utils.base.errors import UserError
from utils.base.tensor_files import load_safely
from utils.features.pretrained import trying

HEAD_DIM = 64  # of both branches
EPSILON = 1e-6  # of the video branch's layer norms
FRAME_SIZE = 256  # pixels a side of the square frames that are given to it
WHAT = "checkpoint of EgoVLP"

State = dict[str, torch.Tensor]


def read_checkpoint(file: Path) -> State:
    """The weights of a released or finetuned checkpoint; its other objects are never made.

    Raises UserError if the file is missing or damaged.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; give egovlp.pth, the checkpoint EgoVLP released")
    content = load_safely(file, skip_objects=True, mmap=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {
        str(name).removeprefix("module."): value.float()
        for name, value in state.items()
        if torch.is_tensor(value)
    }


def load_weights(module: nn.Module, state: State) -> nn.Module:
    """Give a module its weights out of a checkpoint, without a copy of them."""
    module.load_state_dict({name: state[name] for name in module.state_dict()}, assign=True)
    return module


def count_layers(state: State, prefix: str) -> int:
    """The number of layers: of numbers that follow a prefix in the names of weights."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def load_video_branch(file: Path) -> "VideoBranch":
    """The video branch of a checkpoint; raises UserError if the file holds none."""
    return trying(file, WHAT, _video_branch, read_checkpoint(file))


def _video_branch(state: State) -> "VideoBranch":
    dim, _, patch_size, _ = state["video_model.patch_embed.proj.weight"].shape
    patches = state["video_model.pos_embed"].shape[1] - 1
    with torch.device("meta"):
        model = VideoBranch(
            image_size=isqrt(patches) * patch_size,
            patch_size=patch_size,
            frames=state["video_model.temporal_embed"].shape[1],
            dim=dim,
            depth=count_layers(state, "video_model.blocks."),
            heads=max(1, dim // HEAD_DIM),
            mlp_dim=len(state["video_model.blocks.0.mlp.fc1.bias"]),
            feature_dim=len(state["vid_proj.0.bias"]),
        )
    return load_weights(model, state)


class VideoBranch(nn.Module):
    """Frames to feature rows, which are neither normalised nor activated."""

    def __init__(self, image_size: int, feature_dim: int, dim: int, **sizes: int):
        super().__init__()
        self.image_size = image_size
        self.video_model = SpaceTimeTransformer(image_size, dim, **sizes)
        self.vid_proj = nn.Sequential(nn.Linear(dim, feature_dim))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, T, 3, H, H) normalised pixels of square frames -> (B, F).

        Frames are made smaller as published: bilinear, without antialiasing.
        """
        size = (self.image_size, self.image_size)
        frames = F.interpolate(pixels.flatten(0, 1), size, mode="bilinear", antialias=False)
        tokens = self.video_model(frames.unflatten(0, pixels.shape[:2]))
        return self.vid_proj(tokens[:, 0])


class SpaceTimeTransformer(nn.Module):
    """A ViT whose blocks attend along time, then within each frame."""

    def __init__(
        self,
        image_size: int,
        dim: int,
        patch_size: int,
        frames: int,
        depth: int,
        heads: int,
        mlp_dim: int,
    ):
        super().__init__()
        patches = (image_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        self.temporal_embed = nn.Parameter(torch.zeros(1, frames, dim))
        projection = nn.Conv2d(3, dim, patch_size, patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=projection))
        self.blocks = nn.ModuleList(SpaceTimeBlock(dim, heads, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, EPSILON)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T, 3, H, H) -> (B, N, D): the class token, then the patches frame by frame."""
        tokens = self.embed(frames)
        for block in self.blocks:
            tokens = block(tokens, frames.shape[1])
        return self.norm(tokens)

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Tokens with their positions; frames beyond those of training have no time."""
        batch, count = frames.shape[:2]
        patches = self.patch_embed(frames.flatten(0, 1)).flatten(2).transpose(1, 2)
        patches = patches.unflatten(0, (batch, count))
        missing = max(0, count - self.temporal_embed.shape[1])
        times = F.pad(self.temporal_embed, (0, 0, 0, missing))[:, :count, None]  # (1, T, 1, D)
        patches = patches + self.pos_embed[:, None, 1:] + times  # (B, T, P, D)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        return torch.cat([cls, patches.flatten(1, 2)], 1)


class SpaceTimeBlock(nn.Module):
    """Attention along time, attention within frames, and an MLP.

    As published, the residual of the second attention is the block's input, not the first one's
    output.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim, EPSILON) for _ in range(3))
        self.attn = GroupedAttention(dim, heads, along_time=False)
        self.timeattn = GroupedAttention(dim, heads, along_time=True)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(dim, mlp_dim), act=nn.GELU(), fc2=nn.Linear(mlp_dim, dim))
        )

    def forward(self, tokens: torch.Tensor, frames: int) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        timed = tokens + self.timeattn(self.norm3(tokens), frames)
        tokens = tokens + self.attn(self.norm1(timed), frames)
        return tokens + self.mlp(self.norm2(tokens))


class GroupedAttention(nn.Module):
    """The class token attends to all tokens; a patch to the class token and its group.

    The group is the patches at its place in all frames, or those of its frame.
    """

    def __init__(self, dim: int, heads: int, along_time: bool):
        super().__init__()
        self.heads, self.along_time = heads, along_time
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, frames: int) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        heads = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, H, N, D / H)
        cls = F.scaled_dot_product_attention(query[:, :, :1], key, value)
        patches = F.scaled_dot_product_attention(
            self._groups(query, frames),
            self._groups(key, frames, with_cls=True),
            self._groups(value, frames, with_cls=True),
        )
        patches = (patches.transpose(2, 3) if self.along_time else patches).flatten(2, 3)
        return self.proj(torch.cat([cls, patches], 2).transpose(1, 2).flatten(2))

    def _groups(self, heads: torch.Tensor, frames: int, with_cls: bool = False) -> torch.Tensor:
        """(B, H, N, d) -> (B, H, P, T, d) along time, else (B, H, T, P, d)."""
        groups = heads[:, :, 1:].unflatten(2, (frames, -1))
        groups = groups.transpose(2, 3) if self.along_time else groups
        if not with_cls:
            return groups
        cls = heads[:, :, None, :1].expand(-1, -1, groups.shape[2], -1, -1)
        return torch.cat([cls, groups], 3)
