"""Packing and cutting features: equal to their sources, whole or not there, and never bad ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated import refuse
from tests.utils.feature_sample import LENGTHS, source, write_features
from utils.base.errors import UserError
from utils.features.files import PackedFeatures
from utils.features.mapped import open_features, pooled_features
from utils.prepare_features import main

PROGRAM = "utils/prepare_features.py"


@pytest.fixture
def data(tmp_path):
    return write_features(tmp_path)


@pytest.fixture
def videos(tmp_path):
    """Features of two videos, and where clips lie in them."""
    folder = tmp_path / "videos"
    folder.mkdir()
    draw = torch.Generator().manual_seed(1)
    for uid, rows in (("v1", 300), ("v2", 120)):
        torch.save(torch.randn(rows, 5, generator=draw), folder / f"{uid}.pt")
    (folder / "feature_card.json").write_text('{"frame_rate": 30, "stride": 16, "model": "made"}')
    annotate(tmp_path / "train.json", {"v1": {"p": (0, 48.0), "q": (80.03, 160.0)}})
    annotate(tmp_path / "val.json", {"v2": {"r": (9.7, 64.1)}, "v1": {"p": (0, 48.0)}})
    return tmp_path


def annotate(file, videos):
    clips = {
        video: [
            {"clip_uid": uid, "video_start_sec": start, "video_end_sec": end, "annotations": []}
            for uid, (start, end) in clips.items()
        ]
        for video, clips in videos.items()
    }
    file.write_text(
        json.dumps({"videos": [{"video_uid": v, "clips": c} for v, c in clips.items()]})
    )


def pack(data, *more):
    words = ["--features", "egovlp", "--data_root", data, "--workers", 1, *more]
    main(list(map(str, words)))
    return data / "features/egovlp.h5"


def cut(data, *more, annotations=("train.json", "val.json")):
    files = [data / name for name in annotations]
    words = ["--features", "egovlp", "--data_root", data, "--workers", 1]
    words += ["--from_video_features", data / "videos", "--annotations", *files, *more]
    main(list(map(str, words)))
    return data / "features/egovlp"


def hidden(data):
    """What unfinished work left, but for the locks."""
    return [p.name for p in (data / "features").glob(".*") if p.suffix != ".lock"]


def test_packed_equals_the_folder_bit_for_bit(data):
    wanted = ["c", "gone", "a", "b"]
    expected = open_features(data, "egovlp", wanted, data / "cache")
    pooled = pooled_features(data, "egovlp", wanted, 16, data / "cache").pooled.copy()
    assert expected.joined.filename.name == "rows.bin"
    file = pack(data)
    store = open_features(data, "egovlp", wanted, data / "cache")
    assert store.joined.filename == file  # mapped as it is, no second copy
    assert store.joined.dtype == np.float32
    assert store.joined.offset % 4096 == 0
    assert store.missing == ["gone"]
    for clip, uid in enumerate(wanted):
        assert store.rows(clip).tobytes() == expected.rows(clip).tobytes()
        if uid != "gone":
            assert store.rows(clip).tobytes() == source(data, uid).tobytes()
    again = pooled_features(data, "egovlp", wanted, 16, data / "cache")
    assert again.pooled.tobytes() == pooled.tobytes()
    assert hidden(data) == []


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    width=st.integers(1, 7),
    half=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_folder_is_packed_as_it_is(tmp_path_factory, lengths, width, half, seed):
    data = tmp_path_factory.mktemp("any")
    folder = data / "features/egovlp"
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(seed)
    for n, rows in enumerate(lengths):
        features = torch.randn(rows, width, generator=draw)
        torch.save(features.half() if half else features, folder / f"{n}.pt")
    packed = PackedFeatures(pack(data), [str(n) for n in range(len(lengths))])
    assert packed.mapped.dtype == (np.float16 if half else np.float32)
    for n in range(len(lengths)):
        assert packed.read(n).tobytes() == source(data, n).tobytes()


def test_the_card_says_where_features_come_from(data):
    (data / "features/egovlp/feature_card.json").write_text(
        '{"stride": 16, "normalisation": "none", "window": [16, 32]}'
    )
    file = pack(data, "--dtype", "float16", "--model", "EgoVLP", "--stride", 8)
    with h5py.File(file) as packed:
        card = dict(packed.attrs)
        assert packed["rows"].dtype == np.float16
    assert (card["frame_rate"], card["stride"], card["width"]) == (30, 8, 5)
    assert (card["model"], card["dtype"], card["normalisation"]) == ("EgoVLP", "float16", "none")
    assert json.loads(card["window"]) == [16, 32]
    assert card["program"].startswith(PROGRAM) and card["date"].startswith("20")
    assert card["source"] == str(data / "features/egovlp") and len(card["fingerprint"]) == 20
    assert PackedFeatures(file, ["a"]).rate == 30 / 8
    np.testing.assert_array_equal(
        PackedFeatures(file, ["a"]).read(0), source(data, "a").astype(np.float16)
    )


def test_a_card_of_another_width_is_refused(data):
    (data / "features/egovlp/feature_card.json").write_text('{"width": 7}')
    with pytest.raises(UserError, match="features are 5 wide, their feature card says 7"):
        pack(data)


def test_a_second_run_does_nothing_and_a_changed_input_is_refused(data, capsys):
    file = pack(data)
    before = file.stat()
    pack(data)
    assert file.stat() == before
    assert "| done before   | 3" in capsys.readouterr().out
    assert open_features(data, "egovlp", ["b"], data / "cache").lengths.tolist() == [7]
    assert "warning" not in capsys.readouterr().err
    torch.save(torch.ones(7, 5), data / "features/egovlp/b.pt")
    open_features(data, "egovlp", ["b"], data / "cache")
    assert "packed from other files than lie in" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"egovlp\.h5: is there, made from other files"):
        pack(data)
    assert file.stat() == before
    pack(data, "--overwrite")
    assert (PackedFeatures(file, ["b"]).read(0) == 1).all()
    file.write_bytes(b"torn")
    with pytest.raises(UserError, match="is there, made from other files"):
        pack(data)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.full((7, 5), torch.nan), "NaN or infinite values in row 0"),
        (torch.ones(7, 4), "features are 4 wide, those of most files are 5"),
        (torch.ones(0, 5), "features are empty"),
        (torch.ones(7), r"not a tensor \(rows, width\)"),
        (torch.ones(7, 5, 1), r"not a tensor \(rows, width\)"),
        (torch.ones(7, 5, dtype=torch.int64), "is an integer tensor"),
        ([1, 2], "is list"),
        (Hostile(), r"refused, it holds a posix\.system"),
        (torch.ones(9, 5), "has 9 rows, feature_shapes.json says 7"),
        (torch.full((7, 5), 7e4), "70000 is too large for float16; give --dtype float32"),
        (None, "damaged or cut off"),
    ],
)
def test_bad_files_are_named_and_nothing_is_made(data, content, words, monkeypatch):
    monkeypatch.chdir(data)
    file = data / "features/egovlp/b.pt"
    if content is None:
        file.write_bytes(file.read_bytes()[:-400])
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=rf"b\.pt: .*({words})"):
        pack(data, "--dtype", "float16")
    assert not (data / "canary").exists()
    assert not (data / "features/egovlp.h5").exists()


def test_all_faults_are_named_at_once(data, capsys):
    folder = data / "features/egovlp"
    torch.save(torch.full((7, 5), torch.nan), folder / "b.pt")
    torch.save(torch.ones(16, 4), folder / "c.pt")
    with pytest.raises(UserError, match="2 faults, named above; mend the files"):
        pack(data)
    said = capsys.readouterr().out
    assert "b.pt: NaN" in said and "c.pt: features are 4 wide" in said
    assert "| faults        | 2" in said and "| nothing" in said


def test_a_mended_file_is_all_that_is_done_again(data, capsys):
    good = torch.from_numpy(source(data, "b"))
    torch.save(good * torch.inf, data / "features/egovlp/b.pt")
    with pytest.raises(UserError, match="NaN or infinite"):
        pack(data)
    torch.save(good, data / "features/egovlp/b.pt")
    capsys.readouterr()
    file = pack(data)
    assert "| done before   | 2" in capsys.readouterr().out
    assert file.exists() and hidden(data) == []
    np.testing.assert_array_equal(PackedFeatures(file, ["b"]).read(0), good)


def test_rows_are_compared_with_durations(data, capsys):
    seconds = {uid: (10.0, 10 + rows / 1.875) for uid, rows in LENGTHS.items()}
    annotate(data / "some.json", {"v": {**seconds, "elsewhere": (0, 5)}})
    pack(data, "--annotations", data / "some.json")
    said = capsys.readouterr()
    assert "no features of 4 clips in the annotations for 1: elsewhere" in said.err
    assert "100.0% to 100.0%" in said.out and "40 rows of 40.0" in said.out
    annotate(data / "some.json", {"v": {uid: (0, 2 * end) for uid, (_, end) in seconds.items()}})
    pack(data, "--annotations", data / "some.json", "--overwrite")
    said = capsys.readouterr()
    assert "rows of 3 of 3 clips do not fit" in said.err and "is the stride another" in said.err


def test_cuts_equal_plain_slices(videos):
    folder = cut(videos)
    plain = {u: torch.load(videos / f"videos/{u}.pt", weights_only=True) for u in ("v1", "v2")}
    expected = {"p": plain["v1"][:90], "q": plain["v1"][150:300], "r": plain["v2"][18:120]}
    for uid, rows in expected.items():
        found = torch.load(folder / f"{uid}.pt", weights_only=True)
        assert torch.equal(found, rows)
        assert (folder / f"{uid}.pt").stat().st_size < rows.nbytes + 2000  # not the whole video
    assert json.loads((folder / "feature_shapes.json").read_text()) == {"p": 90, "q": 150, "r": 102}
    card = json.loads((folder / "feature_card.json").read_text())
    assert card["model"] == "made" and card["width"] == 5 and "nearest" in card["cut"]
    assert hidden(videos) == []
    store = open_features(videos, "egovlp", ["r", "p"], videos / "cache")
    np.testing.assert_array_equal(store.rows(1), plain["v1"][:90])
    before = folder.stat().st_mtime_ns
    cut(videos)
    assert folder.stat().st_mtime_ns == before
    pack(videos)  # what was cut can be packed, and is the same as when packed at once
    both = [PackedFeatures(videos / "features/egovlp.h5", ["p", "q", "r"])]
    cut(videos, "--packed", "--overwrite")
    both.append(PackedFeatures(videos / "features/egovlp.h5", ["p", "q", "r"]))
    assert both[0].mapped.tobytes() == both[1].mapped.tobytes()
    assert torch.equal(torch.from_numpy(both[1].read(1).copy()), expected["q"])


def test_cuts_that_the_videos_do_not_allow(videos, capsys):
    annotate(videos / "late.json", {"v1": {"p": (0, 40.0)}})
    with pytest.raises(UserError, match="two different bounds"):
        cut(videos, annotations=("train.json", "late.json"))
    annotate(videos / "late.json", {"v2": {"p": (0, 48.0)}})
    with pytest.raises(UserError, match="clip p lies in two videos, v1 and v2"):
        cut(videos, annotations=("train.json", "late.json"))
    annotate(videos / "late.json", {"v2": {"late": (50.0, 80.0), "beyond": (90.0, 99.0)}})
    with pytest.raises(UserError, match="2 faults"):
        cut(videos, annotations=("train.json", "late.json"))
    assert "v2.pt: has 120 rows, clip late ends at row 150 (80.0 s" in capsys.readouterr().out
    assert not (videos / "features/egovlp").exists()
    annotate(videos / "none.json", {"gone": {"g": (0, 9.0)}})
    with pytest.raises(UserError, match="features of none of the 1 videos"):
        cut(videos, annotations=("none.json",))
    cut(videos, annotations=("train.json", "none.json"))
    assert "no features of 3 clips in the annotations for 1: g" in capsys.readouterr().err
    (videos / "features/egovlp/feature_card.json").unlink()
    with pytest.raises(UserError, match="egovlp: is there, made from other files"):
        cut(videos)


@pytest.mark.slow
def test_processes_write_what_one_process_writes(data):
    one = PackedFeatures(pack(data), list(LENGTHS)).mapped.tobytes()
    (data / "features/egovlp.h5").unlink()
    done = subprocess.run(
        [sys.executable, PROGRAM, "--features", "egovlp", "--data_root", data, "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert PackedFeatures(data / "features/egovlp.h5", list(LENGTHS)).mapped.tobytes() == one


# Kills itself when as many clips as said are written, in the middle of writing the next one.
KILLED = """
import os, signal, sys
import utils.features.packing as writing
import utils.features.packing as outputs
from utils.prepare_features import main
writing.SYNC_SECONDS = 0
left = int(sys.argv[1])
put = outputs.PackedOutput.put if sys.argv[2] == "packed" else outputs.FolderOutput.put
def put_some(self, uid, place, rows):
    global left
    if left == 0:
        put(self, uid, place, rows[: len(rows) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    put(self, uid, place, rows)
outputs.PackedOutput.put = outputs.FolderOutput.put = put_some
main(sys.argv[3:])
"""


def kill_after(count, kind, *words):
    command = [sys.executable, "-c", KILLED, count, kind, *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("count", [0, 2])
def test_a_killed_run_is_continued(data, capsys, count):
    expected = PackedFeatures(pack(data), list(LENGTHS)).mapped.tobytes()
    file = data / "features/egovlp.h5"
    file.unlink()
    words = ("--features", "egovlp", "--data_root", data, "--workers", 1)
    kill_after(count, "packed", *words)
    assert not file.exists() and len(hidden(data)) == 2
    open_features(data, "egovlp", ["a"], data / "cache")  # the folder is of use meanwhile
    with (data / "features/.egovlp.h5.journal").open("a") as journal:
        journal.write('\n["c", "torn')
    capsys.readouterr()
    pack(data)
    assert f"| done before   | {count}" in capsys.readouterr().out
    assert PackedFeatures(file, list(LENGTHS)).mapped.tobytes() == expected
    assert hidden(data) == []


def test_a_killed_run_is_begun_anew_with_other_files(data, capsys):
    words = ("--features", "egovlp", "--data_root", data, "--workers", 1)
    kill_after(2, "packed", *words)
    torch.save(torch.ones(8, 5), data / "features/egovlp/b.pt")
    (data / "features/egovlp/feature_shapes.json").unlink()
    file = pack(data)
    assert "| done before   | 0" in capsys.readouterr().out
    packed = PackedFeatures(file, ["a", "b"])
    assert (packed.read(1) == 1).all() and len(packed.read(1)) == 8
    np.testing.assert_array_equal(packed.read(0), source(data, "a"))


def test_a_killed_cut_is_continued(videos, capsys):
    words = ["--features", "egovlp", "--data_root", videos, "--workers", 1]
    words += ["--from_video_features", videos / "videos"]
    words += ["--annotations", videos / "train.json", videos / "val.json"]
    kill_after(2, "folder", *words)
    assert not (videos / "features/egovlp").exists()
    (videos / "features/.egovlp.partial/.r.pt.x.tmp").write_bytes(b"half")
    folder = cut(videos)
    assert "| done before           | 2" in capsys.readouterr().out
    names = {"p.pt", "q.pt", "r.pt", "feature_shapes.json", "feature_card.json"}
    assert {path.name for path in folder.iterdir()} == names
    plain = torch.load(videos / "videos/v1.pt", weights_only=True)
    assert torch.equal(torch.load(folder / "q.pt", weights_only=True), plain[150:300])
    assert hidden(videos) == []


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(data):
    folder = data / "features/egovlp"
    features = torch.randn(900, 1024)
    for n in range(60):
        torch.save(features, folder / f"long{n}.pt")
    for uid in LENGTHS:
        (folder / f"{uid}.pt").unlink()
    command = [PROGRAM, "--features", "egovlp", "--data_root", str(data), "--workers", "2"]
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL) as process:
        journal = data / "features/.egovlp.h5.journal"
        wait_for(lambda: journal.exists() or process.poll() is not None)
        children = [int(p) for p in children_of(process.pid)]
        process.kill()
    assert not (data / "features/egovlp.h5").exists()
    assert len(children) >= 2
    wait_for(lambda: not any(is_alive(child) for child in children))
    for n in range(55):  # a smaller rest is enough to see that it goes on
        (folder / f"long{n}.pt").unlink()
    file = pack(data)
    np.testing.assert_array_equal(PackedFeatures(file, ["long57"]).read(0), features)


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_wrong_command_lines_end_with_one_line(data, capsys):
    annotate(data / "some.json", {"a": {"a1": (0, 9)}})
    videos = ["--from_video_features", data / "features/egovlp"]
    for words, said in (
        (["egovlp", "egovlp"], "names one twice"),
        (["../egovlp"], "plain folder names"),
        (["egovlp", "--stride", 0], "above 0"),
        (["egovlp", "--workers", 0], "1 or more"),
        (["egovlp", "--packed"], "--packed belongs to --from_video_features"),
        (["x", *videos], "needs --annotations"),
        (["x", "y", *videos], "one name"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(list(map(str, ["--data_root", data, "--features", *words])))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    with pytest.raises(UserError, match="need another name than egovlp"):
        cut_from = [*videos, "--annotations", data / "some.json", "--workers", 1]
        main(list(map(str, ["--data_root", data, "--features", "egovlp", *cut_from])))
    error = refuse(PROGRAM, "--features", "slowfast", "--data_root", data, "--workers", 1)
    assert "slowfast: no such folder" in error
