"""What happens in the simulated world, in words: narrations and questions.

Narrations are made by the million, as columns. Questions come in the 13 templates of Ego4D NLQ and
ask for one event of a clip, in words that fit no other event of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from utils.lexicon import OBJECTS, PERSONS, PLACES, VERB_NUMBER, VERBS, plural
from utils.world import HANDLE, NOTHING, TALK, TEST, TOGETHER, TRAIN, VAL, Events, World

# Log-normal widths of narration windows, seconds: a fifth lies within one bin of 16/30 s.
WIDTH_MEDIAN, WIDTH_SPREAD = 0.6, 1.0
WIDTH_LIMITS = (0.03, 4.0)
ANNOTATOR_SLIP = 0.3  # standard deviation of a question's start and end, seconds
SHORTEST = 0.6  # seconds; shortest window of a question

PUT, PICK_UP = VERB_NUMBER["put"], VERB_NUMBER["pick up"]
# "the knife", "a knife" for each object in turn
_ARTICLES = tuple(
    f"{article} {each.name}"
    for each in OBJECTS
    for article in ("the", "an" if each.name[0] in "aeio" else "a")
)
HANDS = ("with his right hand", "with his left hand", "with both hands")


def narrate(world: World, rate: float, seed: int) -> pl.DataFrame:
    """Narrations of the videos of the train split and of those without clips.

    `rate` is narrations a minute; beyond one an event, events are narrated a second time.

    Returns: columns video (number), pass (1 or 2), time, start, end (s in the video), text, verb
    and object (numbers), in order of video and time.
    """
    rng = np.random.default_rng((seed, 2))
    videos, events = world.videos, world.events
    told = np.isin(videos.split, (VAL, TEST), invert=True)
    pool = np.flatnonzero(told[events.video])
    wanted = round(rate * videos.duration[told].sum() / 60)
    passes = [rng.permutation(pool) for _ in range(min(2, -(-wanted // max(1, len(pool)))))]
    number = np.repeat(np.arange(1, len(passes) + 1), len(pool))[:wanted]
    chosen = np.concatenate([*passes, pool[:0]])[:wanted]

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
            "text": _narrations(events, chosen, rng),
            "verb": events.verb[chosen],
            "object": events.object[chosen],
        }
    )
    return table.sort("video", "time")


def _narrations(events: Events, chosen: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """(N,) sentences such as `#C C puts the knife on the table`."""
    kind, verb, place = events.kind[chosen], events.verb[chosen], events.place[chosen]
    # Ways to go on after verb and object: nothing, the place, or the hands.
    ending = rng.choice(3, len(chosen), p=(0.4, 0.45, 0.15))
    hand = rng.integers(0, len(HANDS), len(chosen))
    article = rng.choice(2, len(chosen), p=(0.75, 0.25))
    spoken = rng.integers(0, 2, len(chosen))

    table = pl.DataFrame(
        {
            "verb": _words([each.third for each in VERBS], verb),
            "object": _words(_ARTICLES, 2 * events.object[chosen] + article),
            "preposition": _words(["on", "in", "from", "at"], _preposition(verb, place)),
            "place": _words([each.name for each in PLACES], place),
            "person": _words(PERSONS, events.person[chosen]),
            "hands": _words(HANDS, hand),
            "ending": ending,
            "kind": kind,
            "spoken": spoken,
        }
    )
    handled = pl.format("#C C {} {}", "verb", "object")
    at_place = pl.format("{} {} the {}", handled, "preposition", "place")
    done = (
        pl.when(pl.col("ending") == 1)
        .then(at_place)
        .when(pl.col("ending") == 2)
        .then(pl.format("{} {}", handled, "hands"))
        .otherwise(handled)
    )
    talk = (
        pl.when(pl.col("spoken") == 0)
        .then(pl.format("#C C talks to the {}", "person"))
        .otherwise(pl.format("#O the {} talks to C at the {}", "person", "place"))
    )
    walk = (
        pl.when(pl.col("spoken") == 0)
        .then(pl.format("#C C walks to the {}", "place"))
        .otherwise(pl.format("#C C looks around the {}", "place"))
    )
    return table.select(
        pl.when(pl.col("kind") == HANDLE)
        .then(done)
        .when(pl.col("kind") == TOGETHER)
        .then(pl.format("{} with the {}", handled, "person"))
        .when(pl.col("kind") == TALK)
        .then(talk)
        .otherwise(walk)
        .alias("text")
    ).to_series()


def _words(words: list[str] | tuple[str, ...], numbers: np.ndarray) -> pl.Series:
    """(N,) words by number; empty where the number is below 0."""
    return pl.Series([*words, ""]).gather(np.where(numbers < 0, len(words), numbers))


def _preposition(verb: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(N,) 0 on, 1 in, 2 from: things are picked up from where others are put on or in."""
    inside = np.array([each.preposition == "in" for each in PLACES])
    return np.where(verb == PICK_UP, 2, inside[place])


class Template(NamedTuple):
    """A kind of question."""

    name: str
    share: float  # of all questions
    kinds: tuple[int, ...]  # of the events it asks for
    verb: int | None  # of those events, if only one verb will do
    key: tuple[str, ...]  # attributes that pick the event out among those of the clip
    words: tuple[str, ...]  # ways to put it
    slot_x: str
    slot_y: str = ""


TEMPLATES = (
    Template(
        "Objects: Where is object X before / after event Y?", 0.08, (HANDLE,), None, (),
        ("Where was the {object} {order} I {other_past} the {other}?",),
        "{object}", "{other_past} the {other}",
    ),
    Template(
        "Place: Where did I put X?", 0.14, (HANDLE,), PUT, ("verb", "object"),
        ("Where did I put the {object}?", "Where did I put the {object} down?"),
        "{object}",
    ),
    Template(
        "Objects: Where is object X?", 0.12, (HANDLE, TOGETHER), None, ("object",),
        ("Where is the {object}?", "Where was the {object}?"),
        "{object}",
    ),
    Template(
        "Objects: What did I put in X?", 0.09, (HANDLE,), PUT, ("verb", "place"),
        ("What did I put {at} the {place}?",),
        "{place}",
    ),
    Template(
        "Objects: How many X’s? (quantity question)", 0.11, (HANDLE,), None, ("verb", "object"),
        ("How many {objects} did I {base}?",),
        "{objects}", "{base}",
    ),
    Template(
        "Objects: In what location did I see object X ?", 0.06, (HANDLE, TOGETHER), None,
        ("object",),
        ("In what location did I see the {object}?", "In what location did I see a {object}"),
        "{object}",
    ),
    Template(
        "Objects: What X did I Y?", 0.11, (HANDLE,), None, ("verb", "place"),
        ("What {group} did I {base} {at} the {place}?", "What did I {base} {at} the {place}?"),
        "{group}", "{base} {at} the {place}",
    ),
    Template(
        "Objects: What X is Y?", 0.08, (HANDLE,), None, ("verb", "object"),
        ("What color is the {object} I {past}?", "What brand is the {object} that I {past}?"),
        "color", "{object}",
    ),
    Template(
        "Objects: State of an object", 0.08, (HANDLE,), None, ("verb", "object"),
        ("Did I {base} the {object}?",),
        "{object}",
    ),
    Template(
        "Objects: Where is my object X?", 0.02, (HANDLE, TOGETHER), None, ("object",),
        ("Where is my {object}?",),
        "{object}",
    ),
    Template(
        "People: Who did I interact with when I did activity X?", 0.04, (TOGETHER,), None,
        ("verb", "object"),
        ("Who did I interact with when I {past} the {object}?",),
        "{past} the {object}",
    ),
    Template(
        "People: Who did I talk to in location X?", 0.04, (TALK,), None, ("kind", "place"),
        ("Who did I talk to {at} the {place}?", "Who did I talk to near the {place}"),
        "{place}",
    ),
    Template(
        "People: When did I interact with person with role X?", 0.03, (TALK, TOGETHER), None,
        ("person",),
        ("When did I talk to the {person}?", "When did I interact with the {person}?"),
        "{person}",
    ),
)  # fmt: skip
BEFORE_AFTER = 0  # the template that names a second event


@dataclass(frozen=True)
class Questions:
    """R questions, in order of clip."""

    clip: np.ndarray  # (R,)
    event: np.ndarray  # (R,) the one asked for
    other: np.ndarray  # (R,) the one before or after it, named by BEFORE_AFTER
    template: np.ndarray  # (R,)
    wording: np.ndarray  # (R,) random number that picks the words
    window: np.ndarray  # (R, 2) the answer, seconds in the clip
    late: np.ndarray  # (R,) bool, only in version 2
    annotator: np.ndarray  # (R,) number of the clip's annotation it belongs to


def ask(world: World, mean: float, seed: int) -> Questions:
    """Questions about the clips that have any: about `mean` a clip, a fifth more in version 2."""
    rng = np.random.default_rng((seed, 3))
    clip, event = _clip_events(world)
    candidates = [
        _candidates(world, clip, event, number, template)
        for number, template in enumerate(TEMPLATES)
    ]
    row, other, template = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    clip, event = clip[row], event[row]

    # The best candidates of each clip by weighted random keys: a draw without replacement.
    count = np.bincount(template, minlength=len(TEMPLATES))
    share = np.array([each.share for each in TEMPLATES]) / np.maximum(count, 1)
    order = np.argsort(-(np.log(share[template]) + rng.gumbel(size=len(template))))
    _, first = np.unique(event[order], return_index=True)  # an event is asked for once
    order = order[np.sort(first)]
    order = order[np.argsort(clip[order], kind="stable")]
    rank = np.arange(len(order)) - np.searchsorted(clip[order], clip[order])
    wanted = np.maximum(rng.poisson(mean, len(world.clips.uids)), 3)
    chosen = order[rank < np.ceil(1.2 * wanted)[clip[order]]]
    rank = rank[rank < np.ceil(1.2 * wanted)[clip[order]]]
    clip, event = clip[chosen], event[chosen]

    annotators = rng.choice((1, 2, 3), len(world.clips.uids), p=(0.6, 0.3, 0.1))
    late = rank >= wanted[clip]
    return Questions(
        clip,
        event,
        other[chosen],
        template[chosen],
        rng.integers(0, 1 << 30, len(chosen)),
        _windows(world, clip, event, rng),
        late,
        np.where(late, annotators[clip], rng.integers(0, annotators[clip])),
    )


def _clip_events(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Number of the clip and of the event, for all events whose middle lies in a clip asked of."""
    clips, events = world.clips, world.events
    pairs = []
    for clip in np.flatnonzero(clips.asked):
        found = events.inside(clips.start[clip], clips.end[clip], clips.video[clip])
        middle = (events.start[found] + events.end[found]) / 2
        found = found[(middle > clips.start[clip]) & (middle < clips.end[clip])]
        pairs.append((np.full(len(found), clip), found))
    if not pairs:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    clip, event = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return clip, event


def _candidates(
    world: World, clip: np.ndarray, event: np.ndarray, number: int, template: Template
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows whose event the template can ask for, the other event it names, the template."""
    events = world.events
    fits = np.isin(events.kind[event], template.kinds)
    if template.verb is not None:
        fits &= events.verb[event] == template.verb
    # Train asks about common things only: val and test hold what only narrations know.
    common = (events.object[event] == NOTHING) | ~world.rare[events.object[event]]
    fits &= common | (world.videos.split[events.video[event]] != TRAIN)
    other = np.full(len(event), NOTHING)
    if number == BEFORE_AFTER:
        named = _unique(events, clip, event, ("verb", "object")) & (events.kind[event] == HANDLE)
        for step in (1, -1):
            neighbour = np.roll(np.arange(len(event)), step)
            usable = named[neighbour] & (clip[neighbour] == clip)
            usable &= events.object[event[neighbour]] != events.object[event]
            other = np.where(usable, event[neighbour], other)
        fits &= other != NOTHING
    else:
        fits &= _unique(events, clip, event, template.key)
    rows = np.flatnonzero(fits)
    return rows, other[rows], np.full(len(rows), number)


def _unique(
    events: Events, clip: np.ndarray, event: np.ndarray, key: tuple[str, ...]
) -> np.ndarray:
    """Which events are the only ones of their clip with their values of the attributes `key`."""
    code = clip.astype(np.int64)
    for name in key:
        code = code * 1000 + getattr(events, name)[event] + 1
    _, inverse, counts = np.unique(code, return_inverse=True, return_counts=True)
    return counts[inverse] == 1


def _windows(
    world: World, clip: np.ndarray, event: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(R, 2) seconds in the clip: the event as an annotator marks it."""
    clips, events = world.clips, world.events
    marked = np.stack([events.start[event], events.end[event]], axis=1)
    marked = marked - clips.start[clip, None] + ANNOTATOR_SLIP * rng.standard_normal((len(clip), 2))
    marked[:, 1] = np.maximum(marked[:, 1], marked[:, 0] + SHORTEST)
    return np.round(np.clip(marked, 0.0, clips.duration[clip, None]), 5)


_GROUPS = {
    "tool": "tool", "food": "food", "container": "container", "cloth": "clothes",
    "paper": "paper", "device": "device", "plant": "plant", "part": "part", "rope": "thing",
}  # fmt: skip


def phrase(world: World, questions: Questions, row: int) -> dict[str, str]:
    """A question's `query`, `template`, `slot_x`, `slot_y`, `verb_x` and `verb_y`."""
    events = world.events
    event, other = questions.event[row], questions.other[row]
    template = TEMPLATES[questions.template[row]]
    place = PLACES[events.place[event]]
    words = {"place": place.name, "at": place.preposition}
    if events.object[event] != NOTHING:
        thing, verb = OBJECTS[events.object[event]], VERBS[events.verb[event]]
        words |= {"object": thing.name, "objects": plural(thing.name), **verb._asdict()}
        words["group"] = _GROUPS[thing.group]
        if events.verb[event] == PICK_UP:
            words["at"] = "from"
    if events.person[event] != NOTHING:
        words["person"] = PERSONS[events.person[event]]
    second = None
    if other != NOTHING:
        second = VERBS[events.verb[other]]
        words |= {"other": OBJECTS[events.object[other]].name, "other_past": second.past}
        words["order"] = "before" if event < other else "after"
    fill: Callable[[str], str] = lambda text: text.format(**words)  # noqa: E731
    wording = template.words[questions.wording[row] % len(template.words)]
    return {
        "query": fill(wording),
        "template": template.name,
        "slot_x": fill(template.slot_x),
        "verb_x": words.get("base", "talk"),
        "slot_y": fill(template.slot_y),
        "verb_y": second.base if second else "",
    }
