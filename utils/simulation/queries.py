"""Narrations and questions of the simulated world, with times. Words are in phrasing.py.

A question asks for one event of a clip by attributes that no other event of the clip has. Shapes: N
narrations, R questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.base.lazy import polars as pl
from utils.simulation.phrasing import (
    BEFORE_AFTER,
    TEMPLATES,
    Template,
    narration_texts,
    question_words,
)
from utils.simulation.world import HANDLE, IS_RARE, NOTHING, TEST, TRAIN, VAL, Events, World

# Log-normal widths of narration windows in seconds; a fifth lies within one bin of 16/30 s.
WIDTH_MEDIAN, WIDTH_SPREAD = 0.6, 1.0
WIDTH_LIMITS = (0.03, 4.0)
ANNOTATOR_SLIP = 0.3  # standard deviation of a question's start and end, seconds
SHORTEST = 0.6  # seconds, of a question's window


def narrate(world: World, rate: float, seed: int) -> pl.DataFrame:
    """Narrate the videos of the train split and those without clips.

    `rate` is narrations per minute; if there are more narrations than events, events are narrated a
    second time.

    Returns: columns video (number), pass (1 or 2), time, start, end (s in the video), text, verb
    and object (numbers), in order of video and time.
    """
    rng = np.random.default_rng((seed, 2))
    videos, events = world.videos, world.events
    narrated = np.isin(videos.split, (VAL, TEST), invert=True)
    pool = np.flatnonzero(narrated[events.video])
    count = round(rate * videos.duration[narrated].sum() / 60)
    passes = [rng.permutation(pool) for _ in range(min(2, -(-count // max(1, len(pool)))))]
    number = np.repeat(np.arange(1, len(passes) + 1), len(pool))[:count]
    chosen = np.concatenate([*passes, pool[:0]])[:count]

    middle = rng.uniform(0.25, 0.75, len(chosen))
    time = events.start[chosen] * (1 - middle) + events.end[chosen] * middle
    width = WIDTH_MEDIAN * np.exp(WIDTH_SPREAD * rng.standard_normal(len(chosen)))
    half = np.clip(width, *WIDTH_LIMITS) / 2
    duration = videos.duration[events.video[chosen]]
    table = pl.DataFrame(
        {
            "video": events.video[chosen],
            "pass": number,
            "time": time,
            "start": np.maximum(time - half, 0.0),
            "end": np.minimum(time + half, duration),
            "text": narration_texts(events, chosen, rng),
            "verb": events.verb[chosen],
            "object": events.object[chosen],
        }
    )
    return table.sort("video", "time")


@dataclass(frozen=True)
class Questions:
    """R questions, in order of clip."""

    clip: np.ndarray  # (R,)
    event: np.ndarray  # (R,) the answer
    other: np.ndarray  # (R,) event before or after it, for BEFORE_AFTER
    template: np.ndarray  # (R,)
    wording: np.ndarray  # (R,) random numbers that select the wording
    window: np.ndarray  # (R, 2) the answer, seconds in the clip
    only_in_v2: np.ndarray  # (R,) bool
    annotator: np.ndarray  # (R,) number of the clip's annotation


def ask(world: World, mean: float, seed: int) -> Questions:
    """Questions about the clips that have any: `mean` per clip on average, 20 % more in v2."""
    rng = np.random.default_rng((seed, 3))
    clip, event = _clip_events(world)
    candidates = [
        _candidates(world, clip, event, number, template)
        for number, template in enumerate(TEMPLATES)
    ]
    row, other, template = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    clip, event = clip[row], event[row]

    # The first candidates of each clip by weighted random keys: a draw without replacement.
    count = np.bincount(template, minlength=len(TEMPLATES))
    share = np.array([kind.share for kind in TEMPLATES]) / np.maximum(count, 1)
    order = np.argsort(-(np.log(share[template]) + rng.gumbel(size=len(template))))
    _, first = np.unique(event[order], return_index=True)  # an event is asked for once
    order = order[np.sort(first)]
    order = order[np.argsort(clip[order], kind="stable")]
    rank = np.arange(len(order)) - np.searchsorted(clip[order], clip[order])
    v1_counts = np.maximum(rng.poisson(mean, len(world.clips.uids)), 3)  # of each clip
    is_chosen = rank < np.ceil(1.2 * v1_counts)[clip[order]]
    chosen, rank = order[is_chosen], rank[is_chosen]
    clip, event = clip[chosen], event[chosen]

    annotators = rng.choice((1, 2, 3), len(world.clips.uids), p=(0.6, 0.3, 0.1))
    only_in_v2 = rank >= v1_counts[clip]
    return Questions(
        clip,
        event,
        other[chosen],
        template[chosen],
        rng.integers(0, 1 << 30, len(chosen)),
        _windows(world, clip, event, rng),
        only_in_v2,
        np.where(only_in_v2, annotators[clip], rng.integers(0, annotators[clip])),
    )


def _clip_events(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Clip and event numbers of all events whose middle lies in a clip with questions."""
    clips = np.flatnonzero(world.clips.has_questions)
    events = [world.clip_events(clip) for clip in clips]
    counts = list(map(len, events))
    return np.repeat(clips, counts), np.concatenate([np.zeros(0, np.int64), *events])


def _candidates(
    world: World, clip: np.ndarray, event: np.ndarray, number: int, template: Template
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows whose event the template can ask for, their other events, and the template's number."""
    events = world.events
    fits = np.isin(events.kind[event], template.kinds)
    if template.verb is not None:
        fits &= events.verb[event] == template.verb
    # Questions in train are about common objects only; rare ones are narrated.
    is_common = (events.object[event] == NOTHING) | ~IS_RARE[events.object[event]]
    fits &= is_common | (world.videos.split[events.video[event]] != TRAIN)
    other = np.full(len(event), NOTHING)
    if number == BEFORE_AFTER:
        is_unique = _unique(events, clip, event, ("verb", "object"))
        is_unique &= events.kind[event] == HANDLE
        for step in (1, -1):
            neighbour = np.roll(np.arange(len(event)), step)
            is_usable = is_unique[neighbour] & (clip[neighbour] == clip)
            is_usable &= events.object[event[neighbour]] != events.object[event]
            other = np.where(is_usable, event[neighbour], other)
        fits &= other != NOTHING
    else:
        fits &= _unique(events, clip, event, template.key)
    rows = np.flatnonzero(fits)
    return rows, other[rows], np.full(len(rows), number)


def _unique(
    events: Events, clip: np.ndarray, event: np.ndarray, key: tuple[str, ...]
) -> np.ndarray:
    """(N,) bool: events whose attributes `key` no other event of their clip has."""
    code = clip.astype(np.int64)
    for name in key:
        code = code * 1000 + getattr(events, name)[event] + 1
    _, inverse, counts = np.unique(code, return_inverse=True, return_counts=True)
    return counts[inverse] == 1


def _windows(
    world: World, clip: np.ndarray, event: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(R, 2) seconds in the clip: the event as an annotator marks it, with random errors."""
    clips, events = world.clips, world.events
    marked = np.stack([events.start[event], events.end[event]], axis=1)
    marked = marked - clips.start[clip, None] + ANNOTATOR_SLIP * rng.standard_normal((len(clip), 2))
    marked[:, 1] = np.maximum(marked[:, 1], marked[:, 0] + SHORTEST)
    return np.round(np.clip(marked, 0.0, clips.duration[clip, None]), 5)


def phrase(world: World, questions: Questions, row: int) -> dict[str, str]:
    """A question's `query`, `template`, `slot_x`, `verb_x`, `slot_y` and `verb_y`."""
    return question_words(
        world.events,
        int(questions.event[row]),
        int(questions.other[row]),
        TEMPLATES[questions.template[row]],
        int(questions.wording[row]),
    )
