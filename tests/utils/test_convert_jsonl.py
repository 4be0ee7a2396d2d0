"""JSON lines of GroundNLQ and OSGNet to the NLQ schema."""

import json

import pytest

from utils.base.errors import UserError
from utils.convert_jsonl import main
from utils.data.annotations import iter_queries, read_annotations

LINE = {
    "query": "Where is the bottle?",
    "query_id": "f2ca9cb0-702e_1",
    "duration": 479.968,
    "video_id": "453bf120-65a3",
    "query_type": "nlq",
    "timestamps": [[79.97, 82.97]],
    "label": [{"class_id": 132, "text": "bottle"}],
}


def convert(folder, *lines, split="val"):
    (folder / "in.jsonl").write_text("\n".join(json.dumps(LINE | line) for line in lines) + "\n")
    output = str(folder / "out.json")
    main(["--input", str(folder / "in.jsonl"), "--split", split, "--output", output])
    return list(iter_queries(read_annotations(output)))


def test_queries_keep_their_index(tmp_path, capsys):
    other = {"query": "who?", "query_id": "a_b_0", "timestamps": [[1, 2]]}
    queries = convert(tmp_path, {}, {"query_id": "f2ca9cb0-702e_3", "query": "where?"}, other)
    assert [(q.annotation_uid, q.query_idx, q.text, q.window) for q in queries] == [
        ("f2ca9cb0-702e", 1, "Where is the bottle?", (79.97, 82.97)),
        ("f2ca9cb0-702e", 3, "where?", (79.97, 82.97)),
        ("a_b", 0, "who?", (1, 2)),
    ]
    assert {q.clip_uid for q in queries} == {"453bf120-65a3"}
    assert capsys.readouterr().out.startswith("3 queries, 3 with a window, 1 clips")


def test_a_test_split_has_no_windows(tmp_path, capsys):
    line = {"query_id": "x_0", "timestamps": []}
    [query] = convert(tmp_path, line, split="test")
    assert query.window is None and "0 with a window" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"query_id": "x_10000"}, "line 2: query_id x_10000 counts over 10000"),
        ({}, "line 2: query_id f2ca9cb0-702e_1 is given twice"),
        ({"duration": 5, "query_id": "x_0"}, "line 2: clip 453bf120-65a3 has another duration"),
        ({"video_id": "y"}, "line 2: annotation f2ca9cb0-702e is of another clip"),
        ({"video_id": "../y", "query_id": "x_0"}, "line 2: .*can't name a file"),
    ],
)
def test_faults_name_the_line(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        convert(tmp_path, {}, line)
