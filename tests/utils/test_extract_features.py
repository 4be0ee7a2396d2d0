"""Video files: frames by time, and features of them in the published layout."""

import json
import os
import re
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from tests.simulated import run, succeed
from utils.base.errors import UserError
from utils.extract_features import main
from utils.features import video
from utils.features.image_encoders import ImageEncoder, extract_rows
from utils.features.image_kinds import KINDS
from utils.features.likeness import compare_rows
from utils.features.mapped import open_features
from utils.features.video import Grid, frames_at, sampled_frames

av = pytest.importorskip("av")
from tests.utils.features.clocked import remux  # noqa: E402

RATE = 1.875
TICKS = 1000  # a second


def write_video(file, seconds, fps=30, uneven=False):
    """Frames that brighten with their time, from black to white."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        time, number = 0.0, 0
        while time < seconds:
            shade = np.full((48, 64, 3), round(255 * time / seconds), np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
            number += 1
            time += (3 if uneven and number % 2 else 1) / fps
        container.mux(stream.encode())
    return file


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Steady, uneven and another rate; one cut off, one empty."""
    folder = tmp_path_factory.mktemp("videos")
    steady = write_video(folder / "steady.mp4", 12)
    write_video(folder / "uneven.mkv", 12, 25, uneven=True)
    write_video(folder / "slow.mp4", 8, 10)
    content = steady.read_bytes()
    (folder / "torn.mp4").write_bytes(content[: len(content) // 2])
    (folder / "empty.avi").touch()
    return folder


def test_frames_are_those_shown_at_their_times_however_long_each_is_shown(videos):
    sampled = sampled_frames(videos / "uneven.mkv", [Grid(RATE, 0.5 / RATE, 32)])
    shades = np.array([image.mean() for _, image in sampled])
    times = (np.arange(len(shades)) + 0.5) / RATE
    assert abs(len(shades) - 12 * RATE) <= 1
    # A frame is shown for up to 0.12 s; shades lose a little in compression.
    assert np.abs(shades / 255 * 12 - times).max() < 0.4
    images = frames_at(videos / "uneven.mkv", [7.3, 0.1, 7.3, 3.0, 100.0], 24)
    shown = [image.mean() / 255 * 12 for image in images]
    assert np.allclose(shown, [7.3, 0.1, 7.3, 3.0, 12.0], atol=0.4)
    assert images[0].shape == (24, 32, 3) and images[0].dtype == np.uint8  # by the shorter side


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_sixteen_thirtieths_apart(videos, kind):
    encoder = ImageEncoder(kind, "tiny", "cpu")
    (rows,) = extract_rows([encoder], videos / "slow.mp4")
    assert rows.dtype == np.float32 and abs(len(rows) - 8 * RATE) <= 1
    assert np.isfinite(rows).all() and rows.std(0).max() > 0
    again = [ImageEncoder(kind, "tiny", "cpu")]
    assert np.array_equal(rows, *extract_rows(again, videos / "slow.mp4"))
    assert encoder.card(rows.shape[1])["window"] == KINDS[kind].frames


def test_a_video_cut_off_in_its_middle_is_warned_of(videos, tmp_path, capsys):
    """Containers made for streaming play on without their end, as if nothing were missing."""
    whole = write_video(tmp_path / "whole.mkv", 12)
    content = whole.read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    frames = list(sampled_frames(whole, [Grid(RATE, 0, 32)]))
    assert capsys.readouterr().err == ""
    fewer = list(sampled_frames(tmp_path / "half.mkv", [Grid(RATE, 0, 32)]))
    assert 1 < len(fewer) < 0.8 * len(frames)
    assert re.search(r"half.mkv: its video ends at [\d.]+ s of 12", capsys.readouterr().err)


def test_a_folder_is_extracted_and_continued(videos, tmp_path, capsys):
    out = tmp_path / "data" / "features" / "clip"
    command = ["--encoder", "tiny", "--output_dir", str(out)]
    first = run("utils/extract_features.py", *command, "--videos", videos)
    assert first.returncode == 2 and "Traceback" not in first.stderr
    broken = [line for line in first.stderr.splitlines() if "broken: " in line]
    assert len(broken) == 2 and "empty.avi" in broken[0] and "torn.mp4" in broken[1]
    assert "error: 2 of 5 videos could not be read" in first.stderr
    assert "row/s" not in first.stderr  # bars into a pipe are written every half minute
    shapes = json.loads((out / "feature_shapes.json").read_text())
    assert set(shapes) == {"steady", "uneven", "slow"}
    before = (out / "slow.pt").stat().st_mtime_ns
    rows = torch.load(out / "slow.pt")
    assert rows.dtype == torch.float32 and list(rows.shape) == [shapes["slow"], 32]

    # What is there stays, what is missing comes back.
    (out / "steady.pt").unlink()
    main([*command, "--videos", str(videos / "steady.mp4"), str(videos / "slow.mp4")])
    assert "1 extracted, 1 there before" in capsys.readouterr().out
    assert (out / "slow.pt").stat().st_mtime_ns == before

    # The layout is the published one: it can be trained on.
    store = open_features(
        tmp_path / "data", "clip", list(shapes), tmp_path / "cache", durations=np.array([12, 8, 12])
    )
    assert store.width == 32 and store.lengths.tolist() == list(shapes.values())

    other = ["--videos", str(videos / "slow.mp4"), "--type", "videomae", "--overwrite"]
    with pytest.raises(UserError, match="another kind"):
        main([*command, *other])
    # Also where nothing is left to do: the features there are not those that were asked for.
    with pytest.raises(UserError, match=r"another kind \(window 1, not 16\)"):
        main([*command, *other[:-1]])
    with pytest.raises(UserError, match=r"another kind \(model tiny, not openai/clip"):
        main([*command[2:], "--videos", str(videos / "slow.mp4")])


def test_several_types_are_extracted_in_one_decoding(videos, tmp_path, monkeypatch, capsys):
    def extract(*kinds):
        folders = [str(tmp_path / "together" / kind) for kind in kinds]
        main(["--videos", str(videos / "slow.mp4"), str(videos / "uneven.mkv"), "--encoder", "tiny",
              "--type", *kinds, "--output_dir", *folders])  # fmt: skip
        return capsys.readouterr().out

    decoded = []

    def counted(file, *rest):
        decoded.append(file.name)
        return shown_frames(file, *rest)

    shown_frames = video.shown_frames
    monkeypatch.setattr(video, "shown_frames", counted)
    assert "2 extracted, 0 there before, 0 broken" in extract(*KINDS)
    assert decoded == ["slow.mp4", "uneven.mkv"]
    for kind in KINDS:
        alone = tmp_path / "alone" / kind
        main(["--videos", str(videos / "slow.mp4"), str(videos / "uneven.mkv"), "--encoder", "tiny",
              "--type", kind, "--output_dir", str(alone)])  # fmt: skip
        for name in ("slow.pt", "uneven.pt", "feature_shapes.json", "feature_card.json"):
            together = tmp_path / "together" / kind / name
            assert together.read_bytes() == (alone / name).read_bytes()

    # Each type is continued by itself.
    (tmp_path / "together" / "videomae" / "uneven.pt").unlink()
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "together").rglob("*.pt")}
    decoded.clear()
    assert "1 extracted, 1 there before" in extract(*KINDS) and decoded == ["uneven.mkv"]
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())
    assert "0 extracted, 2 there before" in extract("videomae") and decoded == ["uneven.mkv"]


@pytest.mark.slow
def test_processes_share_the_videos(videos, tmp_path):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for number in range(6):
        shutil.copy(videos / "slow.mp4", folder / f"{number}.mp4")
    out.mkdir()
    words = ["utils/extract_features.py", "--encoder", "tiny", "--device", "cpu"]
    words += ["--output_dir", out, "--videos", folder]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2]
    with FileLock(out / ".3.claim"):  # as by a process on another machine
        said = succeed(*torchrun, *words)
    counts = [int(count) for count in re.findall(r"(\d+) extracted", said)]
    assert len(counts) == 2 and sum(counts) == 5
    assert set(json.loads((out / "feature_shapes.json").read_text())) == set("01245")
    assert "1 extracted, 5 there before, 0 broken" in succeed(*words)
    left = {path.name for path in out.iterdir() if path.suffix not in (".pt", ".json")}
    assert left == {".feature_shapes.json.lock"}


def test_names_that_are_not_utf8_and_raw_streams(videos, tmp_path, capsys):
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.MTS"))
    named.write_bytes((videos / "slow.mp4").read_bytes())
    raw = remux(tmp_path / "raw.h264")
    out = tmp_path / "out"
    command = ["--encoder", "tiny", "--output_dir", str(out), "--videos", str(named)]
    main(command)
    assert json.loads((out / "feature_shapes.json").read_text()) == {"caf\ufffd": 15}
    with pytest.raises(UserError, match="1 of 1 videos could not be read"):
        main([*command[:-1], str(raw)])
    main([*command[:-1], str(raw), "--frame_rate", "30"])
    assert json.loads((out / "feature_shapes.json").read_text())["raw"] == 37
    assert "give --frame_rate" in capsys.readouterr().err


def test_rows_that_are_not_finite_are_never_saved(videos, tmp_path, monkeypatch, capsys):
    rows = torch.full((1, 32), torch.nan)
    monkeypatch.setattr(ImageEncoder, "encode", lambda *_: rows)
    with pytest.raises(UserError, match="1 of 1 videos could not be read"):
        main(["--encoder", "tiny", "--output_dir", str(tmp_path), "--videos",
              str(videos / "slow.mp4")])  # fmt: skip
    assert "NaN or infinity" in capsys.readouterr().err and not list(tmp_path.glob("*.pt"))


def test_rows_are_compared_with_released_ones(videos, tmp_path, capsys):
    """A grid that drifts, later rows and zeros at the end are alike, another model is not."""
    command = ["--type", "egovlp", "--encoder", "tiny", "--output_dir", str(tmp_path / "own")]
    command += ["--videos", str(videos / "steady.mp4"), str(videos / "slow.mp4"), "--like"]
    released = tmp_path / "released"
    released.mkdir()
    with pytest.raises(UserError, match="holds no features of these videos"):
        main([*command, str(released)])
    encoder = ImageEncoder("egovlp", "tiny", "cpu")
    (rows,) = extract_rows([encoder], videos / "steady.mp4")
    rows = np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    drifting = rows[np.round(np.arange(len(rows) - 1) * 1.87 / 1.875).astype(int)]
    drifting[-2:] = 0
    likeness = compare_rows(rows, drifting)
    assert likeness.match and likeness.best_cosine == pytest.approx(1)
    later = compare_rows(rows[1:], rows)
    assert (later.shift, later.match) == (1, True) and later.cosine < 0.5 < later.best_cosine
    assert not compare_rows(rows, rows[: len(rows) // 2]).match  # half as many
    torch.save(torch.from_numpy(rows).half(), released / "steady.pt")  # of another model
    main([*command, str(released)])
    assert "differs" in capsys.readouterr().out
    shutil.copy(tmp_path / "own" / "steady.pt", released)
    main([*command, str(released)])
    out = capsys.readouterr().out
    assert re.search(r"steady \|\s+22 \|\s+22 \|\s+1\.000 \|\s+\+0 \|.*matches", out)
    assert "1 of 1 match" in out
