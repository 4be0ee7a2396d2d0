"""A contact sheet: for each window that was found, some of its frames in a row."""

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
    """Raises UserError if the name of a sheet is not that of an image."""
    if Path(file).suffix.lower() not in FORMATS:
        raise UserError(f"{file}: a sheet is {', '.join(FORMATS)}; give such a name")


def write_sheet(
    file: str | Path,
    rows: Sequence[tuple[str, tuple[Path, float, float] | None]],
    frame_rate: float | None = None,
) -> None:
    """Write the sheet, atomically.

    Args:
        rows: a caption each, with a video, start and end in seconds, whose frames are shown below
            it, or without: a heading.
        frame_rate: of videos that are raw streams.
    """
    times: dict[Path, list[float]] = {}
    for _, moment in rows:
        if moment is not None:
            video, start, end = moment
            # Frames are of the middles of a window's equal parts.
            middles = [start + (part + 0.5) / FRAMES * (end - start) for part in range(FRAMES)]
            times.setdefault(video, []).extend(middles)
    frames = {video: frames_at(video, at, HEIGHT, frame_rate) for video, at in times.items()}
    widths = [frame.shape[1] for of_video in frames.values() for frame in of_video]
    step = GAP + max(widths, default=HEIGHT)
    font = ImageFont.load_default(FONT)
    captions = [round(font.getlength(caption)) + 2 * GAP for caption, _ in rows]
    width = max(FRAMES * step - GAP, *captions)  # of an upright video, the frames are less
    height = CAPTION * len(rows) + (HEIGHT + GAP) * (len(widths) // FRAMES)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    remaining, top = {video: iter(of_video) for video, of_video in frames.items()}, 0
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
