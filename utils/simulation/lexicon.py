"""The words of the simulated world: objects, verbs, places and people.

Objects of a scenario are listed from the most to the least common. Each belongs to a group, which
determines its verbs.
"""

from typing import NamedTuple

import numpy as np


class Verb(NamedTuple):
    """`pick up`, `picks up`, `picked up`."""

    base: str
    third: str
    past: str


class Noun(NamedTuple):
    """An object, the group of things that it belongs to, and its scenario."""

    name: str
    group: str
    scenario: str


class Place(NamedTuple):
    """A place, the preposition (`on`, `in`) of things that are put there, and its scenario."""

    name: str
    preposition: str
    scenario: str


_VERBS = """
    pick up, picks up, picked up; put, puts, put; hold, holds, held; move, moves, moved;
    lift, lifts, lifted; carry, carries, carried; drop, drops, dropped; wash, washes, washed;
    wipe, wipes, wiped; cut, cuts, cut; peel, peels, peeled; open, opens, opened;
    close, closes, closed; shake, shakes, shook; fill, fills, filled; empty, empties, emptied;
    turn, turns, turned; press, presses, pressed; clean, cleans, cleaned; fold, folds, folded;
    hang, hangs, hung; tie, ties, tied; read, reads, read; tear, tears, tore; pull, pulls, pulled;
    trim, trims, trimmed; water, waters, watered; adjust, adjusts, adjusted;
    remove, removes, removed; measure, measures, measured
"""
VERBS = tuple(Verb(*entry.strip().split(", ")) for entry in _VERBS.split(";"))
VERB_NUMBER = {verb.base: number for number, verb in enumerate(VERBS)}

# Verbs of all objects, and further verbs of the objects of a group.
HANDLING = ("pick up", "put", "hold", "move", "lift", "carry", "drop")
GROUP_VERBS = {
    "tool": ("wash", "wipe", "clean", "turn", "adjust"),
    "food": ("wash", "cut", "peel", "remove"),
    "container": ("open", "close", "shake", "fill", "empty", "wash"),
    "cloth": ("fold", "hang", "wash", "shake", "pull"),
    "paper": ("read", "fold", "tear", "open", "close"),
    "device": ("press", "clean", "turn", "adjust", "wipe"),
    "plant": ("water", "cut", "trim", "pull"),
    "part": ("remove", "turn", "measure", "clean", "adjust"),
    "rope": ("tie", "cut", "pull", "hang"),
}

_OBJECTS = {
    "kitchen": """knife tool; cup container; plate tool; bowl container; spoon tool; pan container;
        bottle container; onion food; tomato food; pot container; potato food; carrot food;
        egg food; bread food; cheese food; kettle device; fork tool; lid part; jar container;
        spatula tool; garlic food; pepper food; lemon food; sieve tool; grater tool; whisk tool;
        blender device; cucumber food; pumpkin food; tray tool""",
    "workshop": """hammer tool; screwdriver tool; drill device; screw part; nail part; saw tool;
        plank part; wrench tool; tape part; pliers tool; brush tool; bucket container;
        glue container; clamp tool; chisel tool; ladder tool; pencil tool; glove cloth;
        wire rope; bolt part; toolbox container; ruler tool; hinge part; sandpaper paper;
        pipe part; magnet part; tile part; switch device""",
    "garden": """shovel tool; plant plant; hose rope; flower plant; rake tool; weed plant;
        stone part; leaf plant; broom tool; wheelbarrow container; seed part; basket container;
        trowel tool; branch plant; rope rope; scissors tool; fence part; sprinkler device;
        mower device; bush plant; mushroom food; apple food; strawberry food; lantern device;
        cactus plant; vine plant""",
    "home": """shirt cloth; towel cloth; phone device; pillow cloth; remote device; bag container;
        sock cloth; hanger tool; blanket cloth; book paper; iron device; curtain cloth;
        vacuum device; lamp device; toy part; candle part; mirror part; charger device;
        umbrella tool; wallet container; clock device; vase container; jacket cloth; scarf cloth;
        magazine paper; guitar device; suitcase container; perfume container""",
    "office": """laptop device; pen tool; paper paper; notebook paper; keyboard device;
        mouse device; folder paper; stapler tool; envelope paper; calculator device; printer device;
        marker tool; headphones device; mug container; monitor device; cable rope;
        card paper; glasses tool; calendar paper; eraser tool; camera device; newspaper paper;
        stamp tool; map paper; ticket paper; microphone device""",
    "garage": """bicycle device; wheel part; tire part; chain part; pump device; helmet cloth;
        oil container; rag cloth; battery part; brake part; pedal part; seat part; engine device;
        funnel tool; headlight part; motorcycle device; spring part; belt rope; gear part;
        radiator device; wiper part; horn part; bumper part; jack device; hubcap part;
        canister container""",
}

_PLACES = {
    "kitchen": "table on; counter on; sink in; fridge in; drawer in; cupboard in; oven in",
    "workshop": "workbench on; floor on; shelf on; crate in; wall on; stool on; cart on",
    "garden": "ground on; shed in; path on; lawn on; porch on; greenhouse in; bin in",
    "home": "bed on; sofa on; wardrobe in; chair on; washing machine in; closet in; carpet on",
    "office": "desk on; cabinet in; bookcase in; whiteboard on; windowsill on; mailbox in; safe in",
    "garage": "rack on; trunk in; hook on; car in; driveway on; truck in; pallet on",
}

SCENARIOS = tuple(_OBJECTS)


def _entries(kind: type, table: dict[str, str]) -> tuple:
    return tuple(
        kind(*entry.strip().rsplit(" ", 1), scenario)
        for scenario, text in table.items()
        for entry in " ".join(text.split()).split(";")
    )


OBJECTS: tuple[Noun, ...] = _entries(Noun, _OBJECTS)
PLACES: tuple[Place, ...] = _entries(Place, _PLACES)
# Number of the scenario of each object and place.
OBJECT_SCENARIO = np.array([SCENARIOS.index(noun.scenario) for noun in OBJECTS])
PLACE_SCENARIO = np.array([SCENARIOS.index(place.scenario) for place in PLACES])
PERSONS = (
    "man", "woman", "boy", "girl", "friend", "neighbor", "baby", "grandmother", "cashier",
    "waiter", "teacher", "plumber", "student", "customer", "mechanic", "nurse",
)  # fmt: skip

_PLURALS = {"knife": "knives", "leaf": "leaves", "shelf": "shelves", "cactus": "cacti"}
_ALWAYS_PLURAL = ("scissors", "pliers", "glasses", "headphones")


def plural(noun: str) -> str:
    """`knives`, `boxes`, `batteries`, `scissors`."""
    if noun in _ALWAYS_PLURAL:
        return noun
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")) or noun in ("potato", "tomato"):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
