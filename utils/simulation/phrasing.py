"""Sentences about the simulated world: narrations, and questions of the 13 templates.

Millions of narrations are made as columns; questions are made one by one. Shapes: N events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.base.lazy import polars as pl
from utils.simulation.lexicon import OBJECTS, PERSONS, PLACES, VERB_NUMBER, VERBS, plural
from utils.simulation.world import HANDLE, NOTHING, TALK, TOGETHER, Events

PUT, PICK_UP = VERB_NUMBER["put"], VERB_NUMBER["pick up"]
HANDS = ("with his right hand", "with his left hand", "with both hands")
# Three forms for handling, one for handling with somebody, two for talking, two for walking.
NARRATIONS = (
    "#C C {verb} {object}",
    "#C C {verb} {object} {preposition} the {place}",
    "#C C {verb} {object} {hands}",
    "#C C {verb} {object} with the {person}",
    "#C C talks to the {person}",
    "#O the {person} talks to C at the {place}",
    "#C C walks to the {place}",
    "#C C looks around the {place}",
)


def narration_texts(events: Events, chosen: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """(N,) sentences such as `#C C puts the knife on the table`."""
    kind, verb, place = events.kind[chosen], events.verb[chosen], events.place[chosen]
    handling_form = rng.choice(3, len(chosen), p=(0.4, 0.45, 0.15))
    hand = rng.integers(0, len(HANDS), len(chosen))
    article = rng.choice(2, len(chosen), p=(0.75, 0.25))
    either = rng.integers(0, 2, len(chosen))
    form = np.select(
        [kind == HANDLE, kind == TOGETHER, kind == TALK], [handling_form, 3, 4 + either], 6 + either
    )
    # Things are picked up "from" a place, and put "on" or "in" it.
    is_inside = np.array([noun.preposition == "in" for noun in PLACES])
    preposition = np.where(verb == PICK_UP, 2, is_inside[place])
    objects = [f"{word} {noun.name}" for noun in OBJECTS for word in ("the", _article(noun.name))]
    table = pl.DataFrame(
        {
            "form": form,
            "verb": _words([verb.third for verb in VERBS], verb),
            "object": _words(objects, 2 * events.object[chosen] + article),
            "preposition": _words(["on", "in", "from"], preposition),
            "place": _words([noun.name for noun in PLACES], place),
            "person": _words(PERSONS, events.person[chosen]),
            "hands": _words(HANDS, hand),
        }
    )
    sentences = [
        pl.when(pl.col("form") == number).then(
            pl.format(re.sub(r"{\w+}", "{}", sentence), *re.findall(r"{(\w+)}", sentence))
        )
        for number, sentence in enumerate(NARRATIONS)
    ]
    return table.select(pl.coalesce(sentences).alias("text")).to_series()


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeio" else "a"


def _words(words: Sequence[str], numbers: np.ndarray) -> pl.Series:
    """(N,) words by number; empty where the number is below 0."""
    return pl.Series([*words, ""]).gather(np.where(numbers < 0, len(words), numbers))


class Template(NamedTuple):
    """A kind of question."""

    name: str
    share: float  # of all questions
    kinds: tuple[int, ...]  # of its events
    verb: int | None  # of its events; None: any
    key: tuple[str, ...]  # attributes that identify the event among those of the clip
    words: tuple[str, ...]  # wordings
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
_GROUPS = {"cloth": "clothes", "rope": "thing"}  # names in questions


def question_words(
    events: Events, event: int, other: int, template: Template, wording: int
) -> dict[str, str]:
    """`query`, `template`, `slot_x`, `verb_x`, `slot_y` and `verb_y` of a question about an event.

    `other` is the event before or after it, or NOTHING; `wording`, any number, selects one of the
    template's wordings.
    """
    place = PLACES[events.place[event]]
    words = {"place": place.name, "at": place.preposition, "base": "talk", "other_base": ""}
    if events.object[event] != NOTHING:
        noun, verb = OBJECTS[events.object[event]], VERBS[events.verb[event]]
        words |= {"object": noun.name, "objects": plural(noun.name), **verb._asdict()}
        words["group"] = _GROUPS.get(noun.group, noun.group)
        if events.verb[event] == PICK_UP:
            words["at"] = "from"
    if events.person[event] != NOTHING:
        words["person"] = PERSONS[events.person[event]]
    if other != NOTHING:
        verb = VERBS[events.verb[other]]
        words |= {"other": OBJECTS[events.object[other]].name, "other_past": verb.past}
        words |= {"other_base": verb.base, "order": "before" if event < other else "after"}
    return {
        "query": template.words[wording % len(template.words)].format(**words),
        "template": template.name,
        "slot_x": template.slot_x.format(**words),
        "verb_x": words["base"],
        "slot_y": template.slot_y.format(**words),
        "verb_y": words["other_base"],
    }
