"""The simulated world: events in long first-person videos, and clips of them.

A video has a scenario (kitchen, garden, ...). Its wearer does one thing after another: handles an
object at a place, talks to somebody, walks. Events, clips and videos are stored as columns. Shapes:
N events, C clips, W videos. Times are seconds in the video.
"""

import uuid
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta

from utils.base.tasks import FRAME_RATE
from utils.simulation.lexicon import (
    GROUP_VERBS,
    HANDLING,
    OBJECT_SCENARIO,
    OBJECTS,
    PERSONS,
    PLACE_SCENARIO,
    PLACES,
    SCENARIOS,
    VERB_NUMBER,
)

NOTHING = -1  # no verb, object or person in this event
LENGTH_MEDIAN, LENGTH_SPREAD = 4.0, 0.55  # log-normal event lengths, seconds
LENGTH_LIMITS = (1.2, 20.0)
PAUSE = 0.8  # mean time between events, seconds
HANDLE, TOGETHER, TALK, WALK = range(4)  # TOGETHER: an object is handled with somebody
KIND_SHARES = (0.82, 0.06, 0.07, 0.05)  # of all events

# Number of more common objects of the same scenario.
OBJECT_RANK = np.arange(len(OBJECTS)) - np.searchsorted(OBJECT_SCENARIO, OBJECT_SCENARIO)
# (objects,) bool: the less common half of each scenario's, never asked about in NLQ train.
IS_RARE = np.bincount(OBJECT_SCENARIO)[OBJECT_SCENARIO] // 2 <= OBJECT_RANK

TRAIN, VAL, TEST, NO_CLIPS = range(4)  # the split of a video; some have no clips


Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class Sizes:
    nlq_clips: tuple[Count, Count, Count]  # clips with questions: train, val, test
    other_clips: Count  # further train clips, of the visual queries and moments benchmarks
    bare_videos: Count  # narrated videos without clips
    queries: Amount  # mean number of questions a clip
    clip_seconds: tuple[Amount, Amount]  # shortest and longest clip
    margin: Amount  # mean time of a video outside of its clips, seconds
    narrations: Amount  # a minute

    def __post_init__(self) -> None:
        if not 10 <= self.clip_seconds[0] <= self.clip_seconds[1]:
            raise ValueError("`$.clip_seconds` must be at least 10, the shorter one first")


@dataclass(frozen=True)
class Videos:
    uids: list[str]
    split: np.ndarray  # (W,) TRAIN, VAL, TEST or NO_CLIPS
    duration: np.ndarray  # (W,)
    scenario: np.ndarray  # (W,) index into SCENARIOS


@dataclass(frozen=True)
class Clips:
    uids: list[str]
    video: np.ndarray  # (C,)
    start: np.ndarray  # (C,) seconds in the video
    end: np.ndarray  # (C,)
    has_questions: np.ndarray  # (C,) bool
    annotated: np.ndarray  # (C, 2) bool, is in the files of visual queries, of moments

    @property
    def duration(self) -> np.ndarray:
        """(C,) seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Events:
    """N events, in order of video and time."""

    video: np.ndarray  # (N,)
    start: np.ndarray  # (N,)
    end: np.ndarray  # (N,)
    kind: np.ndarray  # (N,) HANDLE, TOGETHER, TALK or WALK
    verb: np.ndarray  # (N,) index into VERBS or NOTHING
    object: np.ndarray  # (N,) index into OBJECTS or NOTHING
    place: np.ndarray  # (N,) index into PLACES
    person: np.ndarray  # (N,) index into PERSONS or NOTHING

    def inside(self, start: float, end: float, video: int) -> np.ndarray:
        """Numbers of the events of a video that overlap [start, end]."""
        first, last = np.searchsorted(self.video, (video, video + 1))
        low = first + np.searchsorted(self.end[first:last], start, side="right")
        high = first + np.searchsorted(self.start[first:last], end, side="left")
        return np.arange(low, high)


@dataclass(frozen=True)
class World:
    videos: Videos
    clips: Clips
    events: Events

    def clip_events(self, clip: int) -> np.ndarray:
        """Numbers of the events whose middle lies in a clip."""
        clips, events = self.clips, self.events
        start, end = clips.start[clip], clips.end[clip]
        numbers = events.inside(start, end, clips.video[clip])
        middle = (events.start[numbers] + events.end[numbers]) / 2
        return numbers[(middle > start) & (middle < end)]


def simulate_world(sizes: Sizes, seed: int) -> World:
    """Simulate a world, determined by sizes and seed."""
    rng = np.random.default_rng((seed, 1))
    videos, clips = _make_videos(sizes, rng)
    return World(videos, clips, _make_events(videos, rng))


def _make_videos(sizes: Sizes, rng: np.random.Generator) -> tuple[Videos, Clips]:
    """Videos of one or two clips, each with some time before, between and after them."""
    counts = [sizes.nlq_clips[0] + sizes.other_clips, *sizes.nlq_clips[1:]]
    split = np.repeat([TRAIN, VAL, TEST], counts)  # of the clips
    total = len(split)
    # Every third clip shares its video with the one before it, if that is of the same split.
    joins = (np.arange(total) % 3 == 2) & (split == np.roll(split, 1))
    video = np.cumsum(~joins) - 1
    length = rng.uniform(*sizes.clip_seconds, total)
    before = rng.uniform(0, sizes.margin / 2, total)
    # Half of the videos begin with their first clip, as many of the real ones do.
    before[~joins & (rng.random(total) < 0.5)] = 0.0
    after = rng.uniform(0, sizes.margin / 2, total)
    start = _restarted_sum(before + length + after, video) + before
    start = np.floor(start * FRAME_RATE) / FRAME_RATE
    end = np.floor((start + length) * FRAME_RATE) / FRAME_RATE
    # Bounds of real clips are off by 4e-7 s now and then.
    start = np.where(rng.random(total) < 0.3, start - 4e-7, start)
    with_clips = video[-1] + 1 if total else 0
    duration = np.zeros(with_clips)
    np.maximum.at(duration, video, end + after)
    bare = rng.uniform(*sizes.clip_seconds, sizes.bare_videos) + sizes.margin * 0.75
    duration = np.ceil(np.concatenate([duration, bare]) * FRAME_RATE) / FRAME_RATE

    video_split = np.full(len(duration), NO_CLIPS)
    video_split[video] = split
    has_questions = np.ones(total, dtype=bool)
    train = rng.permutation(counts[0])
    has_questions[train[sizes.nlq_clips[0] :]] = False
    annotated = rng.random((total, 2)) < 0.4
    # A clip without questions belongs to another benchmark.
    is_unlisted = ~has_questions & ~annotated.any(1)
    annotated[is_unlisted, rng.integers(0, 2, total)[is_unlisted]] = True
    scenario = rng.permutation(np.arange(len(duration)) % len(SCENARIOS))
    videos = Videos(_uids(rng, len(duration)), video_split, duration, scenario)
    return videos, Clips(_uids(rng, total), video, start, end, has_questions, annotated)


def _make_events(videos: Videos, rng: np.random.Generator) -> Events:
    mean = LENGTH_MEDIAN * np.exp(LENGTH_SPREAD**2 / 2) + PAUSE
    counts = (videos.duration / mean * 1.3 + 12).astype(np.int64)  # more than fit
    video = np.repeat(np.arange(len(counts)), counts)
    length = LENGTH_MEDIAN * np.exp(LENGTH_SPREAD * rng.standard_normal(len(video)))
    length = np.clip(length, *LENGTH_LIMITS)
    pause = rng.exponential(PAUSE, len(video))
    start = _restarted_sum(length + pause, video) + pause
    fits = start + length <= videos.duration[video]
    video, start, length = video[fits], start[fits], length[fits]
    count = len(video)

    kind = rng.choice(len(KIND_SHARES), count, p=KIND_SHARES)
    # Objects are long-tailed within the scenario, with random favourites of each video.
    favour = rng.gamma(1.0, 1.0, (len(videos.uids), len(OBJECTS)))
    is_there = videos.scenario[:, None] == OBJECT_SCENARIO
    noun = _draw((OBJECT_RANK + 3.0) ** -0.7 * favour * is_there, video, rng)
    noun[kind >= TALK] = NOTHING
    verb = np.full(count, NOTHING)
    has_object = noun != NOTHING
    groups = np.array([list(GROUP_VERBS).index(entry.group) for entry in OBJECTS])
    verb[has_object] = _draw(_verb_shares(), groups[noun[has_object]], rng)
    favour = rng.gamma(2.0, 1.0, (len(videos.uids), len(PLACES)))
    place = _draw(favour * (videos.scenario[:, None] == PLACE_SCENARIO), video, rng)
    # A few persons in each video.
    favour = rng.gamma(0.3, 1.0, (len(videos.uids), len(PERSONS)))
    person = _draw(favour + 1e-6, video, rng)
    person[(kind == HANDLE) | (kind == WALK)] = NOTHING
    return Events(video, start, start + length, kind, verb, noun, place, person)


def _restarted_sum(steps: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum of the earlier steps of the same group; `group` is sorted and counts from 0."""
    if not len(steps):
        return steps
    sums = np.cumsum(steps) - steps
    return sums - sums[np.searchsorted(group, np.arange(group[-1] + 1))][group]


def _draw(shares: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a column of `shares` for each entry of `row`, with the probabilities in that row."""
    sums = np.cumsum(shares, axis=1)
    sums /= sums[:, -1:]
    # The concatenated rows are ascending: one search finds all draws.
    flat = (sums + np.arange(len(sums))[:, None]).ravel()
    index = np.searchsorted(flat, row + rng.random(len(row)), side="right")
    return np.minimum(index - row * shares.shape[1], shares.shape[1] - 1)


def _verb_shares() -> np.ndarray:
    """(groups, verbs): handling is most common."""
    shares = np.zeros((len(GROUP_VERBS), len(VERB_NUMBER)))
    for row, verbs in zip(shares, GROUP_VERBS.values(), strict=True):
        row[[VERB_NUMBER[verb] for verb in verbs]] = 1.0
        row[[VERB_NUMBER[verb] for verb in HANDLING]] += 0.7
        row[[VERB_NUMBER[verb] for verb in ("pick up", "put")]] += 0.6
    return shares


def _uids(rng: np.random.Generator, count: int) -> list[str]:
    raw = rng.bytes(16 * count)
    return [str(uuid.UUID(bytes=raw[at : at + 16], version=4)) for at in range(0, 16 * count, 16)]
