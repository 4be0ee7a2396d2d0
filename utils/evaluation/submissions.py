"""Whether a challenge file answers its split as the challenge server wants it.

To be rejected: queries missing, unknown or answered twice, invalid entries, windows that are not
five or that end before they start, another version or challenge. Anything else that is unusual is
reported.
"""

import math
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from utils.base.errors import UserError, warn
from utils.base.files import read_json
from utils.base.tables import Finding, Findings
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.evaluation.predictions import (
    CHALLENGE,
    VERSION,
    WINDOWS,
    Key,
    Prediction,
    read_scores,
    write_results,
)

ROUNDING = 1e-3  # seconds past a clip's end that are not reported
FIELDS = set(Prediction.__struct_encode_fields__)
MENDS = "--output mends it"
REMEDIES = {
    "query missing": "clips without features, or empty windows left out?",
    "query not in the split": "predictions of another split or version?",
    "window outside its clip": MENDS,
    "another order than the split": MENDS,
    "query without text answered": MENDS,
    "other keys in an entry": MENDS,
    "the same window again": "predict with --nms_threshold 0.5: other windows may hit too",
}


class ChallengeSplit(NamedTuple):
    """The queries a challenge file must answer."""

    queries: dict[Key, int]  # those with text -> position in the split
    textless: set[Key]  # null or empty queries, which only take up an index
    durations: dict[str, float]  # clip uid -> seconds


class Cases:
    """Cases of each kind of fault or oddity, kinds in the order they were first met."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = defaultdict(list)  # to be rejected
        self.oddities: dict[str, list[str]] = defaultdict(list)  # unusual and allowed

    def findings(self, shown: int) -> Findings:
        """A line for each kind: verdict, number of cases, the first `shown` of them."""
        findings = Findings()
        for verdict, kinds in (("reject", self.faults), ("odd", self.oddities)):
            for kind, cases in kinds.items():
                more = [f"{len(cases) - shown} more"] if len(cases) > shown else []
                first = [textwrap.shorten(case, 120, placeholder="...") for case in cases[:shown]]
                what = f"{len(cases)} cases: " if len(cases) > 1 else ""
                what += "; ".join(first + more)
                findings.append(Finding(kind, verdict, what, REMEDIES.get(kind, "")))
        return findings


def read_split(path: str | Path) -> ChallengeSplit:
    """The queries of an annotation file, with times or without.

    Raises:
        UserError: the file is missing or invalid, or has no queries.
    """
    annotations = read_annotations(path)
    durations = {clip.clip_uid: clip.duration for _, clip in iter_clips(annotations)}
    queries: dict[Key, int] = {}
    textless = set()
    for query in iter_queries(annotations, with_textless=True):
        if query.text:
            queries[query.key] = len(queries)
        else:
            textless.add(query.key)
    if not queries:
        raise UserError(f"{path}: has no language queries; give the NLQ annotations of the split")
    return ChallengeSplit(queries, textless, durations)


def check(content: Any, split: ChallengeSplit) -> tuple[Cases, list[Prediction]]:
    """All faults and oddities of a challenge file's content, and its valid predictions."""
    cases = Cases()
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        cases.faults["not a challenge file"].append("it has no list 'results'")
        return cases, []
    for key, value in (("version", VERSION), ("challenge", CHALLENGE)):
        if key not in content:
            cases.faults[f"{key} is missing"].append(f"must be {value!r}")
        elif content[key] != value:
            cases.faults[f"another {key}"].append(f"{content[key]!r} instead of {value!r}")
    predictions: dict[str, Prediction] = {}  # by place in the file
    for index, result in enumerate(content["results"]):
        place = f"results[{index}]"
        try:
            predictions[place] = msgspec.convert(result, Prediction)
        except msgspec.ValidationError as error:
            cases.faults["invalid entry"].append(f"{place}: {error}")
            continue
        if others := result.keys() - FIELDS:
            cases.oddities["other keys in an entry"].append(f"{place}: {', '.join(sorted(others))}")
    _check_queries(predictions, split, cases)
    _check_windows(predictions, split, cases)
    return cases, list(predictions.values())


def _check_queries(predictions: dict[str, Prediction], split: ChallengeSplit, cases: Cases) -> None:
    """Each query of the split answered once, and nothing else."""
    first_places: dict[Key, str] = {}
    order = []
    for place, prediction in predictions.items():
        key = prediction.key
        first = first_places.setdefault(key, place)
        if first != place:
            cases.faults["query answered twice"].append(f"{place}: the same query as {first}")
        elif key in split.queries:
            order.append(split.queries[key])
        elif key in split.textless:
            cases.oddities["query without text answered"].append(f"{place}: {_name(key)}")
        else:
            cases.faults["query not in the split"].append(f"{place}: {_name(key)}")
    for key in split.queries:
        if key not in first_places:
            cases.faults["query missing"].append(_name(key))
    for answer in range(1, len(order)):
        if order[answer] < order[answer - 1]:
            case = f"first at answer {answer} of {len(order)}"
            cases.oddities["another order than the split"].append(case)
            break


def _check_windows(predictions: dict[str, Prediction], split: ChallengeSplit, cases: Cases) -> None:
    """Five windows of each query, that run forwards, inside the clip, all different."""
    for place, prediction in predictions.items():
        if len(prediction.windows) != WINDOWS:
            count = len(prediction.windows)
            cases.faults[f"not {WINDOWS} windows"].append(f"{place}: {count} windows")
        limit = split.durations.get(prediction.clip_uid, math.inf)
        for rank, window in enumerate(prediction.windows):
            start, end = window
            case = f"{place}.predicted_times[{rank}]: [{start}, {end}]"
            if start > end:
                cases.faults["window ends before it starts"].append(case)
            if start < -ROUNDING or end > limit + ROUNDING:
                cases.oddities["window outside its clip"].append(f"{case}, clip of {limit:.3f} s")
            if start == end:
                cases.oddities["window of no length"].append(case)
            if window in prediction.windows[:rank]:
                cases.oddities["the same window again"].append(case)


def _name(key: Key) -> str:
    return f"clip {key[0]}, annotation {key[1]}, query {key[2]}"


def write_normalised(
    path: str | Path, source: str | Path, predictions: list[Prediction], split: ChallengeSplit
) -> None:
    """Write acceptable predictions in the split's order, times as floats and inside the clip.

    Scores that lie beside the file `source` they were read from are kept.
    """
    try:
        scores = read_scores(source, predictions)
    except UserError as error:
        warn(f"{error}; left out")
        scores = None
    row = {prediction.key: number for number, prediction in enumerate(predictions)}
    rows = [row[key] for key in split.queries]
    ends = np.array([split.durations[clip_uid] for clip_uid, _, _ in split.queries])
    windows = np.array([predictions[row].windows for row in rows], np.float64)
    windows = windows.clip(0.0, ends[:, None, None])
    if scores is not None:
        scores = np.array([scores[row] for row in rows])
    write_results(path, split.queries, windows, scores)


def accept(path: str | Path, split: ChallengeSplit, shown: int = 3) -> list[Prediction]:
    """The predictions of a challenge file, with a report of what is wrong or odd on stdout.

    Raises UserError if the server would reject the file.
    """
    cases, predictions = check(read_json(path), split)
    if findings := cases.findings(shown):
        print(findings.table())
    answered = len({prediction.key for prediction in predictions} & split.queries.keys())
    print(f"{answered} of {len(split.queries)} queries answered", flush=True)
    if cases.faults:
        kinds = ", ".join(f"{kind} ({len(places)})" for kind, places in cases.faults.items())
        raise UserError(f"{path}: not acceptable: {kinds}")
    odd = sum(map(len, cases.oddities.values()))
    print(f"{path}: acceptable" + (f"; oddities: {odd}" if odd else ""))
    return predictions
