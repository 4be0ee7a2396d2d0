"""A picture of a few queries: true and predicted windows on the timeline of the clip."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.data.records import Records

QUERIES = 8  # in a picture
WIDTH, LEFT, LINE, BAR = 900, 12, 16, 10  # pixels
PAPER, INK, TRACK = (255, 255, 255), (30, 36, 44), (226, 231, 237)
TRUE, PREDICTED = (38, 139, 72), (9, 105, 218)


def draw_examples(records: Records, truth: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Draw queries spread evenly over a split, always the same: text, true window, predictions.

    Args:
        truth: (R, 2) seconds, NaN if unknown.
        windows: (R, P, 2) seconds, best first.

    Returns:
        (H, W, 3) uint8.
    """
    rows = np.unique(np.linspace(0, len(records) - 1, QUERIES).astype(int))
    height = LINE * 3 + (BAR + 2) * windows.shape[1]  # of a query
    image = Image.new("RGB", (WIDTH, height * len(rows) + LINE), PAPER)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    durations = records.duration[rows]
    for number, (row, duration) in enumerate(zip(rows, durations, strict=True)):
        top = LINE // 2 + height * number
        text = f"{records.sentences[records.sentence[row]]}   ({duration:.0f} s)"
        pen.text((LEFT, top), text, INK, font)
        _bar(pen, top + LINE + 2, truth[row] / duration, TRUE)
        for rank, window in enumerate(windows[row]):
            _bar(pen, top + LINE * 2 + (BAR + 2) * rank, window / duration, PREDICTED)
    return np.asarray(image)


def _bar(
    pen: ImageDraw.ImageDraw, top: int, window: np.ndarray, colour: tuple[int, int, int]
) -> None:
    """Draw a window (2,), in shares of the clip, on a track as long as the clip."""
    length = WIDTH - 2 * LEFT
    pen.rectangle((LEFT, top, LEFT + length, top + BAR), TRACK)
    if np.isfinite(window).all():
        left, right = LEFT + np.clip(window, 0, 1) * length
        pen.rectangle((left, top, max(right, left + 2), top + BAR), colour)
