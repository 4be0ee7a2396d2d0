"""A long simulated video: validation clips followed by clips of another world.

A question about one clip may also fit moments of other clips, which the world knows. Shapes: R
questions, T feature rows.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from utils.base.tasks import ROWS_PER_SECOND
from utils.simulation.phrasing import BEFORE_AFTER, TEMPLATES
from utils.simulation.queries import Questions, ask, phrase
from utils.simulation.scenery import Scenery, row_count
from utils.simulation.world import HANDLE, VAL, Events, Sizes, World, simulate_world


class Part(NamedTuple):
    """A clip in the video."""

    world: World
    clip: int
    row: int  # first row in the video

    def place(self, times: np.ndarray) -> np.ndarray:
        """Convert seconds in the clip to seconds in the video."""
        return np.clip(times, 0, self.world.clips.duration[self.clip]) + self.row / ROWS_PER_SECOND


class Moments(NamedTuple):
    """N events of a world that the video shows."""

    events: Events
    numbers: np.ndarray  # (N,) of the events
    windows: np.ndarray  # (N, 2) seconds in the video


@dataclass(frozen=True)
class LongVideo:
    """The video, its questions and their answers."""

    parts: list[Part]
    questions: list[str]  # R
    clip: np.ndarray  # (R,) number of the part that a question is about
    annotated: np.ndarray  # (R, 2) seconds, annotated windows
    fitting: list[np.ndarray]  # R of (n, 2) seconds: all moments that fit, `annotated` first
    seed: int

    @property
    def rows(self) -> int:
        """T."""
        last_part = self.parts[-1]
        return last_part.row + row_count(last_part.world.clips.duration[last_part.clip])

    def features(self, name: str, width: int) -> np.ndarray:
        """(T, F) float32 features of one kind."""
        sceneries = {id(p.world): Scenery(p.world, name, width, self.seed) for p in self.parts}
        return np.concatenate([sceneries[id(p.world)].rows(p.clip) for p in self.parts])


def join_clips(sizes: Sizes, seed: int, hours: float) -> LongVideo:
    """The validation clips of a world, and clips of another world, `hours` hours in all."""
    world = simulate_world(sizes, seed)
    in_val = world.videos.split[world.clips.video] == VAL
    val_clips = np.flatnonzero(world.clips.has_questions & in_val)
    missing_seconds = hours * 3600 - world.clips.duration[val_clips].sum()
    count = max(0, int(missing_seconds / np.mean(sizes.clip_seconds)))
    other_sizes = dataclasses.replace(sizes, nlq_clips=(0, count, 0), other_clips=0, bare_videos=0)
    other_world = simulate_world(other_sizes, seed + 1)
    parts, row = [], 0
    for source, clips in ((world, val_clips.tolist()), (other_world, range(count))):
        for clip in clips:
            parts.append(Part(source, clip, row))
            row += row_count(source.clips.duration[clip])

    questions = ask(world, sizes.queries, seed)
    rows = np.flatnonzero(np.isin(questions.clip, val_clips) & ~questions.only_in_v2).tolist()
    numbers = np.searchsorted(val_clips, questions.clip[rows])  # of the questions' parts
    moments, other_moments = (_moments(source, parts) for source in (world, other_world))
    annotated, fitting = [], []
    for number, row in zip(numbers, rows, strict=True):
        window = parts[number].place(questions.window[row])
        fits = fitting_moments(moments, world.events, questions, row)
        fits &= moments.numbers != questions.event[row]
        other_fits = fitting_moments(other_moments, world.events, questions, row)
        windows = window[None], moments.windows[fits], other_moments.windows[other_fits]
        annotated.append(window)
        fitting.append(np.concatenate(windows))
    texts = [phrase(world, questions, row)["query"] for row in rows]
    return LongVideo(parts, texts, numbers, np.stack(annotated), fitting, seed)


def _moments(world: World, parts: list[Part]) -> Moments:
    """The events of a world whose middle lies in a part of the video."""
    events = world.events
    numbers, windows = [np.zeros(0, np.int64)], [np.zeros((0, 2))]
    for part in parts:
        if part.world is world:
            shown = world.clip_events(part.clip)
            times = np.stack([events.start[shown], events.end[shown]], 1)
            numbers.append(shown)
            windows.append(part.place(times - world.clips.start[part.clip]))
    return Moments(events, np.concatenate(numbers), np.concatenate(windows))


def fitting_moments(
    moments: Moments, question_events: Events, questions: Questions, row: int
) -> np.ndarray:
    """(N,) bool: the moments that answer a question about one of `question_events`."""
    events, numbers, _ = moments
    template, event = TEMPLATES[questions.template[row]], questions.event[row]
    fits = np.isin(events.kind[numbers], template.kinds)
    names = template.key
    if questions.template[row] == BEFORE_AFTER:
        names, other = ("object",), questions.other[row]
        neighbours = (numbers + (other - event)).clip(0, len(events.kind) - 1)
        fits &= events.kind[neighbours] == HANDLE
        for name in ("verb", "object"):
            fits &= getattr(events, name)[neighbours] == getattr(question_events, name)[other]
    for name in names:
        fits &= getattr(events, name)[numbers] == getattr(question_events, name)[event]
    return fits
