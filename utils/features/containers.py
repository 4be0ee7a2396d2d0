"""Video containers: decoded frames with their times, past damage and through resets of the clock.

Times are seconds in the file's clock, as players show them: 0 is where the first of its streams
begins. A frame is shown from its own time until the next frame's.
"""

import bisect
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.base.errors import UserError, named, warn
from utils.features.video_streams import SPARSE_TIMES, library, open_video, pixel_aspect

GAP = 60.0  # seconds without a frame that are filled; after more, the clock has jumped
BACK = 1.0  # seconds; a clock that goes back further has begun again
LONGEST = 24 * 3600.0  # seconds of a video
LONG_GAP = 5.0  # seconds without a frame that are worth a warning
SHORTFALL = 0.1  # of a file's duration: more is worth a warning
FRAME_RATE = 30  # where the file does not say


class ShownFrame(NamedTuple):
    """A frame, and the seconds it starts and ends being shown."""

    start: float
    end: float
    frame: Any  # of PyAV
    pixel_aspect: float  # width of a pixel / its height


def shown_frames(
    file: Path, frame_rate: float | None = None, times: Sequence[float] | None = None
) -> Iterator[ShownFrame]:
    """Frames of the video stream in the order they are shown; warns at the end of what is missing.

    Given `times`, only the frames shown then, and some around them, are decoded. Raises UserError
    if the file holds no video, names other files, or lasts more than a day. `frame_rate` is for a
    raw stream, whose frames have no times.
    """
    needed = None if times is None else _needed_segments(file, times)
    with open_video(file) as (container, stream):
        clock, aspect = Clock(container, stream, frame_rate), pixel_aspect(stream)
        losses = Losses(file, clock)
        shown, ticks, step = None, clock.start, clock.step
        for frame in _decoded(stream, clock, losses, needed):
            start = ticks
            if shown is None:
                if frame.pts is None and frame_rate is None:
                    raise UserError(
                        f"{file}: a raw stream, its frames have no times; give --frame_rate"
                    )
                ticks = clock.start if frame.pts is None else frame.pts
            elif frame.pts is None or frame.pts <= ticks + clock.doubt:
                ticks += step  # frames come in the order of their times
            else:
                ticks, step = frame.pts, min(clock.step, frame.pts - ticks)
            if clock.seconds(ticks) > LONGEST:
                raise UserError(f"{file}: lasts more than {LONGEST / 3600:.0f} hours; cut it")
            losses.frame(clock.seconds(ticks), frame)
            if shown is not None:
                yield ShownFrame(clock.seconds(start), clock.seconds(ticks), shown, aspect)
            shown = frame
        if shown is None:
            raise UserError(f"{file}: holds no frame that can be decoded")
        length = shown.duration or 0
        end = clock.seconds(ticks + (length if 0 < length * clock.tick <= GAP else clock.step))
        yield ShownFrame(clock.seconds(ticks), end, shown, aspect)
        if times is None:
            losses.warn(end)


def _decoded(
    stream: Any, clock: "Clock", losses: "Losses", needed: set[int] | None
) -> Iterator[Any]:
    """Frames in the order they are shown; `needed` are segments between keyframes (default all)."""
    av, decoder = library(), stream.codec_context
    segment, decoding = 0, True
    for packet in _packets(stream, clock, losses):
        segment += packet.is_keyframe
        was_decoding = decoding
        # Frames just before a keyframe may come after it in the file.
        decoding = needed is None or segment in needed or segment - 1 in needed
        if not decoding and not was_decoding:
            continue
        try:
            # None: what the decoder holds back.
            yield from decoder.decode(packet if decoding else None)
        except av.error.FFmpegError:
            losses.damage(packet)
        if not decoding:
            decoder.flush_buffers()


def _packets(stream: Any, clock: "Clock", losses: "Losses") -> Iterator[Any]:
    """Packets of a stream, their times in a clock that goes on; what cannot be read ends them."""
    av = library()
    packets = stream.container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            losses.damage(None)
            packet = av.Packet()  # lets the decoder give what it holds back
            packet.stream = stream
        if packet is None:
            return
        clock.set(packet)
        if packet.is_corrupt:
            losses.damage(packet)
        yield packet
        if not packet.size:
            return


def _needed_segments(file: Path, times: Sequence[float]) -> set[int] | None:
    """The segments between keyframes that hold the times, counted from 1; None: all."""
    with open_video(file) as (container, stream):
        clock, keyframes = Clock(container, stream), []
        for packet in _packets(stream, clock, Losses(file, clock)):
            if packet.is_keyframe:
                if packet.pts is None:
                    return None
                keyframes.append(max([clock.seconds(packet.pts), *keyframes[-1:]]))
    # A frame just after a keyframe's time may belong before it.
    times = [*times, *(time - BACK for time in times)]
    return {bisect.bisect_right(keyframes, time) for time in times}


class Clock:
    """The times of a stream's packets, going on where the file's clock begins again or jumps."""

    def __init__(self, container: Any, stream: Any, frame_rate: float | None = None):
        self.tick = stream.time_base or Fraction(1, 90_000)
        rate = frame_rate or float(stream.guessed_rate or stream.average_rate or FRAME_RATE)
        self.step = max(1, round(1 / self.tick / min(max(rate, 1), 1000)))  # ticks a frame
        # Frames are not moved by less than this.
        self.doubt = 3 * self.step if container.format.name == SPARSE_TIMES else 0
        self.jumps: list[tuple[float, float]] = []  # seconds by which the clock jumps, and where
        microseconds = container.start_time
        self.start = round((microseconds or 0) / 1e6 / self.tick)
        self._last = None if microseconds is None else self.start
        self._offset = 0
        length, begin = stream.duration, stream.start_time
        if length and begin is not None:
            self.duration = self.seconds(begin + length)
        else:
            self.duration = (container.duration or 0) / 1e6

    def set(self, packet: Any) -> None:
        """Give a packet its times in this clock, in ticks."""
        pts = packet.pts
        time = pts if packet.dts is None else packet.dts
        if time is None:
            if self._last is not None:
                self._last += self.step
            return
        if self._last is None:
            self.start = self._last = time
        shifted = time + self._offset
        seconds = float((shifted - self._last) * self.tick)
        if not -BACK <= seconds <= GAP:
            self._note_jump(seconds)
            shifted = self._last + self.step
            self._offset = shifted - time
        self._last = shifted
        is_close = pts is not None and abs(pts - time) * self.tick <= GAP
        if pts is not None and not is_close:
            self._note_jump(float((pts - time) * self.tick))
        packet.dts, packet.pts = shifted, pts + self._offset if is_close else None

    def _note_jump(self, seconds: float) -> None:
        jump = seconds, max(0, self.seconds(self._last))
        same = self.jumps and np.allclose(jump, self.jumps[-1], rtol=0, atol=BACK)
        if not same:  # several packets may tell of one jump
            self.jumps.append(jump)

    def seconds(self, ticks: int) -> float:
        """A packet's or frame's time in the file."""
        return float((ticks - self.start) * self.tick)


class Losses:
    """What of a video is missing, for a warning when it has been read."""

    def __init__(self, file: Path, clock: Clock):
        self._file, self._clock = file, clock
        self._time = 0.0  # of the last frame
        self._damaged_since: float | None = None
        self._damaged_until = 0.0  # or later
        self._damaged: list[str] = []
        self._gaps: list[str] = []

    def damage(self, damaged: Any) -> None:
        """Note a damaged packet or frame: pictures are missing or wrong until the next keyframe.

        None stands for all packets to come, which can't be read.
        """
        if self._damaged_since is None:
            self._damaged_since = self._time
        known = damaged is not None and damaged.pts is not None
        time = self._clock.seconds(damaged.pts) if known else self._time
        self._damaged_until = max(self._damaged_until, time)

    def frame(self, time: float, frame: Any) -> None:
        """Note a frame that is shown next."""
        if frame.is_corrupt:
            self.damage(frame)
        elif self._damaged_since is None and time - self._time > LONG_GAP:
            self._gaps.append(f"from {self._time:.1f} to {time:.1f} s")
        elif frame.key_frame and time > self._damaged_until:
            self._end_damage(time)
        self._time = max(time, self._time)

    def _end_damage(self, time: float) -> None:
        if self._damaged_since is not None:
            self._damaged.append(f"from {self._damaged_since:.1f} to {time:.1f} s")
        self._damaged_since = None

    def warn(self, end: float) -> None:
        """Say what is missing of a video that ends at `end` seconds."""
        self._end_damage(max(end, self._damaged_until))
        if self._damaged:
            warn(f"{self._file}: damaged; frames are missing or wrong {named(self._damaged)}")
        if self._gaps:
            warn(f"{self._file}: no frames {named(self._gaps)}; the last one before is shown")
        jumps, duration = self._clock.jumps, self._clock.duration
        if jumps:
            jumps = named(f"by {seconds:+.1f} s at {time:.1f} s" for seconds, time in jumps)
            warn(f"{self._file}: its clock jumps {jumps}; times go on without the jumps")
        elif end < duration - SHORTFALL * max(1, duration):
            warn(f"{self._file}: its video ends at {end:.1f} s of {duration:.1f} s; cut off?")
