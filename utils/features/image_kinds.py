"""The kinds of image encoders, and the feature card of what they make."""

from dataclasses import dataclass

from utils.base.tasks import FRAME_RATE, ROWS_PER_SECOND, STRIDE


@dataclass(frozen=True)
class Kind:
    """A kind of image encoder: where the published one is, and how it is fed."""

    published: str  # name on the hub
    frames: int  # a row
    offset: float  # seconds from a row's start to its first frame
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


KINDS = {
    "clip": Kind(
        published="openai/clip-vit-base-patch16",
        frames=1,
        offset=0.5 / ROWS_PER_SECOND,
        mean=(0.48145466, 0.4578275, 0.40821073),
        deviation=(0.26862954, 0.26130258, 0.27577711),
    ),
    "videomae": Kind(
        published="MCG-NJU/videomae-base",
        frames=STRIDE,
        offset=0.5 / FRAME_RATE,
        mean=(0.485, 0.456, 0.406),
        deviation=(0.229, 0.224, 0.225),
    ),
}


def expected_card(kind: str, name: str | None) -> dict:
    """What the feature card of an encoder's rows will say, as far as it is known unloaded."""
    return {
        "frame_rate": FRAME_RATE,
        "stride": STRIDE,
        "window": KINDS[kind].frames,
        "model": name or KINDS[kind].published,
    }
