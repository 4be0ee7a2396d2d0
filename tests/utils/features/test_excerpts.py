"""Pictures and excerpts show the times they are of, whether they are copied or re-encoded."""

import numpy as np
import pytest

av = pytest.importorskip("av")
from tests.utils.features.clocked import BASE, encode, remux, shown_time, with_matrix  # noqa: E402
from utils.features.containers import shown_frames  # noqa: E402
from utils.features.excerpts import picture_at, write_excerpt  # noqa: E402

NEAR = 0.05  # seconds: a frame is shown for 0.033


def times(file):
    """What each frame of a file shows."""
    return [shown_time(s.frame.to_ndarray(format="rgb24")) for s in shown_frames(file)]


@pytest.fixture(scope="module")
def often(tmp_path_factory):
    """A video with a keyframe each half second."""
    return encode(tmp_path_factory.mktemp("often") / "often.mkv", "libx264", gop=15)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: BASE,
        lambda folder: remux(folder / "base.mkv"),
        lambda folder: remux(folder / "base.ts"),
        lambda folder: remux(folder / "late.mkv", lambda time: time + 100),
        lambda folder: encode(folder / "base.webm", "libvpx"),
        lambda folder: encode(folder / "base.avi", "mjpeg"),
        lambda folder: encode(folder / "base.mp4", "mpeg4", gop=300),
    ],
)
def test_excerpts_and_pictures_of_any_container(make, tmp_path):
    video = make(tmp_path)
    write_excerpt(video, 7.3, 9.8, tmp_path / "out" / "part.mp4")
    shown = times(tmp_path / "out" / "part.mp4")
    assert shown[0] + NEAR >= 7.3 - 1 and shown[0] <= 7.3 and abs(shown[-1] - 9.8) < 3 * NEAR
    assert np.diff(shown).max() < 2 * NEAR
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["part.mp4"]
    for time in (0.0, 7.3, 19.95, 100.0):
        assert shown_time(picture_at(video, time, 96)) == pytest.approx(min(time, 19.97), abs=NEAR)


def test_an_excerpt_may_begin_at_any_row(tmp_path):
    """Matroska counts milliseconds, so a frame may end just after an excerpt begins."""
    video = remux(tmp_path / "base.mkv")
    for row in range(1, 12):
        start = row * 16 / 30
        write_excerpt(video, start, start + 1, tmp_path / "part.mp4")
        assert times(tmp_path / "part.mp4")[0] == pytest.approx(start, abs=1.05)


def test_packets_are_copied_where_a_keyframe_is_near(often, tmp_path):
    """What is copied begins up to a second early, at a keyframe; what is not, at its start."""
    write_excerpt(often, 7.3, 9.8, tmp_path / "copied.mp4")
    assert times(tmp_path / "copied.mp4")[0] == pytest.approx(7.13, abs=0.01)
    with av.open(str(often)) as source, av.open(str(tmp_path / "copied.mp4")) as copy:
        sizes = {packet.size for packet in source.demux(video=0)}
        assert {packet.size for packet in copy.demux(video=0)} <= sizes
    write_excerpt(BASE, 6.4, 8, tmp_path / "anew.mp4")
    assert times(tmp_path / "anew.mp4")[0] == pytest.approx(6.4, abs=NEAR)


def test_sound_is_copied_and_turned_pictures_stay_turned(often, tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as target, av.open(str(often)) as source:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=48_000)
        for number in range(20 * 48_000 // 1024):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts = 48_000, 1024 * number
            target.mux(sound.encode(frame))
        target.mux(sound.encode())
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
    write_excerpt(tmp_path / "sound.mp4", 7.3, 9.8, tmp_path / "part.mp4")
    with av.open(str(tmp_path / "part.mp4")) as part:
        assert [s.type for s in part.streams] == ["video", "audio"]
        for stream in part.streams:
            assert float(stream.duration * stream.time_base) == pytest.approx(2.8, abs=0.2)
    turned = with_matrix(tmp_path / "turned.mp4", 0, 1, -1, 0)
    assert picture_at(turned, 3, 48).shape == (64, 48, 3)
    write_excerpt(turned, 6.4, 8, tmp_path / "upright.mp4")  # re-encoded
    assert picture_at(tmp_path / "upright.mp4", 1, 48).shape == (64, 48, 3)
