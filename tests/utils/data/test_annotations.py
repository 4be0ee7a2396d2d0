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
    clips = list(iter_clips(read_annotations(path)))
    assert [(video.video_uid, clip.clip_uid, *clip.bounds) for video, clip in clips] == [
        (video["video_uid"], clip["clip_uid"], clip["video_start_sec"], clip["video_end_sec"])
        for video in json.loads(path.read_text())["videos"]
        for clip in video["clips"]
    ]


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


CLIP = "$.videos[0].clips[0]"
ANNOTATION = f"{CLIP}.annotations[0]"
QUERY = f"{ANNOTATION}.language_queries[0]"


@pytest.mark.parametrize(
    ("content", "words", "place"),
    [
        ({}, "missing required field `videos`", None),
        ({"videos": [{"video_uid": "", "clips": []}]}, "length >= 1", "$.videos[0].video_uid"),
        *(
            (annotations(clip_uid=name), "clip_uid: ", CLIP)
            for name in ("", "../c", "a/b", "a\\b", "..", "a\0")
        ),
        (annotations(video_end_sec=1e308), "Expected `float` <= ", f"{CLIP}.video_end_sec"),
        (annotations(video_end_sec=-1), "ends before it starts", CLIP),
        (annotations(annotations=[{"language_queries": []}]), "no annotation_uid", ANNOTATION),
        (annotations(query(7)), "Expected `str | null`, got `int`", f"{QUERY}.query"),
        (annotations(query(end=True)), "got `bool`", f"{QUERY}.clip_end_sec"),
        (annotations(query(end=None)), "only one of clip_start_sec and clip_end_sec", QUERY),
        (annotations(query(end=float("nan"))), "NaN and Infinity are not numbers of JSON", None),
    ],
)
def test_faults_are_named_with_file_and_place(tmp_path, content, words, place):
    path = written(tmp_path, content)
    with pytest.raises(UserError) as error:
        read_annotations(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and words in message and "\n" not in message
    assert place is None or message.endswith(f" - at `{place}`")
