"""A contact sheet: for each window that was found, some of its frames in a row. Needs Pillow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import UserError
from utils.base.files import atomic_write
from utils.features.video import frames_at

FRAMES = 5  # of a window
HEIGHT = 120  # pixels of a frame
CAPTION = 22  # pixels of a line of text
FONT = 14
GAP = 4
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def check_sheet(file: str | Path) -> None:
    """Refuse a name of a sheet that could not be written, before anything long begins."""
    if Path(file).suffix.lower() not in FORMATS:
        raise UserError(f"{file}: a sheet is {', '.join(FORMATS)}; give such a name")
    _library()


def write_sheet(
    file: str | Path, video: Path, rows: Sequence[tuple[str, tuple[float, float] | None]]
) -> None:
    """Write the sheet, atomically.

    Args:
        rows: a caption each, with a window (start, end) in seconds whose frames are shown below
            it, or without one: a heading.
    """
    check_sheet(file)
    image_type, draw_type, font_type = _library()
    times = [window_times(*window) for _, window in rows if window is not None]
    frames = frames_at(video, [time for some in times for time in some], HEIGHT)
    width, height = (frames[0].shape[1], HEIGHT) if frames else (HEIGHT, HEIGHT)
    lines = CAPTION * len(rows) + (height + GAP) * len(times)
    font = font_type.load_default(FONT)
    widest = max([round(font.getlength(caption)) for caption, _ in rows], default=0) + 2 * GAP
    across = max(FRAMES * (width + GAP) - GAP, widest)  # of an upright video, the frames are less
    sheet = image_type.new("RGB", (across, lines), "white")
    draw = draw_type.Draw(sheet)
    at, top = iter(frames), 0
    for caption, window in rows:
        draw.text((GAP, top + GAP), caption, fill="black", font=font)
        top += CAPTION
        if window is not None:
            for place in range(FRAMES):
                frame = image_type.fromarray(np.asarray(next(at))[:height, :width])
                sheet.paste(frame, (place * (width + GAP), top))
            top += height + GAP
    with atomic_write(file) as stream:
        sheet.save(stream, FORMATS[Path(file).suffix.lower()])


def window_times(start: float, end: float) -> list[float]:
    """When a window's frames are taken: the middles of its equal parts."""
    return [start + (place + 0.5) / FRAMES * (end - start) for place in range(FRAMES)]


def _library() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise UserError("contact sheets need Pillow: pip install pillow") from None
    return Image, ImageDraw, ImageFont
