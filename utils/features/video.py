"""Video files: frames by time, whatever the frame rate, steady or not.

Times are seconds from the first frame. A frame is shown from its own timestamp until the next
frame's. Needs PyAV (`pip install av`).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import UserError, warn

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg")
LAST_FRAME = 1 / 30  # seconds the last frame is shown, if the file doesn't say
SHORTFALL = 0.1  # of a file's duration: more is worth a warning
SEEK_SECONDS = 5.0  # nearer times are reached by decoding on


def is_video(path: str | Path) -> bool:
    """Whether it is named like a video file."""
    return Path(path).suffix.lower() in SUFFIXES


def find_videos(path: str | Path) -> list[Path]:
    """The video itself, or those of a folder in the order of their names."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such video file or folder")
    videos = sorted(file for file in path.iterdir() if is_video(file) and file.is_file())
    if not videos:
        raise UserError(f"{path}: no video in this folder ({', '.join(SUFFIXES)})")
    return videos


def check_video(file: Path) -> None:
    """Raises UserError if there is no such file, it is damaged, or it holds no video."""
    next(sampled_frames(file, rate=1, offset=0, side=16))


def sampled_frames(file: Path, rate: float, offset: float, side: int) -> Iterator[np.ndarray]:
    """The frames shown at `offset`, `offset + 1 / rate`, ... seconds until the video's end.

    Args:
        side: the frame's shorter side is scaled to so many pixels.

    Yields:
        (H, W, 3) uint8; the same array again where a frame is shown at several of the times.

    Raises:
        UserError: the file is no video, or is damaged.
    """
    number = 0  # of the next time to sample
    for _, end, frame in _frames(file):
        image = None
        while offset + number / rate < end:
            image = _pixels(frame, side) if image is None else image
            yield image
            number += 1
    if number == 0:  # the video is shorter than the offset
        yield _pixels(frame, side)


def frames_at(file: Path, times: list[float], side: int) -> list[np.ndarray]:
    """The frames shown at a few times, in their order, reached by seeking; as `sampled_frames`.

    Times beyond the end give the last frame.
    """
    images: dict[float, np.ndarray] = {}
    frames: Iterator = iter(())
    end, frame = -math.inf, None
    for time in sorted(set(times)):
        if time > end + SEEK_SECONDS:
            frames, frame = _frames(file, time), None
        while frame is None or end <= time:
            following = next(frames, None)
            if following is None:
                break
            _, end, frame = following
        if frame is None:
            raise UserError(f"{file}: no frame at {time:.1f} s")
        images[time] = _pixels(frame, side)
    return [images[time] for time in times]


def _frames(file: Path, seek: float = 0.0) -> Iterator[tuple[float, float, Any]]:
    """Frames of the first video stream, with the seconds each starts and ends being shown."""
    av = _library()
    if not Path(file).is_file():
        raise UserError(f"{file}: no such video file")
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise UserError(f"{file}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first = float((stream.start_time or 0) * stream.time_base)
            if seek > 0:
                container.seek(int((first + seek) / stream.time_base), stream=stream)
            shown = None
            for frame in container.decode(stream):
                if frame.time is None or (shown is not None and frame.time <= shown.time):
                    continue
                if shown is not None:
                    yield shown.time - first, frame.time - first, shown
                shown = frame
            if shown is None:
                raise UserError(f"{file}: holds no frame that can be decoded")
            start, end = shown.time - first, shown.time - first + LAST_FRAME
            if shown.duration:
                end = start + float(shown.duration * shown.time_base)
            yield start, end, shown
            duration = (container.duration or 0) / av.time_base
            if end < duration - SHORTFALL * max(1, duration):
                warn(f"{file}: its video ends at {end:.1f} s of {duration:.1f} s; cut off?")
    except av.error.FFmpegError as error:
        raise UserError(f"{file}: damaged, or no video ({error.strerror})") from None


def _pixels(frame: Any, side: int) -> np.ndarray:
    """(H, W, 3) uint8, upright, the shorter side scaled to `side`."""
    scale = side / min(frame.width, frame.height)
    width, height = (max(side, round(scale * size)) for size in (frame.width, frame.height))
    image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # phones write how they were held
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _library() -> Any:
    try:
        import av
    except ImportError:
        raise UserError("video files need PyAV: pip install av") from None
    av.logging.set_level(None)  # damage is told in one line of our own
    return av
