"""Annotation files: what real ones contain is tolerated, what is broken is named."""

import json
from pathlib import Path

import pytest

from utils.base.errors import UserError
from utils.data.annotations import iter_clips, iter_queries, read_annotations


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


@pytest.mark.parametrize(
    "name", ["nlq_train", "nlq_val_v2", "nlq_test_unannotated", "vq_train", "moments_train_v2"]
)
def test_golden_files_are_read(golden, name):
    path = golden / "naq" / f"{name}.json"
    content = read_annotations(path)
    assert content == json.loads(path.read_text())
    assert len(list(iter_clips(content))) > 10


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
    assert [q.query["query"] for q in queries] == ["where?", "who?", "no times"]
    assert {q[:3] for q in queries} == {("v", "c", "a")}


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


CLIP = "videos[0].clips[0]"
QUERY = f"{CLIP}.annotations[0].language_queries[0]"


@pytest.mark.parametrize(
    ("content", "place", "fault"),
    [
        ([], "top level", "must be an object, not a list"),
        ({}, "top level", "videos is missing"),
        ({"videos": {}}, "videos", "must be a list"),
        ({"videos": ["v"]}, "videos[0]", "must be an object, not 'v'"),
        ({"videos": [{"clips": []}]}, "videos[0]", "video_uid is missing"),
        ({"videos": [{"video_uid": "v"}]}, "videos[0]", "clips is missing"),
        ({"videos": [{"video_uid": "v", "clips": [{}]}]}, CLIP, "clip_uid is missing"),
        (annotations(clip_uid=None), f"{CLIP}.clip_uid", "non-empty text, not null"),
        (annotations(clip_uid=""), f"{CLIP}.clip_uid", "non-empty text"),
        (annotations(clip_uid="../c"), f"{CLIP}.clip_uid", "can't name a file"),
        (annotations(clip_uid="a/b"), f"{CLIP}.clip_uid", "can't name a file"),
        (annotations(clip_uid="a\\b"), f"{CLIP}.clip_uid", "can't name a file"),
        (annotations(clip_uid=".."), f"{CLIP}.clip_uid", "can't name a file"),
        (annotations(clip_uid="a\0"), f"{CLIP}.clip_uid", "can't name a file"),
        (annotations(video_end_sec="9"), f"{CLIP}.video_end_sec", "must be seconds, not '9'"),
        (annotations(video_end_sec=-1), CLIP, "ends before it starts"),
        (annotations(annotations="x"), f"{CLIP}.annotations", "must be a list"),
        (
            annotations(annotations=[{"language_queries": []}]),
            f"{CLIP}.annotations[0]",
            "annotation_uid is missing",
        ),
        (
            annotations(annotations=[{"annotation_uid": "a", "language_queries": {}}]),
            f"{CLIP}.annotations[0].language_queries",
            "must be a list, not an object",
        ),
        (annotations("who?"), QUERY, "must be an object, not 'who?'"),
        (annotations(query(7)), QUERY, "query must be a text, not 7"),
        (annotations(query(start="1.0")), QUERY, "clip_start_sec must be seconds, not '1.0'"),
        (annotations(query(end=True)), QUERY, "clip_end_sec must be seconds, not true"),
        (annotations(query(end=1e308)), QUERY, "clip_end_sec must be seconds, not 1e+308"),
        (annotations(query(start=-1e308)), QUERY, "clip_start_sec must be seconds, not -1e+308"),
        (annotations(query(end=None)), QUERY, "only one of clip_start_sec and clip_end_sec"),
    ],
)
def test_faults_are_named_with_file_and_place(tmp_path, content, place, fault):
    path = written(tmp_path, content)
    with pytest.raises(UserError) as error:
        read_annotations(path)
    message = str(error.value)
    assert message.startswith(f"{path}: {place}: ")
    assert fault in message
    assert "\n" not in message


def test_clip_without_bounds(tmp_path):
    content = annotations()
    del content["videos"][0]["clips"][0]["video_start_sec"]
    with pytest.raises(UserError, match=r"clips\[0\]: video_start_sec is missing"):
        read_annotations(written(tmp_path, content))


def test_clip_bounds_that_are_no_times(tmp_path):
    content = annotations()
    content["videos"][0]["clips"][0]["video_end_sec"] = 1e308
    with pytest.raises(UserError, match=r"clips\[0\]\.video_end_sec: must be seconds, not 1e\+308"):
        read_annotations(written(tmp_path, content))


def test_not_a_number_is_refused(tmp_path):
    path = written(tmp_path, annotations(query(start=float("nan"))))
    with pytest.raises(UserError, match="clip_start_sec: is NaN"):
        read_annotations(path)
    path.write_text(path.read_text().replace("NaN", "1e999"))
    with pytest.raises(UserError):
        read_annotations(path)
