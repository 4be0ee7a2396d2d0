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
    rows: Sequence[tuple[str, tuple[Path, float, float] | None]],
    frame_rate: float | None = None,
) -> None:
    """Write the sheet atomically.

    Args:
        rows: captions, with (video, start, end) in seconds whose frames are shown below, or with
            None for a heading.
        frame_rate: of videos that are raw streams.
    """
    times: dict[Path, list[float]] = {}
    for _, moment in rows:
        if moment is not None:
            video, start, end = moment
            # A frame from the middle of each of the window's equal parts.
            middles = [start + (part + 0.5) / FRAMES * (end - start) for part in range(FRAMES)]
            times.setdefault(video, []).extend(middles)
    frames = {video: frames_at(video, at, HEIGHT, frame_rate) for video, at in times.items()}
    widths = [frame.shape[1] for images in frames.values() for frame in images]
    step = GAP + max(widths, default=HEIGHT)
    font = ImageFont.load_default(FONT)
    captions = [round(font.getlength(caption)) + 2 * GAP for caption, _ in rows]
    width = max(FRAMES * step - GAP, *captions)  # captions are wider than upright frames
    height = CAPTION * len(rows) + (HEIGHT + GAP) * (len(widths) // FRAMES)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    remaining, top = {video: iter(images) for video, images in frames.items()}, 0
    for caption, moment in rows:
        draw.text((GAP, top + GAP), caption, fill="black", font=font)
        top += CAPTION
        if moment is not None:
            for column in range(FRAMES):
                image = Image.fromarray(next(remaining[moment[0]]))
                sheet.paste(image.crop((0, 0, image.width, HEIGHT)), (column * step, top))
            top += HEIGHT + GAP
    with atomic_write(file) as stream:
        sheet.save(stream, FORMATS[Path(file).suffix.lower()])
