"""An index of a folder of videos, made, continued and asked as users do."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
from filelock import FileLock

import utils.ask
import utils.index_videos
from tests.bad_inputs.world import run_here
from tests.killing import run_killed
from tests.simulated import run
from tests.utils.features.clocked import shown_time
from tests.utils.search.index_sample import make_run, make_videos
from tests.utils.test_view_predictions import Page
from utils.base.errors import UserError
from utils.features.excerpts import picture_at
from utils.search import contact_sheet, load_index, load_run
from utils.search.index import _opened

image = pytest.importorskip("PIL.Image")

QUESTION = "Where is the cup?"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run, videos, and their index; and what making it printed."""
    folder = tmp_path_factory.mktemp("made")
    make_run(folder / "runs")
    make_videos(folder / "videos")
    done = run(
        "utils/index_videos.py", folder / "videos", "--checkpoint", folder / "runs" / "run1",
        "--index", folder / "index", "--encoder", "tiny", "--device", "cpu",
    )  # fmt: skip
    return folder, done


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the folder, to be changed, whose index knows the copied videos."""
    folder = shutil.copytree(made[0], tmp_path / "made")
    with sqlite3.connect(folder / "index" / "index.sqlite") as database:
        for (path,) in database.execute("SELECT path FROM videos").fetchall():
            moved = path.replace(bytes(made[0]), bytes(folder))
            database.execute("UPDATE videos SET path = ? WHERE path = ?", (moved, path))
    return folder


def index(folder, *options):
    videos = str(folder / "videos")
    utils.index_videos.main([videos, "--index", str(folder / "index"), *map(str, options)])


def ask(folder, *options):
    words = ["--index", str(folder / "index"), "--query", QUESTION, "--device", "cpu"]
    utils.ask.main([*words, *map(str, options)])


def test_a_folder_is_indexed_and_its_broken_video_named(made):
    folder, done = made
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("broken: ") == 1 and "broken.mp4: damaged" in done.stderr
    assert "error: 1 of 3 could not be read" in done.stderr
    assert "2 indexed, 0 there before, 1 broken, 0 gone" in done.stdout
    assert "2 videos, 0:00:3" in done.stdout
    stored = {file.name: np.load(file, mmap_mode="r") for file in (folder / "index").glob("*.npy")}
    assert len(stored) == 2 and all(clips.dtype == np.float16 for clips in stored.values())


def test_the_index_answers_as_its_videos_do(made):
    folder, _ = made
    opened = load_index(folder / "index")
    answers = opened.ask([QUESTION], top=3)
    assert answers.windows.shape == (1, 3, 2) and (np.diff(answers.scores) <= 0).all()
    best = opened.paths[answers.videos[0, 0]]
    trained = load_run(folder / "runs" / "run1", image_encoders=["tiny"])
    assert trained.clip_seconds == 8
    alone = trained.encode(best).ask([QUESTION], top=3)
    assert answers.windows[0, 0] == pytest.approx(alone.windows[0, 0], abs=0.01)


def test_again_only_what_is_new_or_changed_is_done(copy, capsys, monkeypatch):
    def printed():
        return capsys.readouterr().out.splitlines()[0]

    (copy / "videos" / "broken.mp4").unlink()
    index(copy)
    assert printed() == "0 indexed, 2 there before, 0 broken, 0 gone"
    shutil.copy(copy / "videos" / "monday.mp4", copy / "videos" / "new one.mp4")
    shutil.copy(copy / "videos" / "tuesday.webm", copy / "videos" / "monday.mp4")
    index(copy)
    assert printed() == "2 indexed, 1 there before, 0 broken, 0 gone"
    assert len(list((copy / "index").glob("*.npy"))) == 3
    # A video that is gone is told of, and dropped from answers.
    (copy / "videos" / "tuesday.webm").unlink()
    ask(copy, "--json")
    output = capsys.readouterr()
    assert "1 of 3 videos are gone: tuesday.webm; left out" in output.err
    names = {w["video"] for w in json.loads(output.out)[0]["windows"]}
    assert names <= {str(copy / "videos" / name) for name in ("monday.mp4", "new one.mp4")}
    index(copy)
    output = capsys.readouterr()
    assert "0 indexed, 2 there before, 0 broken, 1 gone" in output.out
    assert "1 videos are gone" in output.err
    assert len(list((copy / "index").glob("*.npy"))) == 2


def test_a_killed_indexing_is_continued(copy):
    shutil.rmtree(copy / "index")
    (copy / "videos" / "broken.mp4").unlink()
    words = [copy / "videos", "--checkpoint", copy / "runs" / "run1", "--index", copy / "index"]
    words += ["--encoder", "tiny", "--device", "cpu"]
    run_killed("utils/index_videos.py", words, copy / "index", 10)
    (stored,) = (copy / "index").glob("*.npy")
    shutil.copy(stored, stored.with_name("99.npy"))  # as if killed before its row
    done = run("utils/index_videos.py", copy / "videos", "--index", copy / "index")
    assert "1 indexed, 1 there before, 0 broken, 0 gone" in done.stdout, done.stderr
    assert len(list((copy / "index").glob("*.npy"))) == 2
    assert len(load_index(copy / "index").paths) == 2


def test_features_are_taken_and_stand_for_videos_that_are_not_there(copy, capsys):
    shutil.rmtree(copy / "index")
    (copy / "features").mkdir()
    trained = load_run(copy / "runs" / "run1", image_encoders=["tiny"])
    import torch

    for name in ("monday.mp4", "tuesday.webm"):
        (rows,) = trained.extract(copy / "videos" / name)
        torch.save(torch.from_numpy(rows), copy / "features" / f"{name.split('.')[0]}.pt")
    (copy / "videos" / "broken.mp4").unlink()
    (copy / "videos" / "tuesday.webm").unlink()
    # No encoder is named, and none can be fetched: all features are taken.
    index(copy, "--checkpoint", copy / "runs" / "run1", "--features", copy / "features")
    assert "2 indexed" in capsys.readouterr().out
    opened = load_index(copy / "index")
    assert {path.name for path in opened.paths} == {"monday.mp4", "tuesday.pt"}
    with pytest.raises(UserError, match="reads clip features, name a folder of each"):
        index(copy, "--features", copy / "features", copy / "features")


def test_ask_names_videos_cuts_and_opens_moments(made, tmp_path, capsys):
    folder, _ = made
    ask(folder, "--top", 2, "--cut", tmp_path / "cuts", "--open")
    output = capsys.readouterr()
    assert "video" in output.out.splitlines()[2]
    ask(folder, "--top", 2, "--json")
    (entry,) = json.loads(capsys.readouterr().out)
    lines = [line for line in output.err.splitlines() if line.startswith("mpv --start=")]
    cuts = sorted((tmp_path / "cuts").iterdir())
    assert len(cuts) == len(lines) == 2
    for window, line, part in zip(entry["windows"], lines, cuts, strict=True):
        assert line.endswith(window["video"]) and f"--start={window['start']:.1f} " in line
        first = shown_time(picture_at(part, 0, 96))
        assert window["start"] - 1.05 < first < window["start"] + 0.05


def test_an_index_is_answered_in_a_page_and_a_sheet(made, tmp_path, capsys):
    folder, _ = made
    page, sheet = tmp_path / "pages" / "page.html", tmp_path / "sheet.png"
    ask(folder, "--top", 4, "--json", "--html", page, "--sheet", sheet)
    (entry,) = json.loads(capsys.readouterr().out)
    data = Page(page).data
    uids = [data["clips"][clip]["uid"] for clip in data["queries"]["clip"]]
    names = [Path(window["video"]).name for window in entry["windows"]]
    assert uids == list(dict.fromkeys(names))  # a row for each video, the best first
    assert data["queries"]["text"] == [f"{QUESTION} ({uid})" for uid in uids]
    windows = np.reshape(np.array(data["runs"][0]["windows"], float), (len(uids), 4, 2))
    for uid, of_video in zip(uids, windows, strict=True):
        shown = [w for w, name in zip(entry["windows"], names, strict=True) if name == uid]
        expected = [[window["start"], window["end"]] for window in shown]
        assert of_video[: len(shown)].tolist() == expected
        assert np.isnan(of_video[len(shown) :]).all()
    for clip in data["clips"]:
        assert (page.parent / clip["video"]).resolve() == folder / "videos" / clip["uid"]
    with image.open(sheet) as drawn:
        assert drawn.height == 5 * contact_sheet.CAPTION + 4 * (
            contact_sheet.HEIGHT + contact_sheet.GAP
        )


def test_videos_of_one_name_are_told_apart_in_the_page(copy, tmp_path):
    (copy / "videos" / "broken.mp4").unlink()
    (copy / "more").mkdir()
    shutil.copy(copy / "videos" / "monday.mp4", copy / "more" / "tuesday.webm")
    utils.index_videos.main([str(copy / "more"), "--index", str(copy / "index")])
    ask(copy, "--top", 10, "--html", tmp_path / "page.html")
    uids = {clip["uid"] for clip in Page(tmp_path / "page.html").data["clips"]}
    both = {str(copy / "videos" / "tuesday.webm"), str(copy / "more" / "tuesday.webm")}
    assert uids & both and uids <= both | {"monday.mp4"}


def test_an_index_learns_where_its_run_has_been_moved_to(made, copy, capsys):
    with sqlite3.connect(copy / "index" / "index.sqlite") as database:
        names = str(made[0]), str(copy / "before")
        database.execute("UPDATE run SET description = replace(description, ?, ?)", names)
    (copy / "videos" / "broken.mp4").unlink()
    with pytest.raises(UserError, match="has been moved, say where with --checkpoint"):
        ask(copy)
    index(copy, "--checkpoint", copy / "runs" / "run1")
    ask(copy)
    assert "Where is the cup?" in capsys.readouterr().out


def test_names_that_are_not_utf8_and_videos_that_are_gone(copy, capsys):
    (copy / "videos" / "broken.mp4").unlink()
    video = min((copy / "videos").iterdir())
    odd = video.with_name(os.fsdecode(b"m\xff") + video.suffix)
    shutil.copy(video, odd)
    index(copy)
    assert "3 videos" in capsys.readouterr().out
    (copy / "videos").rename(copy / "elsewhere")
    (copy / "videos").mkdir()
    shutil.copy(copy / "elsewhere" / video.name, copy / "videos")
    index(copy)
    assert "1 videos" in capsys.readouterr().out


def test_a_full_disk_is_not_damage(tmp_path):
    reason = "disk is full; what was indexed before is kept"
    with pytest.raises(UserError, match=reason), _opened(tmp_path):
        raise sqlite3.OperationalError("database or disk is full")


def test_wrong_uses_are_one_line(copy, tmp_path):
    program, folder = "utils/index_videos.py", copy / "index"
    other = make_run(copy / "runs", seed=2)
    videos = ("utils/index_videos.py", copy / "videos", "--index", folder)
    for words, message in (
        ((program, "--index", folder), "nothing to index"),
        ((program, copy / "videos", "--index", tmp_path / "new"), "needs --checkpoint RUN"),
        ((*videos, "--checkpoint", other), "the index was made with another run"),
        ((*videos, "--encoder", "other"), "the index was made with tiny"),
        (("utils/ask.py", "--index", tmp_path), "no index of videos"),
        (("utils/ask.py", "--index", folder, "--encoder", "tiny"), "--encoder is for one video"),
        (("utils/ask.py", "--index", folder, "--video", "a.mp4"), "--index has videos of its own"),
    ):
        assert message in run_here(words[0], list(map(str, words[1:])), copy)
    with FileLock(folder / ".lock"):
        line = run_here(videos[0], list(map(str, videos[1:])), copy)
        assert "another process is writing this index" in line


def test_damaged_indexes_are_one_line(copy):
    folder = copy / "index"
    stored = min(folder.glob("*.npy"))
    stored.write_bytes(stored.read_bytes()[:300])
    with pytest.raises(UserError, match=r"npy: missing or damaged; delete it"):
        load_index(folder)
    stored.unlink()
    (copy / "videos" / "broken.mp4").unlink()
    index(copy)
    assert len(load_index(folder).paths) == 2
    (folder / "index.sqlite").write_bytes(b"SQLite format 3\0" + bytes(3000))
    with pytest.raises(UserError, match="not an index of videos, or damaged"):
        load_index(folder)
