"""EgoClip's table: malformed rows, quotes, and the search for narrations."""

import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.data.egoclip import read_narrations
from utils.data.narrations import index_narrations

COLUMNS = (
    "video_uid video_dur narration_source narration_ind narration_time clip_start clip_end "
    "clip_text tag_verb tag_noun"
)


def narration_file(folder: Path, *rows: tuple[str, object, object, str]) -> Path:
    """An egoclip.csv of (video uid, start, end, text) rows."""
    lines = ["\t".join(COLUMNS.split())]
    for video, start, end, text in rows:
        lines.append(f"{video}\t9.0\tpass_1\t0\t1.0\t{start}\t{end}\t{text}\t[1]\t[2]")
    path = folder / "egoclip.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


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
        ("other", "1.0", "x", "bad, in another video"),
    ]
    path = narration_file(tmp_path, *good[:2], *bad, ("other", "1.0", "2.0", "fine"), good[2])
    with path.open("ab") as file:
        file.write(b"v1\t1.0\n\n\r\n\xff\xfe\n")  # two short rows, two blank lines
    narrations = read_narrations(path, ["v1", "v2"])
    assert len(narrations.malformed) == len(bad) + 2
    assert narrations.faults == {
        "times that are no numbers": (7, 4),
        "an end before its start": (1, 8),
        "no text": (2, 9),
        "a field too many": (1, 11),
    }
    assert narrations.texts.to_list() == [text for *_, text in good]
    assert narrations.starts.tolist() == [1.5, 3.0, 0.0]
    assert narrations.ends.tolist() == [2.5, 4.25, 0.0]


@pytest.mark.parametrize("torn", [b"\0v1\t1.0\t2.0\ttext", b"v1\t1.0\t2.0\tte\0xt", b"\0\0\0"])
@pytest.mark.parametrize("place", [1, 2])
def test_rows_with_a_nul_byte_are_counted_and_harm_no_other(tmp_path, torn, place):
    path = narration_file(tmp_path, ("v1", "1.0", "2.0", "one"), ("v1", "3.0", "4.0", "t\1wo"))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:place], torn, *lines[place:]]))
    narrations = read_narrations(path, ["v1"])
    assert len(narrations.malformed) == 1
    assert narrations.texts.to_list() == ["one", "t\1wo"]


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


def test_windows_line_ends_and_other_column_orders_are_read(tmp_path):
    path = tmp_path / "egoclip.csv"
    path.write_bytes(
        b"\xef\xbb\xbfclip_text\tclip_end\tvideo_uid\tclip_start\r\n"
        b"#C C one\t2.0\tv\t1.0\r\n#C C two\t4.0\tv\t3.0"
    )
    narrations = read_narrations(path, ["v"])
    assert narrations.texts.to_list() == ["#C C one", "#C C two"]
    assert narrations.inside("v", 2.5, 4.0).tolist() == [1]
    assert len(narrations.malformed) == 0


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
    table = pl.DataFrame({"video": videos, "start": starts, "end": ends, "text": texts})
    index = index_narrations(["a", "b", "c", "d"], table, pl.DataFrame(), "line")
    low, high = min(clip), max(clip)
    for number, uid in enumerate("abcd"):
        expected = [
            row
            for row in range(len(narrations))
            if videos[row] == number and starts[row] >= low and ends[row] <= high
        ]
        assert index.inside(uid, low, high).tolist() == expected
    assert index.inside("unknown", low, high).tolist() == []


def test_narrations_in_json_are_of_another_format(tmp_path):
    (tmp_path / "a.csv").write_text('{"v": {"narration_pass_1": {"narrations": []}}}')
    with pytest.raises(UserError, match=r"JSON, .*: give its --format"):
        read_narrations(tmp_path / "a.csv", ["v"])
