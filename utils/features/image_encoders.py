"""Image encoders, frozen: video in, feature rows out, 16/30 s apart.

`clip` looks at the middle frame of each row's 16/30 s, with CLIP's image encoder (published:
ViT-B/16, 512 wide); `videomae` at the sixteen frames of it, and averages VideoMAE's tokens. An
encoder is a name on the hub, a local folder, or `tiny`: a small one with random weights, to try
programs with.

Shapes: B rows, T frames a row, H and W pixels, F feature dim.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
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
from utils.features.image_kinds import KINDS, expected_card
from utils.features.pretrained import find_pretrained, load_pretrained, read_config, trying
from utils.features.tensors import to_device
from utils.features.video import sampled_frames

TINY = "tiny"
PIXELS_FILE = "preprocessor_config.json"  # says how pixels are normalised
UNREAD = ("position_ids",)  # weights that feature rows do not need
Deviation = Annotated[float, Meta(ge=1e-3, le=1e3)]
ROWS_AT_ONCE = {"clip": 32, "videomae": 4}


class ImageEncoder:
    """A `transformers` model that makes one feature row of the frames of 16/30 s."""

    def __init__(self, kind: str, name: str | None = None, device: str = "auto"):
        """Raises `UserError` if encoder or device are neither here nor, the encoder, on the hub."""
        if kind not in KINDS:
            raise UserError(f"--type is '{kind}'; known are {', '.join(KINDS)}")
        self.kind, self.name = kind, name or KINDS[kind].published
        self.device = find_device(device)
        if self.name == TINY:
            folder, model = None, _tiny(kind)
        else:
            remedy = "give --encoder FOLDER, or --encoder tiny to try things"
            folder = find_pretrained(self.name, "image encoder", [PIXELS_FILE], remedy)
            read_config(folder)
            model = load_pretrained(_model_class(kind), folder, f"{kind} encoder", UNREAD)
        self._model = model.requires_grad_(False).eval().to(self.device)
        self._size = int(model.config.image_size)
        pixels = _pixel_settings(folder)
        mean = pixels.image_mean or KINDS[kind].mean
        deviation = pixels.image_std or KINDS[kind].deviation
        self._mean = torch.tensor(mean, device=self.device)
        self._deviation = torch.tensor(deviation, device=self.device)

        if folder is not None:
            black = np.zeros((1, KINDS[kind].frames, self._size, self._size, 3), np.uint8)
            trying(folder, f"{kind} encoder", self.encode, black)

    def card(self, width: int) -> dict:
        """The feature card of the rows it makes."""
        digest = hashlib.blake2b(digest_size=10)
        for key, value in self._model.state_dict().items():
            digest.update(key.encode() + value.cpu().float().numpy().tobytes())
        return {
            **expected_card(self.kind, self.name),
            "width": width,
            "hash": digest.hexdigest(),
            "normalisation": "none",
            "source": "utils/extract_features.py",
        }

    def extract(self, video: Path, frame_rate: float | None = None) -> np.ndarray:
        """Feature rows (R, F) float32 of a video file; `frame_rate` is for raw streams.

        Raises:
            UserError: the video can't be read, or rows are not finite.
        """
        rows = []
        name = without_controls(video.name)
        with tqdm(desc=f"{self.kind} of {name}", unit="row", leave=False) as bar:
            for frames in self._batches(video, frame_rate):
                rows.append(self.encode(frames))
                bar.update(len(frames))
        features = torch.cat(rows).cpu().numpy()
        if not np.isfinite(features).all():
            raise UserError(f"{video}: the encoder {self.name} makes rows with NaN or infinity")
        return features

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> torch.Tensor:
        """(B, T, H, W, 3) uint8, square -> (B, F) float32."""
        pixels = to_device(frames, self.device).float() / 255
        pixels = ((pixels - self._mean) / self._deviation).movedim(-1, -3)  # (B, T, 3, H, W)
        if self.kind == "clip":
            return self._model(pixel_values=pixels[:, 0]).image_embeds.float()
        return self._model(pixel_values=pixels).last_hidden_state.mean(1).float()

    def _batches(self, video: Path, frame_rate: float | None) -> Iterator[np.ndarray]:
        """(B, T, H, W, 3) frames of successive rows."""
        kind, size = KINDS[self.kind], self._size
        rate = ROWS_PER_SECOND * kind.frames
        images = sampled_frames(video, rate, kind.offset, size, frame_rate)
        frames = (_square(image, size) for image in images)
        first = True
        while batch := list(islice(frames, ROWS_AT_ONCE[self.kind] * kind.frames)):
            if first:  # a video shorter than a row is one row
                batch += batch[-1:] * (kind.frames - len(batch))
            whole = len(batch) // kind.frames * kind.frames  # a trailing partial row is dropped
            if whole:
                yield np.stack(batch[:whole]).reshape(-1, kind.frames, size, size, 3)
            first = False


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle (size, size, 3) of an image."""
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _model_class(kind: str) -> Any:
    quiet_libraries()
    from transformers import CLIPVisionModelWithProjection, VideoMAEModel

    return CLIPVisionModelWithProjection if kind == "clip" else VideoMAEModel


def _tiny(kind: str) -> nn.Module:
    from transformers import CLIPVisionConfig, VideoMAEConfig

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    if kind == "clip":
        config = CLIPVisionConfig(**sizes, projection_dim=32)
    else:
        config = VideoMAEConfig(**sizes, num_frames=STRIDE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _model_class(kind)(config)


class PixelSettings(Struct):
    """A preprocessor_config.json, as far as it is read here."""

    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[Deviation, Deviation, Deviation] | None = None


def _pixel_settings(folder: Path | None) -> PixelSettings:
    """Of the encoder's own folder, if it has some."""
    file = folder / PIXELS_FILE if folder else None
    return read_json(file, PixelSettings) if file and file.is_file() else PixelSettings()
