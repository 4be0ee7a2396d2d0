"""What a video feature would show: rows of numbers made of what goes on around each moment.

Every concept (a verb, an object, a place, a person) has a fixed random direction, the same in all
splits; objects of a group and of a scenario share a part of theirs. A row is the sum of what goes
on during its 16/30 s, of what lies about, of the scene, of slow drift and of noise. Shapes: R rows,
N events, F width.
"""

from zlib import crc32

import numpy as np

from utils.base.tasks import ROWS_PER_SECOND
from utils.simulation.lexicon import OBJECT_SCENARIO, OBJECTS, PERSONS, PLACES, SCENARIOS, VERBS
from utils.simulation.world import World

DRIFT_SECONDS = 20.0  # between the anchors of the drift
# Standard deviation of the entries of a direction: those of a whole row then have one above 1, as
# those of the published features do. Much smaller ones drown in a model's position embeddings.
ENTRY = np.float32(0.5)
LIES_ABOUT = 12.0  # seconds before and after its use that an object is in view

# Of the parts of a row, relative to the direction of a concept.
VERB, OBJECT, PLACE, PERSON = 1.0, 1.2, 0.6, 0.8
VIEW = 0.5  # of what lies about
DRIFT = 0.7
NOISE = 1.5  # of one row; neighbouring rows have noise of their own


def directions(name: str, seed: int, count: int, width: int) -> np.ndarray:
    """(count, F) random directions with entries of about `ENTRY`, by name and seed."""
    rng = np.random.default_rng((seed, 4, crc32(name.encode())))
    return ENTRY * rng.standard_normal((count, width), dtype=np.float32)


class Scenery:
    """Features of one kind (`name`, F wide) for the clips of a world."""

    def __init__(self, world: World, name: str, width: int, seed: int):
        self.world, self.name, self.width, self.seed = world, name, width, seed

        def drawn(concept: str, count: int) -> np.ndarray:
            return directions(f"{name} {concept}", seed, count, width)

        groups = sorted({noun.group for noun in OBJECTS})
        group = np.array([groups.index(noun.group) for noun in OBJECTS])
        self._scenarios = drawn("scenario", len(SCENARIOS))
        objects = drawn("object", len(OBJECTS)) + 0.4 * drawn("group", len(groups))[group]
        objects = (objects + 0.2 * self._scenarios[OBJECT_SCENARIO]) / np.sqrt(1.2)
        self._objects = _with_nothing(OBJECT * objects)
        self._verbs = _with_nothing(VERB * drawn("verb", len(VERBS)))
        self._places = _with_nothing(PLACE * drawn("place", len(PLACES)))
        self._persons = _with_nothing(PERSON * drawn("person", len(PERSONS)))

    def rows(self, clip: int) -> np.ndarray:
        """(R, F) float32 features of a clip."""
        clips, events = self.world.clips, self.world.events
        video, start, end = clips.video[clip], clips.start[clip], clips.end[clip]
        near = events.inside(start - LIES_ABOUT, end + LIES_ABOUT, video)
        times = np.stack([events.start[near], events.end[near]], axis=1) - start
        rows = row_count(end - start)
        objects = self._objects[events.object[near]]
        others = self._verbs[events.verb[near]] + self._places[events.place[near]]
        shown = objects + (others + self._persons[events.person[near]])
        view = shares(times + np.array([-LIES_ABOUT, LIES_ABOUT]), rows)
        features = coverage(times, rows) @ shown + VIEW * (view @ objects)
        home = self._scenarios[self.world.videos.scenario[video]]
        return features + backdrop(self.name, self.seed, rows, self.width, video, clip, home)


def backdrop(
    name: str, seed: int, rows: int, width: int, video: int, clip: int, home: np.ndarray | float
) -> np.ndarray:
    """(R, F) float32: everything in a row that no word speaks of, which is scene, drift and noise.

    `video` and `clip` are numbers; `home` (F,) is the scenario's direction.
    """
    key = crc32(name.encode())
    scene = np.random.default_rng((seed, 5, key, video)).standard_normal(width)
    rng = np.random.default_rng((seed, 6, key, clip))
    anchors = int(rows / ROWS_PER_SECOND / DRIFT_SECONDS) + 2
    drift = rng.standard_normal((anchors, width), dtype=np.float32)
    position = np.arange(rows) / ROWS_PER_SECOND / DRIFT_SECONDS  # among the anchors
    before = position.astype(np.int64)
    share = (position - before).astype(np.float32)[:, None]
    noise = rng.standard_normal((rows, width), dtype=np.float32)
    drift = (1 - share) * drift[before] + share * drift[before + 1]
    return home + ENTRY * scene.astype(np.float32) + ENTRY * (DRIFT * drift + NOISE * noise)


def row_count(duration: float) -> int:
    """Feature rows of a clip of `duration` seconds."""
    return max(1, int(duration * ROWS_PER_SECOND))


def coverage(windows: np.ndarray, rows: int) -> np.ndarray:
    """(R, N) float32: the share of each row's time that lies in each window (N, 2) of seconds."""
    bounds = np.arange(rows + 1)[:, None] / ROWS_PER_SECOND
    overlap = np.minimum(bounds[1:], windows[:, 1]) - np.maximum(bounds[:-1], windows[:, 0])
    return (np.maximum(overlap, 0.0) * ROWS_PER_SECOND).astype(np.float32)


def shares(windows: np.ndarray, rows: int) -> np.ndarray:
    """(R, N): `coverage`, less of each where there are many, so that they do not add up."""
    share = coverage(windows, rows)
    return share / np.maximum(np.sqrt(share.sum(1, keepdims=True)), 1.0)


def _with_nothing(table: np.ndarray) -> np.ndarray:
    """The table with a row of zeros put at its end, where NOTHING finds it."""
    return np.concatenate([table, np.zeros_like(table[:1])]).astype(np.float32)
