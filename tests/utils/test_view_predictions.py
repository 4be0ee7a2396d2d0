"""The page to look through predictions: what is in it, and that no text of the files is markup."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.samples import prepared_clip, timed, write_annotations
from tests.utils.viewer.viewer_sample import (
    HOSTILE,
    make_page,
    view,
    write_predictions_of,
    write_split,
)
from utils.base.errors import UserError
from utils.data.annotations import iter_queries, read_annotations
from utils.evaluation.metrics import iou
from utils.evaluation.scoring import read_windows, true_windows
from utils.view_predictions import clip_narrations, find_videos, name_files


class Page(HTMLParser):
    """Tags and scripts of a page, as a browser tells them apart."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.text, self.place = [], [], {}, None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend(attributes)
        self.place = (tag, dict(attributes).get("id"))

    def handle_endtag(self, tag):
        self.place = None

    def handle_data(self, data):
        self.text[self.place] = self.text.get(self.place, "") + data

    @property
    def data(self):
        return json.loads(self.text["script", "data"])


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("viewer"), 35)


def test_ious_and_windows_are_those_of_metrics(sample):
    page, split, files = sample
    data = Page(page).data
    queries = list(iter_queries(read_annotations(split)))
    assert data["queries"]["text"] == [query.text for query in queries]
    assert data["queries"]["index"] == [query.query_idx for query in queries]
    truth = true_windows(queries)
    np.testing.assert_allclose(np.reshape(data["queries"]["truth"], (-1, 2)), truth, atol=5e-4)
    assert [run["name"] for run in data["runs"]] == [f"Wide {HOSTILE}", "Close"]
    for shown, file in zip(data["runs"], files, strict=True):
        windows, answered, _ = read_windows(file, queries, 5)
        assert shown["answered"] == answered.tolist()
        expected = iou(windows, truth[:, None]).ravel()
        assert shown["iou"] == expected.tolist()  # not rounded: thresholds are strict
        np.testing.assert_allclose(np.reshape(shown["windows"], windows.shape), windows, atol=5e-4)


def test_the_page_is_one_file_that_asks_for_nothing_else(sample):
    page = Page(sample[0])
    assert not {"img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("link") == 1  # the empty icon
    urls = [value for name, value in page.attributes if name in ("src", "href", "action")]
    assert urls == ["data:,"]
    assert "url(" not in page.text["style", None]
    assert "@import" not in page.text["style", None]
    policy = next(value for name, value in page.attributes if "default-src" in (value or ""))
    assert "unsafe" not in policy and "default-src 'none'" in policy


def test_scripts_never_write_markup(root):
    for file in (root / "utils" / "viewer").glob("*.js"):
        words = file.read_text()
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in words, f"{file.name}: {way}"
        assert not re.search(r"</script|<!--", words)


def test_narrations_of_each_form_are_shown(tmp_path, sample):
    page, split, _ = sample
    clip = Page(page).data["clips"][0]
    # By start; the one that ends outside the clip is left out.
    assert clip["narrations"] == [
        [10.0, 11.0, f"#C C {HOSTILE}"],
        [30.0, 31.0, "#C C picks the knife"],
    ]
    assert clip["seconds"] == 480.0

    queries = [timed("#C C cuts", 3.5, 4.5), timed("where?", 1.0, 2.0)]
    naq = write_annotations(tmp_path / "naq.json", **{"clip-001": queries})
    prepared = tmp_path / "train.json"
    clip = prepared_clip(("#C C cuts", 3.5, 4.5), ("where?", 1.0, 2.0))
    prepared.write_text(json.dumps({"clip-001": clip, "elsewhere": clip}))
    for file in (naq, prepared):
        narrations = clip_narrations(str(file), read_annotations(split))
        assert narrations == {"clip-001": [(3.5, 4.5, "#C C cuts")]}


def test_fewer_windows_missing_queries_and_strangers_are_shown_as_such(tmp_path, capsys):
    split = write_split(tmp_path, 4)
    file = write_predictions_of(split, tmp_path / "p.json", 2.0)
    content = json.loads(file.read_text())
    content["results"][0]["predicted_times"] = [[1.0, 2.0], [3.0, 4.0]]
    content["results"][2] |= {"clip_uid": "elsewhere"}
    file.write_text(json.dumps(content))
    page = tmp_path / "page.html"
    view("--annotations", split, "--predictions", file, "--output", page)
    assert "1 predictions are for no query" in capsys.readouterr().err
    shown = Page(page).data["runs"][0]
    assert shown["answered"] == [True, True, False, True]
    assert shown["windows"][:10] == [1.0, 2.0, 3.0, 4.0] + [None] * 6
    assert shown["iou"][2:5] == [None] * 3
    assert shown["iou"][10:15] == [None] * 5


def test_files_are_named(tmp_path):
    assert name_files(["runs/a.json", "B=b.json"]) == {"a": "runs/a.json", "B": "b.json"}
    assert list(name_files(["x/0_preds.json", "y/0_preds.json"])) == [
        "x/0_preds.json",
        "y/0_preds.json",
    ]
    (tmp_path / "lr=1.json").touch()
    assert list(name_files([str(tmp_path / "lr=1.json")])) == ["lr=1"]
    for bad in (["A=x", "A=y"], ["=x"], ["A="], [f"{n}={n}" for n in range(7)]):
        with pytest.raises(UserError):
            name_files(bad)


def test_videos_are_named_from_the_page(tmp_path):
    split = read_annotations(write_split(tmp_path, 25))
    folder = tmp_path / "my videos"
    folder.mkdir()
    (folder / "clip-001.mp4").touch()
    addresses = find_videos(str(folder), str(tmp_path / "pages" / "page.html"), split)
    assert addresses == {"clip-001": "../my%20videos/clip-001.mp4"}
    with pytest.raises(UserError, match="no such folder"):
        find_videos(str(tmp_path / "none"), "page.html", split)
