"""Pictures of a few queries: true and predicted windows on the timeline of the clip."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.data.records import Records

QUERIES = 8  # in a picture
WIDTH, LEFT, LINE, BAR = 900, 12, 16, 10  # pixels
PAPER, INK, TRACK = (255, 255, 255), (30, 36, 44), (226, 231, 237)
TRUE, PREDICTED = (38, 139, 72), (9, 105, 218)


class Example(NamedTuple):
    """A query and its predictions."""

    query: str
    duration: float  # of the clip, seconds
    truth: np.ndarray  # (2,) seconds, NaN if unknown
    windows: np.ndarray  # (P, 2) seconds, best first


def draw_examples(records: Records, truth: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Draw queries spread evenly over a split, always the same ones.

    Args:
        truth: (R, 2) seconds.
        windows: (R, P, 2) seconds.
    """
    rows = np.unique(np.linspace(0, len(records) - 1, QUERIES).astype(int))
    texts = [records.sentences[number] for number in records.sentence[rows]]
    durations = records.duration[rows].tolist()
    return draw(list(map(Example, texts, durations, truth[rows], windows[rows])))


def draw(examples: Sequence[Example]) -> np.ndarray:
    """Draw an image (H, W, 3) uint8: for each query its text, true window and predicted ones."""
    heights = [LINE * 2 + (BAR + 2) * len(example.windows) + LINE for example in examples]
    image = Image.new("RGB", (WIDTH, sum(heights) + LINE), PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    top = LINE // 2
    for example, height in zip(examples, heights, strict=True):
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
        left, right = LEFT + np.clip(window / example.duration, 0, 1) * length
        pen.rectangle((left, top, max(right, left + 2), top + BAR), colour)
