"""Videos of many containers, damaged and odd ones: the frame at a time is the one shown then."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from tests.utils.features.clocked import (
    BASE,
    encode,
    remux,
    shown_time,
    with_matrix,
    without_a_frame,
)
from utils.base.errors import UserError
from utils.features.video import Grid, find_videos, frames_at, sampled_frames

RATE = 1.875
TIMES = [19.3, 3.2, 8.49, 8.51, 0.0, 15.02, 10.01, 9.99, 7.0]
HALF = 0.5 / 30 + 0.02  # half a frame, and what hundredths and millisecond clocks round


def rows(file: Path, **options) -> np.ndarray:
    """Times shown by the frames in the middle of each row."""
    sampled = sampled_frames(file, [Grid(RATE, 0.5 / RATE, 48)], **options)
    return np.array([shown_time(frame) for _, frame in sampled])


def middles(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / RATE


def assert_whole(file: Path, **options) -> None:
    """All 37 rows and frames at other times are those of `base.mp4`."""
    assert rows(file, **options) == pytest.approx(middles(37), abs=2 * HALF)
    shown = [shown_time(frame) for frame in frames_at(file, TIMES, 48, **options)]
    assert shown == pytest.approx(TIMES, abs=2 * HALF)


@pytest.mark.parametrize(
    "name", ["a.mkv", "a.ts", "a.MTS", "a.mov", "a.3gp", "a.flv", "x:y.mp4", "http:a.mp4"]
)
def test_h264_is_read_in_every_container(tmp_path, name, capsys):
    form = {"format": "mpegts"} if name == "a.MTS" else {}
    if ":" in name:
        (tmp_path / name).write_bytes(BASE.read_bytes())
    else:
        remux(tmp_path / name, **form)
    assert_whole(tmp_path / name)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "codec", "gop"),
    [
        ("a.mpg", "mpeg2video", 300),
        ("a.mpg", "mpeg1video", 12),
        ("a.ts", "mpeg2video", 100),
        ("a.avi", "mpeg4", 250),
        ("a.webm", "libvpx", 100),
        ("a.wmv", "wmv2", 50),
        ("a.mov", "mjpeg", 1),
    ],
)
def test_other_codecs_are_read(tmp_path, name, codec, gop, capsys):
    assert_whole(encode(tmp_path / name, codec, gop=gop))
    assert capsys.readouterr().err == ""


def test_one_damaged_packet_costs_what_comes_until_the_next_keyframe(capsys):
    shown, times = rows(BASE.with_name("one_bit.mp4")), middles(37)
    assert len(shown) == 37
    whole = (times < 12.3) | (times > 14.3)
    assert shown[whole] == pytest.approx(times[whole], abs=2 * HALF)
    assert "damaged; frames are missing or wrong from 12.3 to 14.3 s" in capsys.readouterr().err


def test_a_lost_packet_of_a_transport_stream_is_told(tmp_path, capsys):
    """Its decoder goes on without a word, with pictures that are wrong."""
    file = without_a_frame(tmp_path / "a.ts")
    shown, times = rows(file), middles(37)
    whole = (times < 9.8) | (times > 10.3)
    assert shown[whole] == pytest.approx(times[whole], abs=2 * HALF)
    assert "damaged; frames are missing or wrong from 9.8 to 10.3 s" in capsys.readouterr().err


def test_joined_recordings_go_on(capsys):
    assert_whole(BASE.with_name("joined.mpg"))
    assert "its clock jumps by -8.0 s at 7.9 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "jump"),
    [("a.ts", 40_000), ("a.mkv", 23 * 24 * 3600), ("a.mp4", 40_000), ("a.flv", 80)],
)
def test_a_clock_that_jumps_goes_on(tmp_path, name, jump, capsys):
    assert_whole(remux(tmp_path / name, lambda time: time + (jump if time > 9.9 else 0)))
    assert re.search(r"its clock jumps by \+\d+.\d s at [\d.]+ s; times", capsys.readouterr().err)


def test_transport_streams_that_are_joined_go_on(tmp_path, capsys):
    key = 250 / 30
    parts = [
        remux(tmp_path / "1.ts", keep=lambda time: time < key - 0.08),
        remux(tmp_path / "2.ts", lambda time: time - key, keep=lambda time: time >= key - 0.08),
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_whole(tmp_path / "a.ts")
    assert "its clock jumps by -8." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_a_gap_is_filled_with_the_frame_before(tmp_path, name, capsys):
    file = remux(tmp_path / name, lambda time: time + (30 if time > 9.9 else 0))
    shown, times = rows(file), middles(94)
    assert shown == pytest.approx(np.where(times < 40, np.minimum(times, 10), times - 30), abs=0.2)
    assert re.search(r"no frames from (9.9|10.0) to (39.9|40.0) s", capsys.readouterr().err)


def test_a_video_of_jumps_alone_is_bounded(tmp_path):
    file = remux(tmp_path / "a.mkv", lambda time: 59 * 30 * time)
    assert len(rows(file)) < 600 * 60 * RATE


def test_times_are_those_of_the_whole_file_not_of_its_picture(tmp_path, capsys):
    """Sound from 0 s, picture from 5 s on: as players show it."""
    import av

    file = tmp_path / "late.mkv"
    with av.open(str(BASE)) as source, av.open(str(file), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        sound = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        for second in range(25):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
            silence.sample_rate, silence.pts = 8000, 8000 * second
            target.mux(sound.encode(silence))
        for packet in source.demux(stream):
            if packet.size:
                moved = round(5 / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + moved, packet.dts + moved, copy
                target.mux(packet)
    shown, times = rows(file), middles(47)
    assert shown == pytest.approx(np.maximum(times - 5, 0), abs=2 * HALF)
    assert shown_time(frames_at(file, [12.0], 48)[0]) == pytest.approx(7, abs=HALF)
    assert capsys.readouterr().err == ""


def test_raw_streams_need_a_rate(tmp_path):
    file = remux(tmp_path / "a.h264")
    with pytest.raises(UserError, match="have no times; give --frame_rate"):
        rows(file)
    assert_whole(file, frame_rate=30)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_pixels_that_are_not_square_are_stretched(tmp_path, name):
    file = encode(tmp_path / name, "mpeg4", seconds=2, width=96, pixel_aspect=Fraction(4, 3))
    [image] = frames_at(file, [1.0], 48)
    assert image.shape == (48, 64, 3) and shown_time(image) == pytest.approx(1, abs=HALF)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((0, 1, -1, 0), lambda image: np.rot90(image)),  # shown turned right: undone to the left
        ((0, -1, 1, 0), lambda image: np.rot90(image, -1)),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image.swapaxes(0, 1), 2)),
    ],
)
def test_display_matrices_are_undone(tmp_path, matrix, upright):
    file = with_matrix(tmp_path / "a.mp4", *matrix)
    [image] = frames_at(file, [7.0], 48)
    assert shown_time(upright(image)) == pytest.approx(7, abs=HALF)


def test_a_folder_says_what_it_skips(tmp_path, capsys):
    for name in ("b.MTS", "a.lrv", "._a.mp4", ".DS_Store", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "DCIM").mkdir()
    assert [file.name for file in find_videos(tmp_path)] == ["a.lrv", "b.MTS"]
    assert "2 skipped (DCIM/, notes.txt)" in capsys.readouterr().err
    assert find_videos(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    with pytest.raises(UserError, match="no video in this folder"):
        find_videos(tmp_path / "DCIM")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ffconcat version 1.0\nfile base.mp4\n", "it is text; other files"),
        (b"#EXTM3U\n#EXTINF:9,\nbase.mp4\n#EXT-X-ENDLIST\n", "it is text; other files"),
        (b"\0no video", "damaged, or no video"),
        (b"", "damaged, or no video"),
        (BASE.read_bytes()[:48] + bytes(1000), "unfinished recording: its index"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, content, words):
    (tmp_path / "base.mp4").write_bytes(BASE.read_bytes())
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UserError, match=words):
        rows(tmp_path / "a.mp4")
