"""A long simulated video: validation clips and as many others as wanted, one after another.

A question about one clip may fit moments of others, too. The world knows them all. Shapes: R
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
    """A clip of the video."""

    world: World
    clip: int
    row: int  # of the video, its first

    def place(self, times: np.ndarray) -> np.ndarray:
        """Seconds in the clip -> seconds in the video."""
        return np.clip(times, 0, self.world.clips.duration[self.clip]) + self.row / ROWS_PER_SECOND


class Moments(NamedTuple):
    """The events of a world that the video shows, N of them."""

    events: Events
    numbers: np.ndarray  # (N,) among the events
    windows: np.ndarray  # (N, 2) seconds in the video


@dataclass(frozen=True)
class LongVideo:
    """The video, its questions, and what answers them."""

    parts: list[Part]
    questions: list[str]  # R
    clip: np.ndarray  # (R,) the part that each is about
    asked: np.ndarray  # (R, 2) seconds, the annotated window
    fitting: list[np.ndarray]  # of each, (n, 2) seconds of all moments that fit, `asked` first
    seed: int

    @property
    def rows(self) -> int:
        """T."""
        last = self.parts[-1]
        return last.row + row_count(last.world.clips.duration[last.clip])

    def features(self, name: str, width: int) -> np.ndarray:
        """(T, F) float32 features of one kind."""
        sceneries = {id(p.world): Scenery(p.world, name, width, self.seed) for p in self.parts}
        return np.concatenate([sceneries[id(p.world)].rows(p.clip) for p in self.parts])


def join_clips(sizes: Sizes, seed: int, hours: float) -> LongVideo:
    """The validation clips of a world, and clips of another world until the video is so long."""
    world = simulate_world(sizes, seed)
    asked_clips = np.flatnonzero(world.clips.has_questions & (_split(world) == VAL))
    missing = hours * 3600 - world.clips.duration[asked_clips].sum()
    count = max(0, int(missing / np.mean(sizes.clip_seconds)))
    others = dataclasses.replace(sizes, nlq_clips=(0, count, 0), other_clips=0, bare_videos=0)
    other_world = simulate_world(others, seed + 1)
    clips = [(world, clip) for clip in asked_clips.tolist()]
    clips += [(other_world, clip) for clip in range(count)]
    lengths = [row_count(each.clips.duration[clip]) for each, clip in clips]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [Part(*clip, start) for clip, start in zip(clips, starts, strict=True)]

    questions = ask(world, sizes.queries, seed)
    rows = np.flatnonzero(np.isin(questions.clip, asked_clips) & ~questions.only_in_v2)
    part = np.searchsorted(asked_clips, questions.clip[rows])
    asked = np.stack([parts[p].place(questions.window[r]) for p, r in zip(part, rows, strict=True)])
    moments = [_moments(each, parts) for each in (world, other_world)]
    fitting = []
    for window, row in zip(asked, rows.tolist(), strict=True):
        fits = [fitting_moments(shown, world.events, questions, row) for shown in moments]
        fits[0] &= moments[0].numbers != questions.event[row]
        windows = [shown.windows[chosen] for shown, chosen in zip(moments, fits, strict=True)]
        fitting.append(np.concatenate([window[None], *windows]))
    texts = [phrase(world, questions, row)["query"] for row in rows.tolist()]
    return LongVideo(parts, texts, part, asked, fitting, seed)


def _split(world: World) -> np.ndarray:
    return world.videos.split[world.clips.video]


def _moments(world: World, parts: list[Part]) -> Moments:
    """The events whose middle lies in one of the parts."""
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
    moments: Moments, asked_in: Events, questions: Questions, row: int
) -> np.ndarray:
    """(N,) bool: what answers a question that was asked about an event of `asked_in`."""
    events, numbers, _ = moments
    template, event = TEMPLATES[questions.template[row]], questions.event[row]
    fits = np.isin(events.kind[numbers], template.kinds)
    names = template.key
    if questions.template[row] == BEFORE_AFTER:
        names, other = ("object",), questions.other[row]
        neighbours = (numbers + (other - event)).clip(0, len(events.kind) - 1)
        fits &= events.kind[neighbours] == HANDLE
        for name in ("verb", "object"):
            fits &= getattr(events, name)[neighbours] == getattr(asked_in, name)[other]
    for name in names:
        fits &= getattr(events, name)[numbers] == getattr(asked_in, name)[event]
    return fits
