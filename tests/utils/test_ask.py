"""Asking a video: the page of answers, and what is refused before anything long begins."""

import io
import json

import numpy as np
import pytest
import torch

import utils.ask
import utils.search
from tests.bad_inputs.world import WORDS
from tests.utils.features.egovlp_sample import SMALL, released_shapes, write_checkpoint
from tests.utils.search.test_search import Bright
from tests.utils.test_view_predictions import Page
from tests.utils.viewer.viewer_sample import HOSTILE
from utils.base.errors import UserError
from utils.search.search import TrainedRun

SECONDS = 7200


@pytest.fixture
def asking(tmp_path, monkeypatch):
    """Ask two hours of features with a light in them; returns the folder and the program."""
    video = np.random.default_rng(0).uniform(0, 0.1, (SECONDS * 15 // 8, 4)).astype(np.float32)
    video[9000:9012, 0] = 1  # at 1:20:00
    torch.save(torch.from_numpy(video), tmp_path / "my day.pt")
    (tmp_path / "my day.mp4").touch()
    monkeypatch.setattr(utils.search, "load_run", lambda *_: TrainedRun(Bright(), 75.0))

    def ask(*arguments):
        run = ["--checkpoint", f"joint{HOSTILE}", "--features", tmp_path / "my day.pt"]
        utils.ask.main([str(argument) for argument in (*run, *arguments)])

    return tmp_path, ask


def test_the_page_holds_the_answers(asking, capsys):
    folder, ask = asking
    page = folder / "pages" / "page.html"
    ask(
        "--query", "Where is the light?", "--query", HOSTILE, "--top", 3, "--json",
        "--video", folder / "my day.mp4", "--html", page,
    )  # fmt: skip
    output = capsys.readouterr()
    assert f"page: {page}" in output.err
    html = Page(page)
    data, printed = html.data, json.loads(output.out)
    assert data["queries"]["text"] == [entry["query"] for entry in printed]
    assert data["queries"]["text"][1] == HOSTILE
    windows = [[w["start"], w["end"]] for entry in printed for w in entry["windows"]]
    assert np.reshape(data["runs"][0]["windows"], (-1, 2)).tolist() == windows
    assert data["runs"][0]["scores"] == [w["score"] for e in printed for w in e["windows"]]
    assert windows[0][0] == pytest.approx(4800, abs=2)
    assert data["queries"]["truth"] == [None] * 4 and data["perQuery"] == 3
    assert data["clips"] == [
        {
            "uid": "my day.mp4",
            "seconds": SECONDS,
            "narrations": [],
            "video": "../my%20day.mp4",
            "videoUid": "",
        }
    ]
    # Hostile text is data and nowhere else.
    assert html.tags.count("script") == 2 and "img" not in html.tags
    assert "<img" not in page.read_text()
    assert data["runs"][0]["name"] == f"joint{HOSTILE}"
    assert not list(page.parent.glob(".*"))  # nothing half-written stays


def test_a_page_without_video_plays_nothing(asking):
    folder, ask = asking
    ask("--query", "Where?", "--html", folder / "page.html")
    (clip,) = Page(folder / "page.html").data["clips"]
    assert clip["uid"] == "my day.pt" and clip["video"] is None


def test_typed_questions_gather_in_the_page(asking, monkeypatch):
    folder, ask = asking
    page = folder / "page.html"

    class Typed(io.StringIO):
        def readline(self):
            sizes.append(len(Page(page).data["queries"]["text"]) if page.exists() else 0)
            return super().readline()

    sizes = []
    monkeypatch.setattr("sys.stdin", Typed("Where is the light?\n?\nWho was there?\n"))
    ask("--html", page)
    assert sizes == [0, 1, 1, 2]
    assert Page(page).data["queries"]["text"] == ["Where is the light?", "Who was there?"]


def test_windows_are_printed(asking, monkeypatch, capsys):
    _, ask = asking
    ask("--query", "Where was the plate?", "--query", "Who was there?")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == "Where was the plate?" and lines.count("Who was there?") == 1
    assert lines[2].split() == ["|", "|", "from", "|", "to", "|", "score", "|"]
    assert sum(line.startswith("| 5 | ") for line in lines) == 2
    # Typed, one a line, with one that is none.
    monkeypatch.setattr("sys.stdin", io.StringIO("Where was the plate?\n?\nWho was there?\n"))
    ask()
    typed = capsys.readouterr()
    assert typed.out == printed and "the question is empty" in typed.err


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_video_is_searched_with_egovlp_s_checkpoint_alone(tmp_path, capsys, full):
    """Features and token features out of one file; in full: of the released shapes."""
    clocked = pytest.importorskip("tests.utils.features.clocked")
    from tests.utils.search.index_sample import make_run

    file = write_checkpoint(tmp_path / "egovlp.pth", released_shapes() if full else SMALL)
    if not full:
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    run = make_run(tmp_path, fv="egovlp", width=256 if full else 16, text_encoder=file)
    words = ["--checkpoint", run, "--video", clocked.BASE, "--encoder", file]
    utils.ask.main(list(map(str, [*words, "--query", "Where is the cup?", "--json"])))
    (entry,) = json.loads(capsys.readouterr().out)
    assert len(entry["windows"]) == 5
    assert all(0 <= w["start"] < w["end"] <= 20 for w in entry["windows"])


def test_bytes_that_are_no_text_are_marked(asking, capsys):
    folder, ask = asking
    ask("--query", "Where is the caf\udce9?", "--html", folder / "page.html")
    assert "Where is the caf�?" in capsys.readouterr().out
    assert Page(folder / "page.html").data["queries"]["text"] == ["Where is the caf�?"]


def test_what_cannot_be_used_is_refused_at_once(asking, monkeypatch):
    pytest.importorskip("av")
    folder, ask = asking
    monkeypatch.setattr(utils.search, "load_run", None)  # not reached
    (folder / "folder.html").mkdir()
    video = ("--query", "Where?", "--video", folder / "my day.mp4")  # an empty file
    with pytest.raises(UserError, match="is a folder"):
        ask(*video, "--html", folder / "folder.html")
    with pytest.raises(UserError, match=r"my day.mp4: damaged, or no video"):
        ask(*video, "--sheet", folder / "sheet.png")
