"""Simulated video features.

Every concept (verb, object, place, person) has a fixed random direction; directions of objects of
the same group or scenario are correlated. A row is the sum of the events in its 16/30 s, objects in
view, the scene, slow drift and noise. Shapes: R rows, N events, F width.
"""

from zlib import crc32

import numpy as np

from utils.base.tasks import ROWS_PER_SECOND
from utils.simulation.lexicon import OBJECT_SCENARIO, OBJECTS, PERSONS, PLACES, SCENARIOS, VERBS
from utils.simulation.world import World

DRIFT_SECONDS = 20.0  # between the anchors of the drift
# Standard deviation of the entries of a direction. That of rows is then above 1, as in published
# features; position embeddings of a model would hide much smaller values.
ENTRY = np.float32(0.5)
VIEW_SECONDS = 12.0  # before and after its use, an object is in view

# Weights of the summands of a row.
VERB, OBJECT, PLACE, PERSON = 1.0, 1.2, 0.6, 0.8
VIEW = 0.5  # of objects in view
DRIFT = 0.7
NOISE = 1.5  # independent for each row


def directions(name: str, seed: int, count: int, width: int) -> np.ndarray:
    """(count, F) random directions, determined by name and seed."""
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
        numbers = events.inside(start - VIEW_SECONDS, end + VIEW_SECONDS, video)
        times = np.stack([events.start[numbers], events.end[numbers]], axis=1) - start
        rows = row_count(end - start)
        objects = self._objects[events.object[numbers]]
        actions = self._verbs[events.verb[numbers]] + self._places[events.place[numbers]]
        contents = objects + (actions + self._persons[events.person[numbers]])
        view = shares(times + np.array([-VIEW_SECONDS, VIEW_SECONDS]), rows)
        features = coverage(times, rows) @ contents + VIEW * (view @ objects)
        home = self._scenarios[self.world.videos.scenario[video]]
        return features + backdrop(self.name, self.seed, rows, self.width, video, clip, home)


def backdrop(
    name: str, seed: int, rows: int, width: int, video: int, clip: int, home: np.ndarray | float
) -> np.ndarray:
    """(R, F) float32: scene, drift and noise, which do not depend on events.

    `video` and `clip` are numbers; `home` (F,) is the scenario's direction.
    """
    key = crc32(name.encode())
    scene = np.random.default_rng((seed, 5, key, video)).standard_normal(width)
    rng = np.random.default_rng((seed, 6, key, clip))
    anchors = int(rows / ROWS_PER_SECOND / DRIFT_SECONDS) + 2
    drift = rng.standard_normal((anchors, width), dtype=np.float32)
    position = np.arange(rows) / ROWS_PER_SECOND / DRIFT_SECONDS  # among the anchors
    anchor = position.astype(np.int64)
    share = (position - anchor).astype(np.float32)[:, None]
    noise = rng.standard_normal((rows, width), dtype=np.float32)
    drift = (1 - share) * drift[anchor] + share * drift[anchor + 1]
    return home + ENTRY * scene.astype(np.float32) + ENTRY * (DRIFT * drift + NOISE * noise)


def row_count(duration: float) -> int:
    """Feature rows of a clip of `duration` seconds."""
    return max(1, int(duration * ROWS_PER_SECOND))


def coverage(windows: np.ndarray, rows: int) -> np.ndarray:
    """(R, N) float32: share of each row's time in each window (N, 2) of seconds."""
    bounds = np.arange(rows + 1)[:, None] / ROWS_PER_SECOND
    overlap = np.minimum(bounds[1:], windows[:, 1]) - np.maximum(bounds[:-1], windows[:, 0])
    return (np.maximum(overlap, 0.0) * ROWS_PER_SECOND).astype(np.float32)


def shares(windows: np.ndarray, rows: int) -> np.ndarray:
    """(R, N): `coverage`, divided by the square root of its sum over windows if that is above 1."""
    share = coverage(windows, rows)
    return share / np.maximum(np.sqrt(share.sum(1, keepdims=True)), 1.0)


def _with_nothing(table: np.ndarray) -> np.ndarray:
    """The table with a row of zeros at its end, for the index NOTHING (-1)."""
    return np.concatenate([table, np.zeros_like(table[:1])]).astype(np.float32)
