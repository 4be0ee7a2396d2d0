"""Annotation files: what real ones contain is tolerated."""

import json

import pytest

from tests.samples import annotations, timed, write_annotations
from utils.data.annotations import clip_name_fault, iter_queries, read_annotations


def test_queries_without_text_keep_their_index(tmp_path):
    queries = [
        {"clip_start_sec": 1.0, "clip_end_sec": 2.0},
        timed(None, 1.0, 2.0),
        timed("", 0, 0),
        timed("where?", 5.0, 400.0),
        timed("who?", -4e-7, -4e-7),
        {"query": "no times"},
    ]
    content = read_annotations(write_annotations(tmp_path / "a.json", c=queries))
    with_text = list(iter_queries(content))
    assert [q.query_idx for q in with_text] == [3, 4, 5]
    assert [q.text for q in with_text] == ["where?", "who?", "no times"]
    assert [q.window for q in with_text] == [(5.0, 400.0), (-4e-7, -4e-7), None]
    assert [q.key for q in with_text] == [("c", "a", index) for index in (3, 4, 5)]
    every = iter_queries(content, with_textless=True)
    assert [q.text for q in every] == ["", "", "", "where?", "who?", "no times"]


def test_annotations_of_other_benchmarks_are_passed_over(tmp_path):
    query = timed("where?", 1.0, 2.0)
    several = [
        {"query_sets": {"1": {}}},
        {"annotation_uid": "a1", "language_queries": None},
        {"annotation_uid": "a2", "language_queries": [query]},
        {"annotation_uid": "a3", "language_queries": [query, query]},
    ]
    for of_clip, expected in ((several, [("a2", 0), ("a3", 0), ("a3", 1)]), ([], []), (None, [])):
        content = annotations(c=[])
        content["videos"][0]["clips"][0]["annotations"] = of_clip
        (tmp_path / "a.json").write_text(json.dumps(content))
        queries = iter_queries(read_annotations(tmp_path / "a.json"))
        assert [(q.annotation_uid, q.query_idx) for q in queries] == expected


@pytest.mark.parametrize("name", ["", "../c", "a/b", "a\\b", "..", "a\0"])
def test_a_clip_is_not_named_as_no_file_can_be(name):
    assert "can't name a file" in clip_name_fault(name)
    assert clip_name_fault("a.b-c") is None
