"""Narrations in other forms than EgoClip's: times, texts, and EgoVLP's windows."""

import json
import math
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.data.narration_formats import (
    FORMATS,
    Pass,
    point_rows,
    read_any_narrations,
    seconds,
)


def ego4d(passes: dict[str, list[list[tuple[float | None, str | None]]]]) -> str:
    """A narration.json of passes, lists of time and text, by video."""
    return json.dumps(
        {
            video: {"status": "complete"}
            | {
                f"narration_pass_{number}": {
                    "narrations": [
                        {"timestamp_sec": time, "timestamp_frame": 7, "narration_text": text}
                        for time, text in narrations
                    ],
                    "summaries": [],
                }
                for number, narrations in enumerate(annotators, 1)
            }
            for video, annotators in passes.items()
        }
    )


def take(descriptions: list[tuple[float, str]], rejected: bool) -> dict:
    """An annotation of Ego-Exo4D's atomic descriptions."""
    return {
        "annotator_id": "1",
        "rejected": rejected,
        "descriptions": [
            {"text": text, "timestamp": time, "ego_visible": "1", "best_exo": {"cam_id": "c"}}
            for time, text in descriptions
        ],
    }


EPIC = """\
narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,narration,all_nouns
v_0,P01,v,00:00:00.54,00:01:02.23,27,take knife and plate,"['knife', 'plate']"
w_0,P01,w,00:00:01.00,00:00:02.00,27,open door,['door']
v_1,P01,v,01:00:05.00,01:00:06.50,27,put down plate,['plate']
"""
CSV = 'text,video,start,end,who\r\n"cuts, slowly",v,1.5,2,me\r\n\r\n#C C sings,v,1:00,1:02.5,\r\n'
SRT = """\
1
00:00:01,500 --> 00:00:04,000 X1:40 X2:600
{\\an8}I take the <i>knife</i>
and cut.

2
01:00:00,000 --> 01:00:02,250
Then I &amp; you eat.
"""
VTT = """\
WEBVTT - kitchen

NOTE times without hours
are allowed

STYLE
::cue { color: red }

first
00:01.500 --> 00:04.000 align:start position:0%
<v Anna>I take the <c.loud>knife</c>

00:00:05.000 --> 00:00:06.000
#C C eats
"""
SAMPLES = {
    "ego4d": (  # distances 2 and 4, mean 3: half a window is 1/3 and 2/3 s
        ego4d({"v": [[(0.25, "#C C cuts"), (2.25, "eats")], [(9.0, "#O A\nman")]],
               "w": [[(1.0, "#C C sings"), (5.0, "#C C rests")]]}),
        [(0.0, 0.25 + 1 / 3, "#C C cuts"), (2.25 - 1 / 3, 2.25 + 1 / 3, "# eats"),
         (8.5, 9.5, "#O A man")],
    ),
    "egoexo4d": (
        json.dumps({"annotations": {
            "v": [take([(1.0, "C cuts."), (3.0, "C eats.")], False), take([(1.0, "no")], True)],
            "w": [take([(1.0, "C sings."), (7.0, "C rests.")], False)],
        }}),
        [(0.75, 1.25, "# C cuts."), (2.75, 3.25, "# C eats.")],
    ),
    "epic": (EPIC, [(0.54, 62.23, "# take knife and plate"), (3605.0, 3606.5, "# put down plate")]),
    "csv": (CSV, [(1.5, 2.0, "# cuts, slowly"), (60.0, 62.5, "#C C sings")]),
    "srt": (
        SRT, [(1.5, 4.0, "# I take the knife and cut."), (3600.0, 3602.25, "# Then I & you eat.")]
    ),
    "vtt": (VTT, [(1.5, 4.0, "# I take the knife"), (5.0, 6.0, "#C C eats")]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_each_form_is_read(tmp_path, form):
    content, expected = SAMPLES[form]
    path = tmp_path / f"v.{form}"
    mark = "" if content.startswith("{") else "\ufeff"  # as Windows programs write text
    path.write_text(mark + content, newline="")
    narrations = read_any_narrations([path], form, ["other", "v"])
    rows = zip(narrations.starts, narrations.ends, narrations.texts, strict=True)
    assert [text for *_, text in expected] == narrations.texts.to_list()
    assert [row[:2] for row in rows] == [pytest.approx(row[:2]) for row in expected]
    assert narrations.inside("v", 0, 1e9).tolist() == list(range(len(expected)))
    assert not narrations.faults and not len(narrations.inside("other", 0, 1e9))


def test_subtitles_are_named_as_their_videos(tmp_path):
    paths = [tmp_path / name for name in ("a.srt", "b.en.srt", "c.d.srt", "e.srt")]
    for path in paths:
        path.write_text(SRT)
    narrations = read_any_narrations(paths, "srt", ["a", "b", "c.d"])
    assert [len(narrations.inside(video, 0, 1e9)) for video in ("a", "b", "c.d")] == [2, 2, 2]
    assert len(narrations) == 6


def test_malformed_narrations_are_skipped_and_counted(tmp_path):
    path = tmp_path / "narration.json"
    narrations = [(1.0, "#C C cuts"), (None, "#C C has no time"), (2.0, None), (3.0, " \n")]
    path.write_text(ego4d({"v": [narrations, []], "w": [[(1.0, "")]]}))
    assert read_any_narrations([path], "ego4d", ["v"]).describe_skipped() == (
        "3 malformed rows skipped: 2 with no text (first: narration 3), "
        "1 with times that are no numbers (first: narration 2)"
    )
    table = tmp_path / "table.csv"
    table.write_text("video,start,end,text\nv,2,1,back\nv,soon,2,word\nv,1,2,fine\n")
    read = read_any_narrations([table], "csv", ["v"])
    assert read.faults == {
        "an end before its start": (1, 1), "times that are no numbers": (1, 2)
    }  # fmt: skip
    assert read.texts.to_list() == ["# fine"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content", ["", "{}", '{"annotations": {}}', "video,start,end,text\n"])
def test_a_file_without_narrations_is_named(tmp_path, form, content):
    path = tmp_path / "narrations"
    path.write_text(content)
    with pytest.raises(UserError, match=r"^\S*/narrations"):
        read_any_narrations([path], form, ["v"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("75.5", 75.5),
        (" 1:15.5 ", 75.5),
        ("00:01:15,500", 75.5),
        ("100:00:00", 360000),
        ("", math.nan),
        ("1:x", math.nan),
        ("1:" * 500 + "0", math.nan),
    ],
)
def test_times_of_all_forms_are_seconds(text, number):
    assert seconds(text) == pytest.approx(number, nan_ok=True)


def windows(passes: dict[str, list[list[float]]]) -> dict[str, list[tuple[float, float]]]:
    """Windows of narrations at these times, by video."""

    def read(_: Path):
        for video, annotators in passes.items():
            for times in annotators:
                yield Pass(video, np.array(times), ["x"] * len(times))

    found: dict[str, list[tuple[float, float]]] = {video: [] for video in passes}
    for video, start, end, _ in point_rows(read, [Path()], set(passes)):
        found[video].append((start, end))
    return found


def test_the_window_of_egoclips_first_narration_is_the_published_one():
    """3.3445 s is 2.967651 to 3.721266 in egoclip.csv, with alpha 4.9: beta is 3.6927 s."""
    beta = 4.9 * (3.721266 - 2.967651)
    others = 2 * 4.9 - beta  # so that the mean is 4.9
    first, time = 0.3, 3.34446
    found = windows({"v": [[first, time, first + 2 * beta]], "w": [[7.0, 7.0 + others]]})
    assert found["v"][1] == pytest.approx((2.967651, 3.721266), abs=2e-6)


TIMES = st.lists(st.floats(0, 1e4), max_size=6)


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(TIMES, max_size=2), max_size=4))
def test_windows_are_egovlps(passes):
    """As the formula says, gap by gap."""

    def beta(times: list[float]) -> float:
        gaps = [later - earlier for earlier, later in pairwise(sorted(times))]
        return sum(gaps) / len(gaps) if gaps else math.nan

    betas = [beta(times) for annotators in passes.values() for times in annotators]
    known = [value for value in betas if value > 0]
    alpha = sum(known) / len(known) if known else 1.0
    for video, found in windows(passes).items():
        expected = [
            (time, 0.5 if math.isnan(beta(times)) else beta(times) / (2 * alpha))
            for times in passes[video]
            for time in times
        ]
        for (start, end), (time, half) in zip(found, expected, strict=True):
            assert start == pytest.approx(max(0.0, time - half), abs=1e-6)
            assert end == pytest.approx(time + half, abs=1e-6)


def test_a_large_file_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "narration.json"
    narrations = [(float(time), f"#C C does {time} " + "x" * 100) for time in range(1000)]
    path.write_text(ego4d({f"v{number}": [narrations] for number in range(200)}))
    tracemalloc.start()
    read = read_any_narrations([path], "ego4d", ["v7"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read) == 1000
    assert peak < 0.2 * path.stat().st_size
