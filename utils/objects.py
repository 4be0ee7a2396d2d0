"""The objects queries ask about, in sets by how often training queries ask about them."""

import string
from collections import Counter
from collections.abc import Iterable

import numpy as np

SHOTS = ("low-shot", "mid-shot", "high-shot")


def query_object(query: dict) -> str | None:
    """The object a query is about, in plain letters; None if its template asks of no object."""
    template, slot = query.get("template"), query.get("slot_x")
    if not isinstance(template, str) or not template.startswith(("Objects", "Place")):
        return None
    if not isinstance(slot, str):
        return None
    return slot.strip().lower().translate(str.maketrans("", "", string.punctuation)) or None


def object_sets(objects: Iterable[str | None]) -> dict[str, set[str]]:
    """Objects in three sets by how often training queries ask about them.

    The bounds are the smallest that put at least one third, then two thirds, of the objects below
    them; objects asked about equally often stay together. A set's name tells its bounds.
    """
    times = Counter(name for name in objects if name is not None)
    counts = np.sort(np.array(list(times.values()), dtype=np.int64))
    sets = {}
    below = 0
    for number, shots in enumerate(SHOTS, 1):
        above = counts[counts > below]
        if not len(above):
            break
        most = max(above[0], counts[-(-number * len(counts) // len(SHOTS)) - 1])
        names = {name for name, count in times.items() if below < count <= most}
        bounds = f"{most}" if above[0] == most else f"{above[0]}-{most}"
        queries = "query" if bounds == "1" else "queries"
        sets[f"{shots}: objects of {bounds} training {queries}"] = names
        below = most
    return sets
