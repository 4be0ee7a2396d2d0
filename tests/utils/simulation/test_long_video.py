"""A long simulated video: what answers its questions is known, and the table of a search in it."""

import numpy as np
import pytest

from tests.simulated import succeed
from utils.base.tasks import ROWS_PER_SECOND
from utils.search_long_video import oracle
from utils.simulation.long_video import join_clips
from utils.simulation.phrasing import TEMPLATES, question_words
from utils.simulation.queries import ask, phrase
from utils.simulation.world import NOTHING, Sizes

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
    for window, part in zip(video.annotated, video.clip, strict=True):
        assert starts[part] <= window[0] < window[1] <= starts[part] + 141


def test_fitting_moments_are_those_the_same_question_could_ask_for(video):
    world = video.parts[0].world
    questions = ask(world, SIZES.queries, seed=3)
    rows = np.flatnonzero(~questions.only_in_v2).tolist()
    row_of = {phrase(world, questions, row)["query"]: row for row in rows}
    events = events_shown(video, world)
    world_end = min(p.row for p in video.parts if p.world is not world) / ROWS_PER_SECOND
    counts = []
    for question, windows in zip(video.questions, video.fitting, strict=True):
        row = row_of[question]
        if "{group}" in template_words(questions, row):
            continue  # `fitting_moments` does not compare groups
        texts = [question_about(event, world.events, questions, row) for event in events]
        counts.append(texts.count(question))
        assert np.count_nonzero(windows[:, 0] < world_end) == counts[-1], question
    assert sum(count > 1 for count in counts) > 5


def events_shown(video, world):
    """Numbers of a world's events whose middle lies in a part of the video."""
    clips, middle = world.clips, (world.events.start + world.events.end) / 2
    return [
        event
        for part in video.parts
        if part.world is world
        for event in np.flatnonzero(
            (world.events.video == clips.video[part.clip])
            & (clips.start[part.clip] < middle)
            & (middle < clips.end[part.clip])
        ).tolist()
    ]


def template_words(questions, row):
    template = TEMPLATES[questions.template[row]]
    return template.words[questions.wording[row] % len(template.words)]


def question_about(event, events, questions, row):
    """The question of a row, put about another event; None if its template does not fit."""
    template, other = TEMPLATES[questions.template[row]], NOTHING
    if events.kind[event] not in template.kinds or template.verb not in (None, events.verb[event]):
        return None
    if questions.other[row] != NOTHING:
        other = event + int(questions.other[row] - questions.event[row])
        if not 0 <= other < len(events.kind) or events.object[other] == NOTHING:
            return None
    return question_words(events, event, other, template, int(questions.wording[row]))["query"]


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
