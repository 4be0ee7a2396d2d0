"""Image encoders, frozen: video in, feature rows out, 16/30 s apart.

`clip` looks at the middle frame of each row's 16/30 s, with CLIP's image encoder (published:
ViT-B/16, 512 wide), `image` with any vision tower of `transformers` that has an image embedding;
`videomae` at the sixteen frames of it, and averages VideoMAE's tokens; `egovlp` at four of them,
with EgoVLP's video branch. An encoder is a name on the hub, a local folder, EgoVLP's checkpoint, or
`tiny`: a small one with random weights, to try programs with.

Shapes: B rows, T frames a row, H and W pixels, F feature dim.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import nn
from tqdm import tqdm

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.machine import find_device
from utils.base.outlets import without_controls
from utils.base.tasks import ROWS_PER_SECOND, STRIDE
from utils.features.egovlp import FRAME_SIZE, VideoBranch, load_video_branch
from utils.features.image_kinds import KINDS, encoder_name, expected_card
from utils.features.pretrained import find_pretrained, hash_weights, load_pretrained, trying
from utils.features.tensors import to_device
from utils.features.video import Grid, sampled_frames

TINY = "tiny"
PIXELS_FILE = "preprocessor_config.json"  # says how pixels are normalised
UNREAD = ("position_ids",)  # weights that feature rows do not need
DEFAULT_SIZE = 224  # pixels, where neither settings nor model say it
Pixels = Annotated[int, Meta(ge=1, le=4096)]
Deviation = Annotated[float, Meta(ge=1e-3, le=1e3)]


class ImageEncoder:
    """A model that makes one feature row of the frames of 16/30 s."""

    def __init__(self, kind: str, name: str | None = None, device: str = "auto"):
        """Raises `UserError` if there is no such encoder, or no such device."""
        self.kind, self.name = kind, encoder_name(kind, name)
        self.frames_per_row = KINDS[kind].frames
        self.device = find_device(device)
        model, pixels = _load(kind, self.name)
        self._model = model.requires_grad_(False).eval().to(self.device)
        self.size, side = pixels.square()
        self.grid = Grid(ROWS_PER_SECOND * self.frames_per_row, KINDS[kind].offset, side)
        self._mean = torch.tensor(pixels.image_mean or KINDS[kind].mean, device=self.device)
        deviation = pixels.image_std or KINDS[kind].deviation
        self._deviation = torch.tensor(deviation, device=self.device)

        black = np.zeros((1, self.frames_per_row, self.size, self.size, 3), np.uint8)
        trying(Path(self.name), f"{kind} encoder", self.encode, black)

    def card(self, width: int) -> dict:
        """The feature card of the rows it makes."""
        return {
            **expected_card(self.kind, self.name),
            "width": width,
            "hash": self.hash,
            "normalisation": "none",
            "source": "utils/extract_features.py",
        }

    @cached_property
    def hash(self) -> str:
        return hash_weights(self._model.state_dict())

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> torch.Tensor:
        """(B, T, H, W, 3) uint8, square -> (B, F) float32."""
        pixels = to_device(frames, self.device).float() / 255
        pixels = ((pixels - self._mean) / self._deviation).movedim(-1, -3)  # (B, T, 3, H, W)
        return KINDS[self.kind].embed(self._model, pixels).float()

    def encode_list(self, frames: list[np.ndarray]) -> torch.Tensor:
        """Square frames one after another -> (B, F); a trailing partial row is dropped."""
        rows = len(frames) // self.frames_per_row
        stacked = np.stack(frames[: rows * self.frames_per_row])
        return self.encode(stacked.reshape(rows, self.frames_per_row, *stacked.shape[1:]))


def extract_rows(
    encoders: Sequence[ImageEncoder], video: Path, frame_rate: float | None = None
) -> list[np.ndarray]:
    """Each encoder's feature rows (R, F) float32 of a video file, which is decoded once.

    Raises UserError if the video can't be read, or rows are not finite.
    """
    frames: list[list[np.ndarray]] = [[] for _ in encoders]  # that are not encoded yet
    rows: list[list[torch.Tensor]] = [[] for _ in encoders]
    kinds = " and ".join(encoder.kind for encoder in encoders)
    name = without_controls(video.name)
    with tqdm(desc=f"{kinds} of {name}", unit="row", leave=False) as bar:
        grids = [encoder.grid for encoder in encoders]
        for number, image in sampled_frames(video, grids, frame_rate):
            encoder, waiting = encoders[number], frames[number]
            waiting.append(_square(image, encoder.size))
            rows_at_once = KINDS[encoder.kind].rows_at_once
            if len(waiting) == rows_at_once * encoder.frames_per_row:
                rows[number].append(encoder.encode_list(waiting))
                waiting.clear()
                bar.update(rows_at_once)
    features = []
    for encoder, waiting, encoded in zip(encoders, frames, rows, strict=True):
        if not encoded:  # a video shorter than a row is one row
            waiting += waiting[-1:] * (encoder.frames_per_row - len(waiting))
        if len(waiting) >= encoder.frames_per_row:
            encoded.append(encoder.encode_list(waiting))
        features.append(torch.cat(encoded).cpu().numpy())
        if not np.isfinite(features[-1]).all():
            raise UserError(f"{video}: the encoder {encoder.name} makes rows with NaN or infinity")
    return features


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle (size, size, 3) of an image, rounded as torchvision's CenterCrop does."""
    top, left = (round((length - size) / 2) for length in image.shape[:2])
    return image[top : top + size, left : left + size]


class PixelSettings(Struct):
    """A preprocessor_config.json, as far as it is read here."""

    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[Deviation, Deviation, Deviation] | None = None
    size: Pixels | dict[str, Pixels | None] | None = None
    crop_size: Pixels | dict[str, Pixels | None] | None = None

    def square(self) -> tuple[int, int]:
        """Pixels a side of the square that is cut out, and of a frame's shorter side before."""
        side, size = (
            size.get("shortest_edge") or size.get("height") if isinstance(size, dict) else size
            for size in (self.size, self.crop_size)
        )
        size = size or side or DEFAULT_SIZE
        return size, max(size, side or 0)


def _load(kind: str, name: str) -> tuple[nn.Module, PixelSettings]:
    """An encoder and how its pixels are prepared."""
    pixels = PixelSettings(size=FRAME_SIZE if kind == "egovlp" else None)
    if name == TINY:
        model = _tiny(kind)
    elif kind == "egovlp":
        model = load_video_branch(Path(name))
    else:
        import transformers

        remedy = "give --encoder FOLDER, or --encoder tiny to try things"
        folder = find_pretrained(name, "image encoder", [PIXELS_FILE], remedy)
        model_class = getattr(transformers, KINDS[kind].model_class)
        model = load_pretrained(model_class, folder, f"{kind} encoder", UNREAD)
        if (file := folder / PIXELS_FILE).is_file():
            pixels = read_json(file, PixelSettings)
    if pixels.size is None:
        config = getattr(model.config, "vision_config", model.config)
        pixels.size = getattr(config, "image_size", None)
    return model, pixels


def _tiny(kind: str) -> nn.Module:
    """A small encoder with random weights."""
    import transformers

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "egovlp":
            return VideoBranch(32, 32, 32, patch_size=8, frames=4, depth=2, heads=2, mlp_dim=64)
        if kind == "videomae":
            config = transformers.VideoMAEConfig(**sizes, num_frames=STRIDE)
            return transformers.VideoMAEModel(config)
        config = transformers.CLIPVisionConfig(**sizes, projection_dim=32)
        if kind == "clip":
            return transformers.CLIPVisionModelWithProjection(config)
        return transformers.CLIPVisionModel(config)
