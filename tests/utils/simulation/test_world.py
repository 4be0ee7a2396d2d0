"""The simulated world: what it must be for a search in it to mean something."""

import numpy as np
import polars as pl
import pytest

from utils.base.tasks import ROWS_PER_SECOND
from utils.simulation.lexicon import OBJECTS, VERBS
from utils.simulation.phrasing import BEFORE_AFTER, TEMPLATES
from utils.simulation.queries import ask, narrate
from utils.simulation.scenery import Scenery, coverage
from utils.simulation.world import IS_RARE, NO_CLIPS, NOTHING, TRAIN, VAL, Sizes, simulate_world

SIZES = Sizes(
    nlq_clips=(12, 12, 6), other_clips=30, bare_videos=4, queries=8.0,
    clip_seconds=(120.0, 160.0), margin=30.0, narrations=10.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return simulate_world(SIZES, seed=3)


@pytest.fixture(scope="module")
def questions(world):
    return ask(world, SIZES.queries, seed=3)


@pytest.fixture(scope="module")
def narrations(world) -> pl.DataFrame:
    return narrate(world, SIZES.narrations, seed=3)


def test_clips_lie_in_videos_without_overlap(world):
    clips, videos = world.clips, world.videos
    assert len(clips.uids) == len(set(clips.uids)) == 60
    assert (clips.end <= videos.duration[clips.video]).all()
    assert (clips.start >= -1e-6).all() and (clips.start < 0).any()
    assert (np.abs(clips.duration - 140) < 20.1).all()
    assert np.bincount(clips.video).max() == 2
    same = clips.video[1:] == clips.video[:-1]
    assert (clips.start[1:][same] >= clips.end[:-1][same]).all()
    assert (videos.split == NO_CLIPS).sum() == 4
    # Every clip is in some file.
    assert (clips.has_questions | clips.annotated.any(1)).all()
    assert clips.has_questions.sum() == 30


def test_narrations_are_like_egoclips(world, narrations):
    videos = world.videos
    assert narrations["start"].min() >= 0
    assert (narrations["start"] <= narrations["time"]).all()
    assert (narrations["end"].to_numpy() <= videos.duration[narrations["video"]]).all()
    assert set(videos.split[narrations["video"].unique()]) == {TRAIN, NO_CLIPS}
    narrated = np.isin(videos.split, (TRAIN, NO_CLIPS))
    assert len(narrations) == pytest.approx(10 * videos.duration[narrated].sum() / 60, abs=1)
    assert narrations["text"].str.contains(r"^#[CO] .").all()
    assert not narrations["text"].str.contains(r"  | $|\{").any()
    width = (narrations["end"] - narrations["start"]).to_numpy()
    assert 0.7 < width.mean() < 1.2
    first, last = (narrations[name].to_numpy() * ROWS_PER_SECOND // 1 for name in ("start", "end"))
    assert 0.12 < (first == last).mean() < 0.3
    assert set(narrate(world, 15.0, seed=3)["pass"]) == {1, 2}  # more than there are events


def test_questions_have_one_answer(world, questions):
    clips, events = world.clips, world.events
    assert set(questions.template.tolist()) == set(range(13))
    duration = clips.duration[questions.clip]
    assert (questions.window >= 0).all() and (questions.window[:, 1] <= duration).all()
    length = questions.window[:, 1] - questions.window[:, 0]
    assert 3 < np.median(length) < 5 and length.max() > 9
    pairs = list(zip(questions.clip.tolist(), questions.event.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for row in range(len(questions.clip)):
        template = TEMPLATES[questions.template[row]]
        event, clip = questions.event[row], questions.clip[row]
        inside = events.inside(clips.start[clip], clips.end[clip], clips.video[clip])
        assert event in inside
        if questions.template[row] == BEFORE_AFTER:
            assert abs(questions.other[row] - event) == 1
            continue
        middle = (events.start[inside] + events.end[inside]) / 2
        fits = (middle > clips.start[clip]) & (middle < clips.end[clip])
        for name in template.key:
            values = getattr(events, name)
            fits &= values[inside] == values[event]
        assert inside[fits].tolist() == [event]


def test_validation_asks_what_only_narrations_know(world, questions, narrations):
    split = world.videos.split[world.clips.video[questions.clip]]
    numbers = world.events.object[questions.event]
    train, val = (set(numbers[(split == s) & (numbers != NOTHING)].tolist()) for s in (TRAIN, VAL))
    assert not any(IS_RARE[list(train)])
    new = val - train
    assert len(new) > len(val) / 3
    narrated = set(narrations["object"].to_list())
    assert len(new & narrated) > 0.9 * len(new)


def test_coverage_is_the_share_of_a_row():
    share = coverage(np.array([[0.0, 16 / 30], [8 / 30, 1.0], [5.0, 5.0]]), 3)
    np.testing.assert_allclose(share, [[1, 0.5, 0], [0, 0.875, 0], [0, 0, 0]], atol=1e-6)


def test_a_linear_probe_reads_object_and_verb(world):
    """From rows of some clips to those of others: far above chance, and not perfect."""
    scenery = Scenery(world, "egovlp", 256, seed=3)
    rows, labels = [], []
    for clip in range(len(world.clips.uids)):
        features = scenery.rows(clip)
        assert features.dtype == np.float32
        events, start = world.events, world.clips.start[clip]
        inside = events.inside(start, world.clips.end[clip], world.clips.video[clip])
        inside = inside[events.object[inside] != NOTHING]
        middle = (events.start[inside] + events.end[inside]) / 2 - start
        at = (middle * ROWS_PER_SECOND).astype(int)
        kept = (at >= 0) & (at < len(features))
        rows.append(features[at[kept]])
        labels.append(np.stack([events.object[inside], events.verb[inside]], 1)[kept])
    half = len(rows) // 2
    train, test = np.concatenate(rows[:half]), np.concatenate(rows[half:])
    mean = train.mean(0)
    centred = train - mean
    ridge = centred.T @ centred + 300 * np.eye(train.shape[1])
    for column, count, floor in ((0, len(OBJECTS), 0.25), (1, len(VERBS), 0.4)):
        known, truth = (np.concatenate(part)[:, column] for part in (labels[:half], labels[half:]))
        goal = np.eye(count, dtype=np.float32)[known]
        weights = np.linalg.solve(ridge, centred.T @ (goal - goal.mean(0)))
        right = ((test - mean) @ weights).argmax(1) == truth
        assert floor < right.mean() < 0.999
