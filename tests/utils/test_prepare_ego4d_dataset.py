"""Annotation files to prepared data sets."""

import json
from pathlib import Path

import pytest

from tests.samples import timed, write_annotations
from utils.base.errors import UserError
from utils.data.prepared import prepare_split
from utils.data.words import clean_sentence
from utils.prepare_ego4d_dataset import main


def arguments(output: Path, *files: Path) -> list[str]:
    inputs = zip(("train", "val", "test"), map(str, files), strict=True)
    options = [word for split, file in inputs for word in (f"--input_{split}_split", file)]
    return [*options, "--output_save_path", str(output)]


def annotation_file(folder: Path, queries: list[dict], seconds: float = 10.0) -> Path:
    return write_annotations(folder / "split.json", seconds, c=queries)


def test_splits_are_the_golden_ones(golden, tmp_path, capsys):
    names = ("expected_nlq_aug_naq_train", "nlq_val", "nlq_test_unannotated")
    main(arguments(tmp_path / "out", *(golden / "naq" / f"{name}.json" for name in names)))
    for split in ("train", "val", "test"):
        written = json.loads((tmp_path / "out" / f"{split}.json").read_text())
        expected = json.loads((golden / "naq" / f"expected_prepared_{split}.json").read_text())
        assert written == expected
        assert list(written) == list(expected)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["split", "queries", "clips"],
        ["train", "642", "60"],
        ["val", "60", "12"],
        ["test", "61", "12"],
    ]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Where is it?", "where is it?"),
        ("  Where is it?? ", "where is it?"),
        ("where is it ?", "where is it ?"),
        ("#C C picks the Knife", "#c c picks the knife?"),
        ("?", "?"),
    ],
)
def test_sentences_are_cleaned(text, cleaned):
    assert clean_sentence(text) == cleaned


def test_both_ends_are_truncated(tmp_path):
    queries = [
        timed("a", 1.0, 1.5),
        timed("b", -4e-7, 12),
    ]
    clip = prepare_split(annotation_file(tmp_path, queries, 9.5))["c"]
    assert clip.timestamps == [(1, 2), (0, 22)]
    assert clip.exact_times == [(1.0, 1.5), (-4e-7, 12.0)]
    assert clip.num_frames == 17
    assert clip.fps == 1.875


def test_times_may_lack_in_the_test_split_only(tmp_path):
    path = annotation_file(tmp_path, [{"query": "where?"}, {}, {"query": "who?"}])
    clip = prepare_split(path, has_times=False)["c"]
    assert clip.timestamps == [(0, 0), (0, 0)]
    assert clip.exact_times == [(0.0, 0.0), (0.0, 0.0)]
    assert clip.query_idx == [0, 2]
    with pytest.raises(UserError, match="query 0 of annotation a in clip c has no clip_start_sec"):
        prepare_split(path)


def test_clips_without_queries_are_left_out(tmp_path):
    for queries in ([{"query": None}, {"query": ""}], []):
        assert prepare_split(annotation_file(tmp_path, queries)) == {}


def test_reversed_windows_are_kept_and_reported(tmp_path, capsys):
    clip = prepare_split(annotation_file(tmp_path, [timed("a", 3.0, 2.0)]))["c"]
    assert clip.exact_times == [(3.0, 2.0)]
    assert "1 windows end before they start" in capsys.readouterr().err
