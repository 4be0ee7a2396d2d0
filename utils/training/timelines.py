"""Pictures of a few queries: the true window and the predicted ones on the clip's timeline."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

QUERIES = 8  # in a picture
WIDTH, LEFT, LINE, BAR = 900, 12, 16, 10  # pixels
PAPER, INK, TRACK = (255, 255, 255), (30, 36, 44), (226, 231, 237)
TRUE, PREDICTED = (38, 139, 72), (9, 105, 218)


class Example(NamedTuple):
    """One query and what was predicted for it."""

    query: str
    duration: float  # of the clip, seconds
    truth: np.ndarray  # (2,) seconds, NaN if unknown
    windows: np.ndarray  # (P, 2) seconds, best first


def examples(
    queries: Sequence[str], durations: np.ndarray, truth: np.ndarray, windows: np.ndarray
) -> list[Example]:
    """Queries spread evenly over a split, always the same ones.

    Args:
        queries: R texts.
        durations: (R,) seconds of each query's clip.
        truth: (R, 2) seconds.
        windows: (R, P, 2) seconds.
    """
    rows = np.unique(np.linspace(0, len(queries) - 1, QUERIES).astype(int))
    return [Example(queries[row], float(durations[row]), truth[row], windows[row]) for row in rows]


def draw(shown: Sequence[Example]) -> np.ndarray:
    """An image (H, W, 3) uint8: for each query its text, the true window, the predicted ones."""
    heights = [LINE * 2 + (BAR + 2) * len(example.windows) + LINE for example in shown]
    image = Image.new("RGB", (WIDTH, sum(heights) + LINE), PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    top = LINE // 2
    for example, height in zip(shown, heights, strict=True):
        pen.text((LEFT, top), f"{example.query}   ({example.duration:.0f} s)", INK, font)
        _bar(pen, top + LINE + 2, example, example.truth, TRUE)
        for place, window in enumerate(example.windows):
            _bar(pen, top + LINE * 2 + (BAR + 2) * place, example, window, PREDICTED)
        top += height
    return np.asarray(image)


def _bar(
    pen: ImageDraw.ImageDraw,
    top: int,
    example: Example,
    window: np.ndarray,
    colour: tuple[int, int, int],
) -> None:
    length = WIDTH - 2 * LEFT
    pen.rectangle((LEFT, top, LEFT + length, top + BAR), TRACK)
    if np.isfinite(window).all():
        first, last = LEFT + np.clip(window / example.duration, 0, 1) * length
        pen.rectangle((first, top, max(last, first + 2), top + BAR), colour)
