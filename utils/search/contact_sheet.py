"""A contact sheet: a row of frames for each window."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

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
    """Raise UserError if the name of a sheet is not that of an image."""
    if Path(file).suffix.lower() not in FORMATS:
        raise UserError(f"{file}: a sheet is an image; give a name with {', '.join(FORMATS)}")


def write_sheet(
    file: str | Path,
    video: Path,
    rows: Sequence[tuple[str, Sequence[float] | None]],
    frame_rate: float | None = None,
) -> None:
    """Write the sheet atomically.

    Args:
        rows: captions, with a window (start, end) in seconds whose frames are shown below, or with
            None for a heading.
        frame_rate: of a video that is a raw stream.
    """
    windows = [window for _, window in rows if window is not None]
    # A frame from the middle of each of a window's equal parts.
    shares = [(part + 0.5) / FRAMES for part in range(FRAMES)]
    times = [start + share * (end - start) for start, end in windows for share in shares]
    images = [Image.fromarray(frame) for frame in frames_at(video, times, HEIGHT, frame_rate)]
    step = GAP + (images[0].width if images else HEIGHT)
    font = ImageFont.load_default(FONT)
    captions = [round(font.getlength(caption)) + 2 * GAP for caption, _ in rows]
    width = max(FRAMES * step - GAP, *captions)  # captions are wider than upright frames
    height = CAPTION * len(rows) + (HEIGHT + GAP) * len(windows)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    remaining, top = iter(images), 0
    for caption, window in rows:
        draw.text((GAP, top + GAP), caption, fill="black", font=font)
        top += CAPTION
        if window is not None:
            for column in range(FRAMES):
                image = next(remaining).crop((0, 0, step - GAP, HEIGHT))
                sheet.paste(image, (column * step, top))
            top += HEIGHT + GAP
    with atomic_write(file) as stream:
        sheet.save(stream, FORMATS[Path(file).suffix.lower()])
