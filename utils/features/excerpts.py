"""Excerpts of long videos, reached by seeking: one frame, or some seconds as a file.

Times are as in `containers`.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import UserError
from utils.base.files import atomic_path
from utils.features.containers import Clock, ShownFrame, shown_frames
from utils.features.video import pixels
from utils.features.video_streams import library, open_video, pixel_aspect

SEEKABLE = {"mp4", "matroska"}  # containers whose clocks never restart
VIDEO_CODECS = {"h264", "hevc", "av1", "vp9", "mpeg4"}  # that MP4 takes
AUDIO_CODECS = {"aac", "mp3", "ac3", "opus"}
ENCODERS = ("libx264", "mpeg4")  # the first that the library has
EARLY = 1.0  # seconds that an excerpt may begin before its start, at a keyframe
SIDE = 720  # pixels, at most, of the shorter side of re-encoded frames
OPTIONS = {"movflags": "faststart"}  # players can begin before the file is complete
TICKS = 1000  # a second
RATE = 30  # times a second at which frames are looked for


def picture_at(file: Path, time: float, side: int) -> np.ndarray:
    """The frame shown at a time, (H, W, 3) uint8, its shorter side scaled to `side` pixels.

    A time beyond the end gives the last frame. Raises UserError if the video can't be read.
    """
    for shown in _frames_from(file, time, time, frame_rate=None):
        picture = shown
        if shown.end > time:
            break
    return pixels(picture, side)


def write_excerpt(
    file: Path, start: float, end: float, output: Path, frame_rate: float | None = None
) -> None:
    """Write what a video shows from `start` to `end` seconds as an MP4 file, atomically.

    If a keyframe lies at most a second before the start, the excerpt is a copy from there on, with
    sound; else its frames are re-encoded. Raises UserError if the video can't be read.
    """
    with atomic_path(output) as temporary:
        if not _copy(file, start, end, temporary):
            _encode(file, start, end, temporary, frame_rate)


def _copy(file: Path, start: float, end: float, output: Path) -> bool:
    """Copy an excerpt without decoding it; returns whether that was possible."""
    with open_video(file) as (source, stream):
        if not _is_seekable(source) or stream.codec_context.name not in VIDEO_CODECS:
            return False
        clock = _seek(source, stream, start)
        keyframe = None
        for packet in source.demux(stream):
            if packet.pts is None or clock.seconds(packet.pts) > start + EARLY:
                break
            if packet.is_keyframe and clock.seconds(packet.pts) <= start:
                keyframe = packet.pts
        if keyframe is None or start - clock.seconds(keyframe) > EARLY:
            return False
        sound = [s for s in source.streams.audio if s.codec_context.name in AUDIO_CODECS][:1]
        _seek(source, stream, start)
        with library().open(str(output), "w", "mp4", OPTIONS) as target:
            copies = {s.index: target.add_stream_from_template(s) for s in (stream, *sound)}
            for packet in _with_dts(source.demux(stream, *sound), stream, clock.step):
                shift = round(keyframe * stream.time_base / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                if packet.dts * packet.time_base >= end - clock.seconds(keyframe):
                    if packet.stream is stream:
                        break
                elif packet.pts >= 0:
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
    return True


def _with_dts(packets: Iterator[Any], stream: Any, step: int) -> Iterator[Any]:
    """The packets that have times; DTS missing after a seek are counted back from the next one."""
    waiting = []
    for packet in packets:
        if packet.pts is not None and packet.dts is not None:
            if packet.stream is stream:
                for number, early in enumerate(reversed(waiting), 1):
                    early.dts = packet.dts - number * step
                yield from waiting
                waiting = []
            yield packet
        elif packet.pts is not None and packet.stream is stream:
            waiting.append(packet)


def _encode(file: Path, start: float, end: float, output: Path, frame_rate: float | None) -> None:
    """Re-encode the frames."""
    av = library()
    codec = next(name for name in ENCODERS if name in av.codecs_available)
    stream, last_tick = None, -1
    with av.open(str(output), "w", "mp4", OPTIONS) as target:
        for shown in _frames_from(file, start, end, frame_rate):
            if stream is not None and shown.start >= end:
                break
            tick = round(max(0.0, shown.start - start) * TICKS)
            if shown.end <= start or tick == last_tick:
                continue
            last_tick = tick
            side = min(SIDE, shown.frame.width, shown.frame.height)
            image = pixels(shown, side)
            height, width = (length // 2 * 2 for length in image.shape[:2])
            if stream is None:
                stream = target.add_stream(codec, rate=RATE)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
            image = np.ascontiguousarray(image[: stream.height, : stream.width])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = tick
            frame.time_base = Fraction(1, TICKS)
            target.mux(stream.encode(frame))
        if stream is None:
            raise UserError(f"{file}: shows nothing from {start:.1f} to {end:.1f} s")
        target.mux(stream.encode())


def _frames_from(
    file: Path, start: float, end: float, frame_rate: float | None
) -> Iterator[ShownFrame]:
    """Frames until `end` or later; the first ones may be shown before `start`."""
    with open_video(file) as (container, stream):
        if _is_seekable(container):
            clock, aspect = _seek(container, stream, start), pixel_aspect(stream)
            shown = None
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                if shown is not None:
                    times = clock.seconds(shown.pts), clock.seconds(frame.pts)
                    yield ShownFrame(*times, shown, aspect)
                shown = frame
            if shown is not None:
                times = clock.seconds(shown.pts), clock.seconds(shown.pts + clock.step)
                yield ShownFrame(*times, shown, aspect)
                return
    times = np.arange(start, end, 1 / RATE).tolist()
    yield from shown_frames(file, frame_rate, [*times, end])


def _is_seekable(container: Any) -> bool:
    return not SEEKABLE.isdisjoint(container.format.name.split(","))


def _seek(container: Any, stream: Any, time: float) -> Clock:
    """Seek the last keyframe before a time; returns the clock of the stream."""
    clock = Clock(container, stream)
    container.seek(clock.start + round(time / clock.tick), stream=stream)
    return clock
