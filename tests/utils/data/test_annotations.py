"""Annotation files: what real ones contain is tolerated, what is broken is named."""

import json
from pathlib import Path

import pytest

from utils.data.annotations import clip_name_fault, iter_queries, read_annotations


def annotations(*queries, **clip) -> dict:
    """One video with one clip with one annotation with these queries."""
    annotation = {"annotation_uid": "a", "language_queries": list(queries)}
    bounds = {"clip_uid": "c", "video_start_sec": 0.0, "video_end_sec": 300.0}
    clip = {**bounds, "annotations": [annotation], **clip}
    return {"videos": [{"video_uid": "v", "clips": [clip]}]}


def query(text: object = "where is it?", start: object = 1.0, end: object = 2.0) -> dict:
    return {"query": text, "clip_start_sec": start, "clip_end_sec": end}


def written(folder: Path, content: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def test_queries_without_text_keep_their_index(tmp_path):
    path = written(
        tmp_path,
        annotations(
            {"clip_start_sec": 1.0, "clip_end_sec": 2.0},
            query(None),
            query("", 0, 0),
            query("where?", 5.0, 400.0),
            query("who?", -4e-7, -4e-7),
            {"query": "no times"},
        ),
    )
    queries = list(iter_queries(read_annotations(path)))
    assert [q.query_idx for q in queries] == [3, 4, 5]
    assert [q.text for q in queries] == ["where?", "who?", "no times"]
    assert [q.window for q in queries] == [(5.0, 400.0), (-4e-7, -4e-7), None]
    assert [q.key for q in queries] == [("c", "a", index) for index in (3, 4, 5)]
    every = list(iter_queries(read_annotations(path), with_textless=True))
    assert [q.text for q in every] == ["", "", "", "where?", "who?", "no times"]


def test_annotations_of_other_benchmarks_and_several_of_them(tmp_path):
    several = [
        {"query_sets": {"1": {}}},
        {"annotation_uid": "a1", "language_queries": None},
        {"annotation_uid": "a2", "language_queries": [query()]},
        {"annotation_uid": "a3", "language_queries": [query(), query("who?")]},
    ]
    content = read_annotations(written(tmp_path, annotations(annotations=several)))
    found = [(q.annotation_uid, q.query_idx) for q in iter_queries(content)]
    assert found == [("a2", 0), ("a3", 0), ("a3", 1)]
    for empty in ({"annotations": []}, {"annotations": None}):
        assert not list(iter_queries(read_annotations(written(tmp_path, annotations(**empty)))))


@pytest.mark.parametrize("name", ["", "../c", "a/b", "a\\b", "..", "a\0"])
def test_a_clip_is_not_named_as_no_file_can_be(name):
    assert "can't name a file" in clip_name_fault(name)
    assert clip_name_fault("a.b-c") is None
