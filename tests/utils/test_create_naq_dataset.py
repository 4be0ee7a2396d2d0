"""Narrations to NaQ: the published data set, malformed rows, and the search for narrations."""

import json
import shutil
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import refuse, succeed
from utils.base.errors import UserError
from utils.create_naq_dataset import _naq_queries, main
from utils.data.annotations import read_clips
from utils.data.narrations import index_narrations, read_narrations

COLUMNS = (
    "video_uid",
    "video_dur",
    "narration_source",
    "narration_ind",
    "narration_time",
    "clip_start",
    "clip_end",
    "clip_text",
    "tag_verb",
    "tag_noun",
)


@pytest.fixture
def data_root(golden, tmp_path) -> Path:
    """The golden inputs in a folder of their own."""
    folder = tmp_path / "data"
    shutil.copytree(golden / "naq", folder, ignore=shutil.ignore_patterns("expected*"))
    return folder


def narration_file(folder: Path, *rows: tuple[str, object, object, str], header=COLUMNS) -> Path:
    """An egoclip.csv of (video uid, start, end, text) rows."""
    lines = ["\t".join(header)]
    for video, start, end, text in rows:
        lines.append(f"{video}\t9.0\tpass_1\t0\t1.0\t{start}\t{end}\t{text}\t[1]\t[2]")
    path = folder / "egoclip.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("version", "ending"), [("v1", ""), ("v2", "_v2")])
def test_golden_data_set_and_statistics(golden, data_root, capsys, version, ending):
    main(["--type", "nlq", "--em_version", version, "--data_root", str(data_root)])
    written = (data_root / f"nlq_aug_naq_train{ending}.json").read_bytes()
    expected = golden / "naq" / f"expected_nlq_aug_naq_train{ending}.json"
    assert json.loads(written) == json.loads(expected.read_text())
    printed = capsys.readouterr()
    assert printed.out == (golden / "naq" / f"expected_stats{ending}.txt").read_text()
    assert "2 malformed rows skipped" in printed.err

    main(["--type", "nlq", "--em_version", version, "--data_root", str(data_root)])
    assert (data_root / f"nlq_aug_naq_train{ending}.json").read_bytes() == written


def test_v2_is_joined_with_v2_queries(data_root):
    path = data_root / "nlq_train_v2.json"
    path.write_text(path.read_text().replace("How many cups did I wash", "Only in v2"))
    main(["--type", "nlq", "--em_version", "v2", "--data_root", str(data_root)])
    assert b"Only in v2" in (data_root / "nlq_aug_naq_train_v2.json").read_bytes()


def test_tacos_is_joined_with_the_same_narrations(data_root, capsys):
    query = {"query": "He took out a pan", "clip_start_sec": 1.0, "clip_end_sec": 2.0}
    clip = {
        "clip_uid": "s1.avi",
        "video_start_sec": 0.0,
        "video_end_sec": 9.0,
        "annotations": [{"annotation_uid": "t", "language_queries": [query]}],
    }
    video = {"video_uid": "s1.avi", "clips": [clip]}
    (data_root / "tacos_train.json").write_text(json.dumps({"videos": [video]}))
    main(["--type", "tacos", "--em_version", "v1", "--data_root", str(data_root)])
    union = json.loads((data_root / "tacos_aug_naq_train.json").read_text())["videos"]
    assert union[0] == {"video_uid": "s1.avi", "clips": [clip], "split": "train"}
    assert len(union) == 1 + 26
    assert capsys.readouterr().out.splitlines()[2:] == [
        "========> TACOS stats",
        "# queries 1",
        "# videos 1",
        "# clips 1",
        "========> NaQ stats",
        "# queries 399",
        "# videos 26",
        "# clips 51",
        "========> TACOS+NaQ stats",
        "# queries 400",
        "# videos 27",
        "# clips 52",
    ]


def test_malformed_rows_are_skipped_and_counted(tmp_path):
    good = [
        ("v1", "1.5", "2.5", '#C C says "hello'),
        ("v1", "3", " 4.25 ", 'text "quoted", with comma'),
        ("v2", "0.0", "0.0", "#C C größer  "),
    ]
    bad = [
        ("v1", "", "2.0", "no start"),
        ("v1", "1.0", "soon", "a word for a time"),
        ("v1", "nan", "2.0", "not a number"),
        ("v1", "1.0", "inf", "not finite"),
        ("v1", "3.0", "2.0", "ends before it starts"),
        ("v1", "1.0", "2.0", ""),
        ("v1", "1.0", "2.0", "  "),
        ("v1", "1.0", "2.0", "one\tfield too many"),
        ("other", "1.0", "x", "bad, in a video nobody asked for"),
    ]
    path = narration_file(tmp_path, *good[:2], *bad, ("other", "1.0", "2.0", "fine"), good[2])
    with path.open("ab") as file:
        file.write(b"v1\t1.0\n\n\r\n\xff\xfe\n")  # two short rows, two blank lines
    narrations = read_narrations(path, ["v1", "v2"])
    assert narrations.skipped == len(bad) + 2
    assert narrations.faults == {
        "times that are no numbers": (7, 4),
        "an end before its start": (1, 8),
        "no text": (2, 9),
        "a field too many": (1, 11),
    }
    assert narrations.texts.to_list() == [text for *_, text in good]
    assert narrations.starts.tolist() == [1.5, 3.0, 0.0]
    assert narrations.ends.tolist() == [2.5, 4.25, 0.0]


@pytest.mark.parametrize(
    "torn",
    [
        b"\0v1\t1.0\t2.0\ttext",
        b"v1\t1.0\t2.0\tte\0xt",
        b"v1\t1.0\t2.0\ttext\0",
        b"\0\0\0",
        b"\0",
        b"v1\t1.0\0\t2.0\ttext",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_rows_with_a_nul_byte_are_counted_and_harm_no_other(tmp_path, torn, first):
    path = narration_file(tmp_path, ("v1", "1.0", "2.0", "one"), ("v1", "3.0", "4.0", "t\1wo"))
    header, one, two = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([header, torn, one, two] if first else [header, one, torn, two]))
    narrations = read_narrations(path, ["v1"])
    assert narrations.skipped == 1
    assert narrations.texts.to_list() == ["one", "t\1wo"]


def test_lines_that_are_no_text_are_counted(tmp_path):
    path = narration_file(tmp_path, ("v1", "1.0", "2.0", "one"))
    noise = bytes(range(256)) * 3
    path.write_bytes(path.read_bytes() + noise)
    narrations = read_narrations(path, ["v1"])
    assert narrations.texts.to_list() == ["one"]
    assert narrations.skipped == noise.count(b"\n") + 1


def test_rows_cut_off_behind_their_text_are_read(tmp_path):
    path = narration_file(tmp_path, ("v1", "1.0", "2.0", "one"))
    path.write_bytes(path.read_bytes() + b"v1\t9.0\tpass_1\t0\t1.0\t3.0\t4.0\ttwo\n")
    narrations = read_narrations(path, ["v1"])
    assert narrations.texts.to_list() == ["one", "two"]
    assert narrations.skipped == 0


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"#C C picks the knife"', "#C C picks the knife"),
        ('"#C C says ""hello"" twice"', '#C C says "hello" twice'),
        ('#C C says "hello"', '#C C says "hello"'),
        ('"#C C" picks', "#C C picks"),
        ('"#C C\tpicks"', "#C C\tpicks"),
        ('"""hi"" says C"', '"hi" says C'),
        (' "#C C picks"', ' "#C C picks"'),
        ('"#C C picks', None),  # pandas would read on to the next quote
    ],
)
def test_quotes_about_a_text_are_taken_off_as_published(tmp_path, field, text):
    path = narration_file(tmp_path, ("v", "1.0", "2.0", field), ("v", "3.0", "4.0", "two"))
    narrations = read_narrations(path, ["v"])
    assert narrations.texts.to_list() == ([text, "two"] if text else ["two"])
    if text is None:
        assert narrations.describe_skipped() == (
            "1 malformed rows skipped: 1 with a quote that is not closed (first: line 2)"
        )


def test_a_line_without_end_is_skipped_in_bounded_memory(tmp_path):
    path = narration_file(tmp_path, ("v", "1.0", "2.0", "one"))
    with path.open("ab") as file:
        for _ in range(300):
            file.write(b"x" * 1_000_000)
        file.write(b"\nv\t1.0\tpass_1\t0\t1.0\t3.0\t4.0\ttwo\n")
    tracemalloc.start()
    narrations = read_narrations(path, ["v"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert narrations.texts.to_list() == ["one", "two"]
    assert narrations.faults == {"more than 8 MiB": (1, 3)}
    assert peak < 100e6


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_any_text_is_written_as_json(texts):
    times = np.arange(len(texts)) / 3
    narrations = index_narrations(
        ["v"], np.zeros(len(texts), int), times, times + 0.1, pl.Series(texts, dtype=pl.String)
    )
    ((count, queries),) = _naq_queries([("v", "c", 0.0, 1e4)], narrations)
    read = json.loads(msgspec.json.encode(queries))
    assert count == len(texts)
    assert [each["query"] for each in read] == texts
    assert [each["video_start_sec"] for each in read] == times.tolist()
    assert [each["video_end_frame"] for each in read] == np.ceil((times + 0.1) * 30).tolist()


def test_windows_line_ends_and_other_column_orders(tmp_path):
    path = tmp_path / "egoclip.csv"
    path.write_bytes(
        b"\xef\xbb\xbfclip_text\tclip_end\tvideo_uid\tclip_start\r\n"
        b"#C C one\t2.0\tv\t1.0\r\n#C C two\t4.0\tv\t3.0"
    )
    narrations = read_narrations(path, ["v"])
    assert narrations.texts.to_list() == ["#C C one", "#C C two"]
    assert narrations.inside("v", 2.5, 4.0).tolist() == [1]
    assert narrations.skipped == 0


def test_long_files_keep_their_order(tmp_path):
    rows = [(f"v{i % 7}", i, i + 1, f"#C C does {i}") for i in range(200_000)]
    narrations = read_narrations(narration_file(tmp_path, *rows), ["v3", "v1"])
    expected = [text for video, _, _, text in rows if video in ("v1", "v3")]
    assert narrations.texts.to_list() == expected
    assert narrations.inside("v1", 100, 120).tolist() == [30, 32]


TIMES = st.integers(0, 12).map(float)


@given(
    narrations=st.lists(st.tuples(st.integers(0, 3), TIMES, TIMES), max_size=30),
    clip=st.tuples(TIMES, TIMES),
)
def test_search_equals_brute_force(narrations, clip):
    videos = np.array([video for video, _, _ in narrations], dtype=np.uint32)
    starts = np.array([min(a, b) for _, a, b in narrations])
    ends = np.array([max(a, b) for _, a, b in narrations])
    texts = pl.Series([str(i) for i in range(len(narrations))], dtype=pl.String)
    index = index_narrations(["a", "b", "c", "d"], videos, starts, ends, texts)
    low, high = min(clip), max(clip)
    for number, uid in enumerate("abcd"):
        expected = [
            row
            for row in range(len(narrations))
            if videos[row] == number and starts[row] >= low and ends[row] <= high
        ]
        assert index.inside(uid, low, high).tolist() == expected
    assert index.inside("unknown", low, high).tolist() == []


def test_clips_that_disagree_on_bounds(data_root):
    path = data_root / "moments_train.json"
    content = json.loads(path.read_text())
    clip = content["videos"][1]["clips"][0]
    clip["video_end_sec"] += 5
    path.write_text(json.dumps(content))
    paths = [data_root / f"{name}_train.json" for name in ("vq", "moments")]
    with pytest.raises(
        UserError, match=rf"moments.*: clip {clip['clip_uid']} has two different bounds"
    ):
        read_clips(paths)
    assert len(read_clips(paths[1:])) == 30


def test_a_clip_listed_twice_is_one(data_root, capsys):
    """Also: NLQ's annotations come first, and other keys of its clips stay."""
    path = data_root / "nlq_train.json"
    content = json.loads(path.read_text())
    video = next(v for v in content["videos"] if len(v["clips"]) > 1)
    again = {**video["clips"][0], "annotations": [{"annotation_uid": "more"}], "extra": 1}
    content["videos"].append({"video_uid": video["video_uid"], "clips": [again]})
    video["clips"][0]["kept"] = True
    path.write_text(json.dumps(content))
    main(["--type", "nlq", "--em_version", "v1", "--data_root", str(data_root)])
    assert "# clips 60" in capsys.readouterr().out
    union = json.loads((data_root / "nlq_aug_naq_train.json").read_text())
    merged = next(v for v in union["videos"] if v["video_uid"] == video["video_uid"])
    clip = next(c for c in merged["clips"] if c["clip_uid"] == again["clip_uid"])
    uids = [each["annotation_uid"] for each in clip["annotations"]]
    assert clip["kept"] is True
    assert uids[-1] == f"{video['video_uid']}_{again['clip_uid']}"
    assert uids[-2] == "more"


def test_narrations_of_other_videos_only(data_root, capsys):
    narration_file(data_root, ("elsewhere", 1, 2, "#C C walks"))
    main(["--type", "nlq", "--em_version", "v1", "--data_root", str(data_root)])
    printed = capsys.readouterr()
    assert "# queries 0" in printed.out
    assert "no narration lies inside a clip" in printed.err


def test_no_videos_at_all(data_root, capsys):
    for name in ("vq", "nlq", "moments"):
        (data_root / f"{name}_train.json").write_text('{"videos": []}')
    main(["--type", "nlq", "--em_version", "v1", "--data_root", str(data_root)])
    assert json.loads((data_root / "nlq_aug_naq_train.json").read_text()) == {"videos": []}
    assert "# Unique videos: 0" in capsys.readouterr().out


def test_wrong_narration_files(tmp_path):
    path = narration_file(tmp_path)
    with pytest.raises(UserError, match="none of its 0 lines can be read"):
        read_narrations(path, ["v"])
    path.write_text(path.read_text() + "a,b,c\n")
    with pytest.raises(UserError, match="none of its 1 lines can be read"):
        read_narrations(path, ["v"])
    path.write_text('{"v": {"narration_pass_1": {"narrations": []}}}')
    with pytest.raises(UserError, match="JSON, such as Ego4D's own"):
        read_narrations(path, ["v"])


def test_as_a_user_runs_it(root, data_root, golden):
    """From anywhere; the default data root is `data` under the working directory."""
    program = root / "utils" / "create_naq_dataset.py"
    choices = ("--type", "nlq", "--em_version", "v1")
    printed = succeed(program, *choices, folder=data_root.parent)
    assert printed == (golden / "naq" / "expected_stats.txt").read_text()
    line = refuse(program, *choices, "--data_root", "nowhere", folder=data_root.parent)
    assert line == "error: nowhere/vq_train.json: no such file"
