"""Packing and cutting features: equal to their sources, whole or not there, and never bad ones."""

import json

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.killing import run_killed
from tests.utils.features.feature_sample import source, write_features
from utils.base.errors import UserError
from utils.features.mapped import open_features
from utils.features.packed import PackedFeatures
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


def packing(data, *more):
    return list(map(str, ["--features", "egovlp", "--data_root", data, *more]))


def cutting(data, *more, annotations=("train.json", "val.json")):
    files = [data / name for name in annotations]
    return packing(
        data, "--from_video_features", data / "videos", "--annotations", *files, *more
    )  # fmt: skip


def pack(data, *more):
    main(packing(data, *more))
    return data / "features/egovlp.h5"


def cut(data, *more, **options):
    main(cutting(data, *more, **options))
    return data / "features/egovlp"


def hidden(data):
    """What unfinished work left."""
    return [path.name for path in (data / "features").glob(".*")]


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
    assert packed.mapped.offset % 4096 == 0 and hidden(data) == []
    for n in range(len(lengths)):
        assert packed.read(n).tobytes() == source(data, n).tobytes()


def test_the_card_says_where_features_come_from(data, capsys):
    (data / "features/egovlp/feature_card.json").write_text(
        '{"stride": 16, "normalisation": "none", "window": [16, 32]}'
    )
    file = pack(data, "--dtype", "float16", "--model", "EgoVLP", "--stride", 8)
    assert "egovlp: 3 clips of 7 to 40 rows, 5 wide, float16, 630 B" in capsys.readouterr().out
    with h5py.File(file) as packed:
        card = dict(packed.attrs)
        assert packed["rows"].dtype == np.float16
    assert (card["frame_rate"], card["stride"], card["width"]) == (30, 8, 5)
    assert (card["model"], card["dtype"], card["normalisation"]) == ("EgoVLP", "float16", "none")
    assert json.loads(card["window"]) == [16, 32]
    assert card["program"] == PROGRAM and card["date"].startswith("20")
    assert card["source"] == str(data / "features/egovlp") and len(card["fingerprint"]) == 20
    assert PackedFeatures(file, ["a"]).rate == 30 / 8
    np.testing.assert_array_equal(
        PackedFeatures(file, ["a"]).read(0), source(data, "a").astype(np.float16)
    )


def test_cards_that_can_not_be_kept_are_refused(data):
    card = data / "features/egovlp/feature_card.json"
    for content, words in (
        ({"width": 7}, "features are 5 wide, their feature card says 7"),
        ({"x": "a\0b"}, "egovlp: its feature card can't be kept"),
    ):
        card.write_text(json.dumps(content))
        with pytest.raises(UserError, match=words):
            pack(data)
    assert hidden(data) == [] and not (data / "features/egovlp.h5").exists()


def test_a_second_run_does_nothing_and_a_changed_input_is_refused(data, capsys):
    file = pack(data)
    before = file.stat().st_mtime_ns
    pack(data)
    assert file.stat().st_mtime_ns == before
    assert "made before from the same files" in capsys.readouterr().out
    assert open_features(data, "egovlp", ["b"], data / "cache").lengths.tolist() == [7]
    assert "warning" not in capsys.readouterr().err
    torch.save(torch.ones(7, 5), data / "features/egovlp/b.pt")
    open_features(data, "egovlp", ["b"], data / "cache")
    assert "packed from other files than lie in" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"egovlp\.h5: is there, made from other files"):
        pack(data)
    assert file.stat().st_mtime_ns == before
    pack(data, "--overwrite")
    assert (PackedFeatures(file, ["b"]).read(0) == 1).all()
    file.write_bytes(b"torn")
    with pytest.raises(UserError, match="is there, made from other files"):
        pack(data)


def test_bad_files_are_named_and_nothing_is_made(data):
    torch.save(torch.full((7, 5), 7e4), data / "features/egovlp/b.pt")
    with pytest.raises(UserError, match=r"b\.pt: 70000 is too large for float16; give --dtype"):
        pack(data, "--dtype", "float16")
    assert hidden(data) == [] and not (data / "features/egovlp.h5").exists()


def test_cuts_equal_plain_slices(videos):
    folder = cut(videos)
    plain = {u: torch.load(videos / f"videos/{u}.pt", weights_only=True) for u in ("v1", "v2")}
    expected = {"p": plain["v1"][:90], "q": plain["v1"][150:300], "r": plain["v2"][18:120]}
    for uid, rows in expected.items():
        cut_rows = torch.load(folder / f"{uid}.pt", weights_only=True)
        assert torch.equal(cut_rows, rows)
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
    cut(videos, "--dtype", "float16", "--overwrite")
    assert torch.equal(torch.load(folder / "q.pt", weights_only=True), expected["q"].half())
    cut(videos, "--overwrite")
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
    annotate(videos / "late.json", {"v2": {"late": (50.0, 80.0), "beyond": (90.0, 99.0)}})
    with pytest.raises(UserError, match=r"clip beyond ends at .*; .*v2\.pt: clip late ends at row "
                       r"150 \(80\.0 s at 1\.875 rows a second\), the file has 120"):  # fmt: skip
        cut(videos, annotations=("train.json", "late.json"))
    assert not (videos / "features").exists()
    annotate(videos / "none.json", {"gone": {"g": (0, 9.0)}})
    with pytest.raises(UserError, match="of none of the 1 videos"):
        cut(videos, annotations=("none.json",))
    cut(videos, annotations=("train.json", "none.json"))
    assert "no features of 1 of 3 clips in the annotations: g" in capsys.readouterr().err
    (videos / "features/egovlp/feature_card.json").unlink()
    with pytest.raises(UserError, match="egovlp: is there, made from other files"):
        cut(videos)


def test_a_killed_cut_leaves_nothing_that_is_read(videos):
    run_killed(PROGRAM, cutting(videos), videos / "features", 6)
    (left,) = hidden(videos)
    assert left.startswith(".egovlp.") and not (videos / "features/egovlp").exists()
    names = {"p.pt", "q.pt", "r.pt", "feature_shapes.json", "feature_card.json"}
    assert {path.name for path in cut(videos).iterdir()} == names and hidden(videos) == []
