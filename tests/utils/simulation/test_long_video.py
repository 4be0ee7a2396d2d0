"""A long simulated video: what answers its questions is known, and the table of a search in it."""

import numpy as np
import pytest

from tests.simulated import succeed
from utils.base.tasks import ROWS_PER_SECOND
from utils.search_long_video import oracle
from utils.simulation.long_video import join_clips
from utils.simulation.phrasing import TEMPLATES, question_words
from utils.simulation.queries import ask
from utils.simulation.world import Sizes, simulate_world

SIZES = Sizes(
    nlq_clips=(2, 6, 2), other_clips=2, bare_videos=0, queries=8.0,
    clip_seconds=(100.0, 140.0), margin=30.0, narrations=10.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def video():
    return join_clips(SIZES, seed=3, hours=0.5)


def test_it_is_as_long_as_wanted_and_holds_the_windows(video):
    assert 0.45 * 3600 < video.rows / ROWS_PER_SECOND < 0.55 * 3600
    assert len(video.features("egovlp", 8)) == video.rows
    starts = np.array([part.row / ROWS_PER_SECOND for part in video.parts])
    assert (np.diff(starts) > 90).all()
    for window, part in zip(video.asked, video.clip, strict=True):
        assert starts[part] <= window[0] < window[1] <= starts[part] + 141


def test_fitting_moments_are_those_the_same_question_could_ask_for(video):
    world = simulate_world(SIZES, seed=3)
    questions = ask(world, SIZES.queries, seed=3)
    texts = {}
    for row in np.flatnonzero(~questions.only_in_v2):
        template = TEMPLATES[questions.template[row]]
        event, other = int(questions.event[row]), int(questions.other[row])
        text = question_words(world.events, event, other, template, int(questions.wording[row]))
        texts[text["query"]] = row
    several = 0
    for question, windows in zip(video.questions, video.fitting, strict=True):
        row = texts[question]
        template = TEMPLATES[questions.template[row]]
        if "{group}" in template.words[questions.wording[row] % len(template.words)]:
            continue
        step = questions.other[row] - questions.event[row] if questions.other[row] >= 0 else 0
        shown = set()
        for part in video.parts:
            if part.world.videos.uids != world.videos.uids:
                continue
            clips, events = world.clips, world.events
            for event in np.flatnonzero(events.video == clips.video[part.clip]):
                middle = (events.start[event] + events.end[event]) / 2 - clips.start[part.clip]
                if not 0 < middle < clips.duration[part.clip]:
                    continue
                verb = events.verb[event]
                if events.kind[event] not in template.kinds or template.verb not in (None, verb):
                    continue
                other = int(event + step) if step else -1
                if step and not (0 <= other < len(events.kind) and events.object[other] >= 0):
                    continue
                words = question_words(
                    events, int(event), other, template, int(questions.wording[row])
                )
                if words["query"] == question:
                    shown.add(round(part.row / ROWS_PER_SECOND + middle, 3))
        inside = [w for w in windows if w[0] < _end_of_world(video, world)]
        assert len(inside) == len(shown), question
        several += len(shown) > 1
    assert several > 5


def _end_of_world(video, world):
    others = [part.row for part in video.parts if part.world.videos.uids != world.videos.uids]
    return min(others) / ROWS_PER_SECOND


def test_oracle_picks_among_the_moments_that_fit(video):
    first, fifth = oracle(video)
    counts = np.array([len(windows) for windows in video.fitting])
    assert first == pytest.approx((1 / counts).mean()) and first < fifth <= 1


@pytest.mark.slow
def test_program_prints_a_row_for_each_run_and_length(quickstart):
    run = next(quickstart.glob("vslnet/seed1/joint"))
    printed = succeed(
        "utils/search_long_video.py", f"ours={run}", f"ours={run}",
        "--data_root", quickstart / "data", "--hours", 0.1, 0.2,
    )  # fmt: skip
    table = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")]
    assert [line[1].strip() for line in table] == ["run", "oracle", "ours", "oracle", "ours"]
    for line in table[1:]:
        figures = [float(cell) for cell in line[2:6]]
        assert figures[0] <= figures[1] and figures[2] <= figures[3]
        assert line[6].strip() == ""  # no calibration
