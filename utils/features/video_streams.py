"""Video files opened: the container and its video stream. Needs PyAV (`pip install av`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.base.errors import UserError

MAX_PIXELS = 1 << 25  # of a frame: 8K
MOST_ASPECT = 4  # of a pixel's sides: more is damage
SPARSE_TIMES = "mpeg"  # format that has few times, which the library gives to a frame near by


def pixel_aspect(stream: Any) -> float:
    """Width of a pixel / its height, 1 where the file says nothing, or what no camera writes."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / MOST_ASPECT <= aspect <= MOST_ASPECT else 1.0


@contextmanager
def open_video(file: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; it is read as a file whatever its name or content."""
    av = library()
    # No protocol is allowed: what the file itself names is not opened.
    options = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "none"}
    try:
        with (
            Path(file).open("rb") as content,
            av.open(content, options=options, metadata_errors="replace") as video,
        ):
            stream = video.streams.best("video")
            if stream is None:
                raise UserError(f"{file}: holds no video")
            if stream.codec_context is None:
                raise UserError(f"{file}: damaged, or its video is of an unknown codec")
            if video.format.name == SPARSE_TIMES:
                video.flags |= av.container.Flags.no_fillin.value
            stream.thread_type = "AUTO"
            stream.codec_context.options = options
            yield video, stream
    except FileNotFoundError:
        raise UserError(f"{file}: no such video file") from None
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror
        if not Path(file).stat().st_size:
            reason = "it is empty"
        elif _is_text(Path(file)):
            reason = "it is text; other files that it may name are not opened"
        elif _lacks_index(Path(file)):
            reason = "an unfinished recording: its index, moov, was not written"
        raise UserError(f"{file}: damaged, or no video ({reason})") from None


def _is_text(file: Path) -> bool:
    """Whether a file begins with printable text."""
    with file.open("rb") as content:
        return content.read(64).decode(errors="replace").replace("\n", " ").isprintable()


def _lacks_index(file: Path) -> bool:
    """Whether an MP4 or MOV file has no `moov` box."""
    with file.open("rb") as content:
        size, boxes = file.stat().st_size, []
        while content.tell() < size and len(boxes) < 1000:
            start, header = content.tell(), content.read(16)
            length = int.from_bytes(header[:4]) or size
            if length == 1:  # the length follows in 64 bits
                length = int.from_bytes(header[8:])
            boxes.append(header[4:8])
            content.seek(min(start + max(length, 8), size))
    return boxes[:1] == [b"ftyp"] and b"moov" not in boxes


def library() -> Any:
    """PyAV, quiet; raises UserError if it is not installed."""
    try:
        import av
    except ImportError:
        raise UserError("video files need PyAV: pip install av") from None
    av.logging.set_level(None)  # damage is told in one line of our own
    return av
