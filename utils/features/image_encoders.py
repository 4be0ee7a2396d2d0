"""Image encoders, frozen: video in, feature rows out, 16/30 s apart.

`clip` looks at the middle frame of each row's 16/30 s, with CLIP's image encoder (published:
ViT-B/16, 512 wide), `image` with any vision tower of `transformers` that has an image embedding;
`videomae` at the sixteen frames of it, and averages VideoMAE's tokens; `egovlp` at four of them,
with EgoVLP's video branch. An encoder is a name on the hub, a local folder, EgoVLP's checkpoint, or
`tiny`: a small one with random weights, to try programs with.

Shapes: B rows, T frames a row, H and W pixels, F feature dim.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import nn
from tqdm import tqdm

from utils.base.errors import UserError, quiet_libraries, without_controls
from utils.base.files import read_json
from utils.base.machine import find_device
from utils.base.tasks import ROWS_PER_SECOND, STRIDE
from utils.features.egovlp import FRAME_SIZE, VideoBranch, load_video_branch
from utils.features.image_kinds import KINDS, encoder_name, expected_card
from utils.features.pretrained import (
    find_pretrained,
    hash_weights,
    load_pretrained,
    read_config,
    trying,
)
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
        """Raises `UserError` if encoder or device are neither here nor, the encoder, on the hub."""
        self.kind, self.name = kind, encoder_name(kind, name)
        self.device = find_device(device)
        model, pixels = _load(kind, self.name)
        self._model = model.requires_grad_(False).eval().to(self.device)
        self.size, side = pixels.square()
        self.grid = Grid(ROWS_PER_SECOND * KINDS[kind].frames, KINDS[kind].offset, side)
        self._mean = torch.tensor(pixels.image_mean or KINDS[kind].mean, device=self.device)
        deviation = pixels.image_std or KINDS[kind].deviation
        self._deviation = torch.tensor(deviation, device=self.device)

        black = np.zeros((1, KINDS[kind].frames, self.size, self.size, 3), np.uint8)
        trying(Path(self.name), f"{kind} encoder", self.encode, black)

    def card(self, width: int) -> dict:
        """The feature card of the rows it makes."""
        return {
            **expected_card(self.kind, self.name),
            "width": width,
            "hash": hash_weights(self._model.state_dict()),
            "normalisation": "none",
            "source": "utils/extract_features.py",
        }

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> torch.Tensor:
        """(B, T, H, W, 3) uint8, square -> (B, F) float32."""
        pixels = to_device(frames, self.device).float() / 255
        pixels = ((pixels - self._mean) / self._deviation).movedim(-1, -3)  # (B, T, 3, H, W)
        return EMBED[self.kind](self._model, pixels).float()


def extract_rows(
    encoders: Sequence[ImageEncoder], video: Path, frame_rate: float | None = None
) -> list[np.ndarray]:
    """Each encoder's feature rows (R, F) float32 of a video file, which is decoded once.

    Args:
        frame_rate: for a raw stream, whose frames have no times.

    Raises:
        UserError: the video can't be read, or rows are not finite.
    """
    rows = [_Rows(encoder) for encoder in encoders]
    kinds = " and ".join(encoder.kind for encoder in encoders)
    name = without_controls(video.name)
    with tqdm(desc=f"{kinds} of {name}", unit="row", leave=False) as bar:
        grids = [encoder.grid for encoder in encoders]
        for number, image in sampled_frames(video, grids, frame_rate):
            bar.update(rows[number].add(image))
    return [of_encoder.finish(video) for of_encoder in rows]


class _Rows:
    """The rows that an encoder makes of a video's frames, which come one by one."""

    def __init__(self, encoder: ImageEncoder):
        self._encoder, self._kind = encoder, KINDS[encoder.kind]
        self._frames: list[np.ndarray] = []  # that are not encoded yet
        self._rows: list[torch.Tensor] = []

    def add(self, image: np.ndarray) -> int:
        """Take a frame; returns how many rows were encoded."""
        self._frames.append(_square(image, self._encoder.size))
        is_full = len(self._frames) == self._kind.rows_at_once * self._kind.frames
        return self._encode() if is_full else 0

    def finish(self, video: Path) -> np.ndarray:
        """All rows (R, F); raises UserError if they are not finite."""
        if not self._rows:  # a video shorter than a row is one row
            self._frames += self._frames[-1:] * (self._kind.frames - len(self._frames))
        self._encode()
        features = torch.cat(self._rows).cpu().numpy()
        if not np.isfinite(features).all():
            name = self._encoder.name
            raise UserError(f"{video}: the encoder {name} makes rows with NaN or infinity")
        return features

    def _encode(self) -> int:
        rows = len(self._frames) // self._kind.frames  # a trailing partial row is dropped
        if rows:
            frames = np.stack(self._frames[: rows * self._kind.frames])
            frames = frames.reshape(rows, self._kind.frames, *frames.shape[1:])
            self._rows.append(self._encoder.encode(frames))
        self._frames = []
        return rows


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle (size, size, 3) of an image, rounded as torchvision's CenterCrop does."""
    top, left = (round((length - size) / 2) for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _image_embedding(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Of the first frames; of a model of images and text it is the one that is compared."""
    outputs = getattr(model, "get_image_features", model)(pixel_values=pixels[:, 0])
    return getattr(outputs, "pooler_output", outputs)  # (B, F)


# Normalised pixels (B, T, 3, H, W) -> (B, F).
EMBED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "clip": lambda model, pixels: model(pixel_values=pixels[:, 0]).image_embeds,
    "videomae": lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean(1),
    "egovlp": lambda model, pixels: model(pixels),
    "image": _image_embedding,
}


class Lengths(Struct):
    """A size in a preprocessor_config.json."""

    shortest_edge: Pixels | None = None
    height: Pixels | None = None


class PixelSettings(Struct):
    """A preprocessor_config.json, as far as it is read here."""

    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[Deviation, Deviation, Deviation] | None = None
    size: Pixels | Lengths | None = None
    crop_size: Pixels | Lengths | None = None

    def square(self) -> tuple[int, int]:
        """Pixels a side of the square that is cut out, and of a frame's shorter side before."""
        side, size = (
            (length.shortest_edge or length.height) if isinstance(length, Lengths) else length
            for length in (self.size, self.crop_size)
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
        remedy = "give --encoder FOLDER, or --encoder tiny to try things"
        folder = find_pretrained(name, "image encoder", [PIXELS_FILE], remedy)
        read_config(folder)
        model = load_pretrained(_model_class(kind), folder, f"{kind} encoder", UNREAD)
        if (file := folder / PIXELS_FILE).is_file():
            pixels = read_json(file, PixelSettings)
    if pixels.size is None:
        config = getattr(model.config, "vision_config", model.config)
        pixels.size = getattr(config, "image_size", None)
    return model, pixels


def _model_class(kind: str) -> Any:
    quiet_libraries()
    from transformers import AutoModel, CLIPVisionModelWithProjection, VideoMAEModel

    return {"clip": CLIPVisionModelWithProjection, "videomae": VideoMAEModel}.get(kind, AutoModel)


def _tiny(kind: str) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel, VideoMAEConfig

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
            return _model_class(kind)(VideoMAEConfig(**sizes, num_frames=STRIDE))
        model_class = CLIPVisionModel if kind == "image" else _model_class(kind)
        return model_class(CLIPVisionConfig(**sizes, projection_dim=32))
