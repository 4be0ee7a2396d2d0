"""The kinds of image encoders, and the feature card of what they make."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.base.errors import UserError
from utils.base.tasks import FRAME_RATE, ROWS_PER_SECOND, STRIDE

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Kind:
    """A kind of image encoder: where the published one is, and how it is fed."""

    published: str | None  # name on the hub
    frames: int  # a row
    offset: float  # seconds from a row's start to its first frame
    rows_at_once: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION


KINDS = {
    "clip": Kind(
        published="openai/clip-vit-base-patch16",
        frames=1,
        offset=0.5 / ROWS_PER_SECOND,
        rows_at_once=32,
        mean=(0.48145466, 0.4578275, 0.40821073),
        deviation=(0.26862954, 0.26130258, 0.27577711),
    ),
    "videomae": Kind(
        published="MCG-NJU/videomae-base",
        frames=STRIDE,
        offset=0.5 / FRAME_RATE,
        rows_at_once=4,
    ),
    "egovlp": Kind(published=None, frames=4, offset=1.5 / FRAME_RATE, rows_at_once=8),
    "image": Kind(published=None, frames=1, offset=0.5 / ROWS_PER_SECOND, rows_at_once=32),
}


def encoder_name(kind: str, name: str | None) -> str:
    """The encoder that was named, or the published one; raises UserError if there is none."""
    if kind not in KINDS:
        raise UserError(f"--type is '{kind}'; known are {', '.join(KINDS)}")
    name = name or KINDS[kind].published
    if name is None:
        encoder = "egovlp.pth, EgoVLP's checkpoint" if kind == "egovlp" else "NAME or a folder"
        raise UserError(f"{kind} features have no encoder to fetch: give --encoder {encoder}")
    return name


def encoder_of_each(names: Sequence[str], encoders: Sequence[str] | None) -> list[str | None]:
    """The encoder of each feature: none is named, one for all, or one for each.

    Raises UserError if there are as many as neither.
    """
    of_each = list(encoders or [None])
    of_each *= len(names) if len(of_each) == 1 else 1
    if len(of_each) != len(names):
        listed = " and ".join(names)
        raise UserError(
            f"--encoder names {len(of_each)} image encoders for {listed} features: give one of each"
        )
    return of_each


def expected_card(kind: str, name: str | None) -> dict:
    """What the feature card of an encoder's rows will say, as far as it is known unloaded."""
    return {
        "type": kind,
        "frame_rate": FRAME_RATE,
        "stride": STRIDE,
        "window": KINDS[kind].frames,
        "model": encoder_name(kind, name),
    }
