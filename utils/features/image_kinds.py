"""The kinds of image encoders, and the feature card of what they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from utils.base.errors import UserError
from utils.base.tasks import FRAME_RATE, ROWS_PER_SECOND, STRIDE

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIDDLE = 0.5 / ROWS_PER_SECOND  # seconds from a row's start


@dataclass(frozen=True)
class Kind:
    """A kind of image encoder: where the published one is, how it is fed, what is read of it."""

    published: str | None  # name on the hub
    frames: int  # a row
    offset: float  # seconds from a row's start to its first frame
    rows_at_once: int
    embed: Callable[[Any, Any], Any]  # model, normalised pixels (B, T, 3, H, W) -> (B, F)
    model_class: str = "AutoModel"  # of transformers
    mean: tuple[float, float, float] = IMAGENET_MEAN
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION


def _image_embedding(model: Any, pixels: Any) -> Any:
    """Of the first frames; of a model of images and text, the embedding compared with text's."""
    outputs = getattr(model, "get_image_features", model)(pixel_values=pixels[:, 0])
    return getattr(outputs, "pooler_output", outputs)


KINDS = {
    "clip": Kind(
        published="openai/clip-vit-base-patch16",
        frames=1,
        offset=MIDDLE,
        rows_at_once=32,
        embed=lambda model, pixels: model(pixel_values=pixels[:, 0]).image_embeds,
        model_class="CLIPVisionModelWithProjection",
        mean=(0.48145466, 0.4578275, 0.40821073),
        deviation=(0.26862954, 0.26130258, 0.27577711),
    ),
    "videomae": Kind(
        published="MCG-NJU/videomae-base",
        frames=STRIDE,
        offset=0.5 / FRAME_RATE,
        rows_at_once=4,
        embed=lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean(1),
        model_class="VideoMAEModel",
    ),
    "egovlp": Kind(
        published=None,
        frames=4,
        offset=1.5 / FRAME_RATE,
        rows_at_once=8,
        embed=lambda model, pixels: model(pixels),
    ),
    "image": Kind(published=None, frames=1, offset=MIDDLE, rows_at_once=32, embed=_image_embedding),
}


def encoder_name(kind: str, name: str | None) -> str:
    """The encoder that was named, or the published one; raises UserError if there is none."""
    name = name or KINDS[kind].published
    if name is None:
        encoder = "egovlp.pth, EgoVLP's checkpoint" if kind == "egovlp" else "NAME or a folder"
        raise UserError(f"{kind} features have no encoder to fetch: give --encoder {encoder}")
    return name


def encoder_of_each(names: Sequence[str], encoders: Sequence[str] | None) -> list[str | None]:
    """The encoder of each feature, None for the published one.

    Raises UserError unless there is no encoder, one for all features, or one for each.
    """
    if not encoders or len(encoders) == 1:
        return list(encoders or [None]) * len(names)
    if len(encoders) != len(names):
        raise UserError(
            f"--encoder names {len(encoders)} image encoders for {' and '.join(names)} features: "
            "give one of each"
        )
    return list(encoders)


def expected_card(kind: str, name: str | None) -> dict:
    """The part of an encoder's feature card that is known before it is loaded."""
    return {
        "type": kind,
        "frame_rate": FRAME_RATE,
        "stride": STRIDE,
        "window": KINDS[kind].frames,
        "model": encoder_name(kind, name),
    }
