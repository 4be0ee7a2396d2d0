"""Videos whose frames show their own time, copied into other containers and damaged.

Every frame of `base.mp4` (20 s, 30 frames a second) shows 4 x 4 blocks, white 1 and black 0, row
by row, most significant first: hundredths of a second.
"""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BASE = Path(__file__).resolve().parents[2] / "golden" / "video" / "base.mp4"


def shown_time(image: np.ndarray) -> float:
    """The seconds that an image (H, W, 3) shows."""
    height, width = image.shape[0] // 4, image.shape[1] // 4
    blocks = image[: 4 * height, : 4 * width].reshape(4, height, 4, width, 3)
    middle = blocks[:, height // 4 : -height // 4, :, width // 4 : -width // 4]
    bits = middle.mean((1, 3, 4)).ravel() > 128
    return int("".join("1" if bit else "0" for bit in bits), 2) / 100


def remux(file: Path, shift=lambda time: time, keep=lambda time: True, **options) -> Path:
    """The packets of `base.mp4` in another container, each at `shift` of its time in seconds."""
    with av.open(str(BASE)) as source, av.open(str(file), "w", **options) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        copy.time_base = stream.time_base
        for packet in source.demux(stream):
            if packet.size and keep(time := float(packet.dts * stream.time_base)):
                moved = round(shift(time) / stream.time_base)
                packet.pts, packet.dts = packet.pts + moved - packet.dts, moved
                packet.stream = copy
                target.mux(packet)
    return file


def encode(
    file: Path, codec: str, gop: int = 100, seconds: int = 20, width: int = 128, pixel_aspect=1
) -> Path:
    """The pictures of `base.mp4` re-encoded."""
    with av.open(str(BASE)) as source, av.open(str(file), "w") as target:
        stream = target.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.gop_size, stream.bit_rate = gop, 1_000_000
        if codec == "libvpx":
            stream.options = {"deadline": "realtime", "cpu-used": "8"}
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        for number, frame in enumerate(source.decode(video=0)):
            if number == 30 * seconds:
                break
            image = frame.reformat(width, 96, stream.pix_fmt)
            image.pts, image.time_base = number, Fraction(1, 30)
            target.mux(stream.encode(image))
        target.mux(stream.encode())
    return file


def without_a_frame(file: Path) -> Path:
    """A transport stream that lacks the packet with one frame, at 10 s."""
    content = remux(file).read_bytes()
    packets = [content[start : start + 188] for start in range(0, len(content), 188)]
    begins = [n for n, packet in enumerate(packets) if packet[1:3] == b"\x41\x00"]  # of a frame
    del packets[begins[300]]
    file.write_bytes(b"".join(packets))
    return file


def with_matrix(file: Path, *matrix: int) -> Path:
    """`base.mp4` with the display matrix a, b, c, d."""
    a, b, c, d = (value << 16 for value in matrix)
    content = BASE.read_bytes()
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = content.index(identity, content.index(b"tkhd"))
    changed = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content[:at] + changed + content[at + len(changed) :])
    return file
