"""Video files: frames by time, whatever the frame rate, steady or not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import UserError, named, warn
from utils.base.options import ArgumentParser, within
from utils.features.containers import ShownFrame, shown_frames

SUBTITLES = (".srt", ".vtt")
SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts",
    ".3gp", ".3g2", ".wmv", ".flv", ".lrv", ".vob", ".ogv", ".asf", ".mxf", ".insv", ".h264",
    ".h265", ".hevc",
)  # fmt: skip
ROUNDING = 0.002  # seconds, of times in a file
MOST_OBLONG = 16  # longer side of a frame over the shorter one
DISPLAY_MATRIX = "DISPLAYMATRIX"


class Grid(NamedTuple):
    """The times `offset`, `offset + 1 / rate`, ... seconds, until a video's end."""

    rate: float
    offset: float
    side: int  # pixels, to which the shorter side of the frames shown then is scaled


def find_videos(path: str | Path) -> list[Path]:
    """The video itself, or those of a folder in the order of their names.

    Warns of what else is in the folder but subtitles and hidden files (`._a.mp4` of macOS).
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such video file or folder")
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    videos = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
    skipped = [f"{file.name}/" if file.is_dir() else file.name for file in files]
    expected = {video.name for video in videos}
    skipped = [name for name in skipped if name not in expected and not name.endswith(SUBTITLES)]
    if not videos:
        raise UserError(f"{path}: no video in this folder ({', '.join(SUFFIXES)})")
    if skipped:
        reason = "folders, or not named as videos are: give them by name"
        warn(f"{path}: {len(skipped)} skipped ({named(skipped)}): {reason}")
    return videos


def add_frame_rate(parser: ArgumentParser) -> None:
    """The option for raw streams, whose frames have no times."""
    parser.add_argument(
        "--frame_rate", type=within(float, "[0.1, 1000]"), metavar="X",
        help="frames a second of raw streams, whose frames have no times (.h264)",
    )  # fmt: skip


def check_video(file: Path, frame_rate: float | None = None) -> None:
    """Raises UserError if there is no such file, it is damaged, or it holds no video."""
    next(sampled_frames(file, [Grid(rate=1, offset=0, side=16)], frame_rate))


def sampled_frames(
    file: Path, grids: Sequence[Grid], frame_rate: float | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """The frames shown at the times of each grid, of a video that is decoded once.

    Yields the number of a grid and (H, W, 3) uint8, the same array again where a frame is shown at
    several of the times. The first frame also stands for times before it. Raises UserError if the
    file is no video, or damaged. `frame_rate` is for a raw stream, whose frames have no times.
    """
    sampled = [0] * len(grids)
    for shown in shown_frames(file, frame_rate):
        images: dict[int, np.ndarray] = {}  # by their side
        for number, (rate, offset, side) in enumerate(grids):
            while offset + sampled[number] / rate < shown.end - ROUNDING:
                if side not in images:
                    images[side] = pixels(shown, side)
                yield number, images[side]
                sampled[number] += 1
    for number, grid in enumerate(grids):
        if sampled[number] == 0:  # the video is shorter than the offset
            yield number, pixels(shown, grid.side)


def frames_at(
    file: Path, times: list[float], side: int, frame_rate: float | None = None
) -> list[np.ndarray]:
    """The frames shown at a few times, in their order; otherwise as `sampled_frames`.

    Times beyond the end give the last frame.
    """
    images: dict[float, np.ndarray] = {}
    remaining = sorted(set(times), reverse=True)
    for shown in shown_frames(file, frame_rate, remaining):
        while remaining and remaining[-1] < shown.end:
            images[remaining.pop()] = pixels(shown, side)
        if not remaining:
            break
    else:
        images |= dict.fromkeys(remaining, pixels(shown, side))
    return [images[time] for time in times]


def pixels(shown: ShownFrame, side: int) -> np.ndarray:
    """(H, W, 3) uint8 as players show it: stretched, turned and mirrored as the file says.

    The shorter side is scaled to `side`.
    """
    frame = shown.frame
    sizes = frame.width * shown.pixel_aspect, frame.height
    if max(sizes) > MOST_OBLONG * min(sizes):
        raise UserError(f"frames of {frame.width} x {frame.height} pixels are too oblong")
    width, height = (max(side, round(side / min(sizes) * size)) for size in sizes)
    image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
    matrix = frame.side_data.get(DISPLAY_MATRIX)
    if matrix is None:
        return image
    # A pixel (x, y) is shown at (a x + c y, b x + d y): by quarter turns, as ffmpeg.
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
