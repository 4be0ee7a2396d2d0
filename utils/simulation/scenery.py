"""What a video feature would show: rows of numbers made of what goes on around each moment.

Every concept (a verb, an object, a place, a person) has a fixed random direction, the same in all
splits; objects of a group and of a scenario share a part of theirs. A row is the sum of what goes
on during its 16/30 s, of what lies about, of the scene, of slow drift and of noise. Shapes: R rows,
N events, F width.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from utils.base.tasks import ROWS_PER_SECOND
from utils.simulation.lexicon import OBJECTS, PERSONS, PLACES, SCENARIOS, VERBS
from utils.simulation.world import World

DRIFT_SECONDS = 20.0  # between the anchors of the drift
# Standard deviation of the entries of a direction: those of a whole row then have one above 1, as
# those of the published features do. Much smaller ones drown in a model's position embeddings.
ENTRY = np.float32(0.5)
LIES_ABOUT = 12.0  # seconds before and after its use that an object is in view


@dataclass(frozen=True)
class Strength:
    """Of the parts of a row, relative to the direction of a concept."""

    verb: float = 1.0
    object: float = 1.2
    place: float = 0.6
    person: float = 0.8
    view: float = 0.5  # of what lies about
    scene: float = 1.0  # of the video as a whole
    drift: float = 0.7
    noise: float = 1.5  # of one row; neighbouring rows have noise of their own


def directions(name: str, seed: int, count: int, width: int) -> np.ndarray:
    """(count, F) random directions with entries of about `ENTRY`, by name and seed."""
    rng = np.random.default_rng((seed, 4, crc32(name.encode())))
    return ENTRY * rng.standard_normal((count, width), dtype=np.float32)


class Scenery:
    """Features of one kind (`name`, F wide) for the clips of a world."""

    def __init__(
        self, world: World, name: str, width: int, seed: int, strength: Strength | None = None
    ):
        self.world, self.name, self.width, self.seed = world, name, width, seed
        self.strength = s = strength or Strength()
        events = world.events
        groups = sorted({each.group for each in OBJECTS})
        own = directions(f"{name} object", seed, len(OBJECTS), width)
        kind = directions(f"{name} group", seed, len(groups), width)
        home = directions(f"{name} scenario", seed, len(SCENARIOS), width)
        group = np.array([groups.index(each.group) for each in OBJECTS])
        scenario = np.array([SCENARIOS.index(each.scenario) for each in OBJECTS])
        objects = (own + 0.4 * kind[group] + 0.2 * home[scenario]) / np.sqrt(1.2)
        self._home = home
        self._objects = _with_nothing(s.object * objects)
        self._others = [
            (
                events.verb,
                _with_nothing(s.verb * directions(f"{name} verb", seed, len(VERBS), width)),
            ),
            (
                events.place,
                _with_nothing(s.place * directions(f"{name} place", seed, len(PLACES), width)),
            ),
            (
                events.person,
                _with_nothing(s.person * directions(f"{name} person", seed, len(PERSONS), width)),
            ),
        ]

    def rows(self, clip: int) -> np.ndarray:
        """(R, F) float32 features of a clip."""
        clips, events = self.world.clips, self.world.events
        video, start, end = clips.video[clip], clips.start[clip], clips.end[clip]
        found = events.inside(start - LIES_ABOUT, end + LIES_ABOUT, video)
        times = np.stack([events.start[found], events.end[found]], axis=1) - start
        rows = row_count(end - start)
        objects = self._objects[events.object[found]]
        shown = objects + sum(table[number[found]] for number, table in self._others)
        widened = times + np.array([-LIES_ABOUT, LIES_ABOUT])
        view = coverage(widened, rows)
        view /= np.maximum(np.sqrt(view.sum(1, keepdims=True)), 1.0)
        features = coverage(times, rows) @ shown + self.strength.view * (view @ objects)
        scenario = self.world.videos.scenario[video]
        backdrop = Backdrop(self.name, self.width, self.seed, self.strength)
        return features + backdrop.rows(rows, video, clip, self._home[scenario])


@dataclass(frozen=True)
class Backdrop:
    """Everything in a row that no word speaks of: scene, drift, noise."""

    name: str
    width: int
    seed: int
    strength: Strength

    def rows(self, rows: int, video: int, clip: int, home: np.ndarray | float) -> np.ndarray:
        """(R, F) float32, by the numbers of video and clip; `home` is the scenario's direction."""
        key = crc32(self.name.encode())
        scene = np.random.default_rng((self.seed, 5, key, video)).standard_normal(self.width)
        rng = np.random.default_rng((self.seed, 6, key, clip))
        anchors = int(rows / ROWS_PER_SECOND / DRIFT_SECONDS) + 2
        drift = rng.standard_normal((anchors, self.width), dtype=np.float32)
        place = np.arange(rows) / ROWS_PER_SECOND / DRIFT_SECONDS
        before = place.astype(np.int64)
        share = (place - before).astype(np.float32)[:, None]
        noise = rng.standard_normal((rows, self.width), dtype=np.float32)
        scene = np.float32(self.strength.scene) * (home + ENTRY * scene.astype(np.float32))
        drift = (1 - share) * drift[before] + share * drift[before + 1]
        return scene + ENTRY * (self.strength.drift * drift + self.strength.noise * noise)


def row_count(duration: float) -> int:
    """Feature rows of a clip of `duration` seconds."""
    return max(1, int(duration * ROWS_PER_SECOND))


def coverage(windows: np.ndarray, rows: int) -> np.ndarray:
    """(R, N) float32: the share of each row's time that lies in each window (N, 2) of seconds."""
    bounds = np.arange(rows + 1)[:, None] / ROWS_PER_SECOND
    overlap = np.minimum(bounds[1:], windows[:, 1]) - np.maximum(bounds[:-1], windows[:, 0])
    return (np.maximum(overlap, 0.0) * ROWS_PER_SECOND).astype(np.float32)


def _with_nothing(table: np.ndarray) -> np.ndarray:
    """The table with a row of zeros put at its end, where NOTHING finds it."""
    return np.concatenate([table, np.zeros_like(table[:1])]).astype(np.float32)
