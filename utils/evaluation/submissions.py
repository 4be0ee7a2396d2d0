"""Check whether the challenge server would accept a challenge file.

Reasons to reject it: missing, unknown or repeated queries, invalid entries, another number of
windows than five, windows that end before they start, another version or challenge. Oddities that
the server accepts are reported.
"""

import math
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.tables import Finding, Findings
from utils.data.annotations import (
    QueryKey,
    iter_clips,
    iter_queries,
    key_in_words,
    read_annotations,
)
from utils.evaluation.predictions import (
    CHALLENGE,
    VERSION,
    WINDOWS,
    Prediction,
    read_scores,
    write_results,
)

ROUNDING = 1e-3  # seconds past the end of a clip that are not reported
FIELDS = set(Prediction.__struct_encode_fields__)
CORRECTED = "--output corrects it"
# Kinds of cases and what to do. The server rejects files with the first ones.
REJECTED = {
    "not a challenge file": "",
    "another version or challenge": "",
    "invalid entry": "",
    "query answered twice": "",
    "query not in the split": "predictions of another split or version?",
    "query missing": "clips without features, or empty windows left out?",
    f"not {WINDOWS} windows": "",
    "window ends before it starts": "",
}
ODD = {
    "other keys in an entry": CORRECTED,
    "query without text answered": CORRECTED,
    "another order than the split": CORRECTED,
    "window outside its clip": CORRECTED,
    "window of no length": "",
    "the same window again": "predict with --nms_threshold 0.5: other windows may hit too",
}
Cases = dict[str, list[str]]  # by kind


class ChallengeSplit(NamedTuple):
    """The queries a challenge file must answer."""

    queries: dict[QueryKey, int]  # queries with text -> position in the split
    textless: set[QueryKey]  # queries without text
    durations: dict[str, float]  # clip uid -> seconds


def in_table(cases: Cases, shown: int) -> Findings:
    """A finding for each kind: verdict, number of cases, the first `shown` of them."""
    findings = Findings()
    for verdict, kinds in (("reject", REJECTED), ("odd", ODD)):
        for kind, remedy in kinds.items():
            if not (places := cases.get(kind)):
                continue
            texts = [textwrap.shorten(place, 120, placeholder="...") for place in places[:shown]]
            if len(places) > shown:
                texts.append(f"{len(places) - shown} more")
            count = f"{len(places)} cases: " if len(places) > 1 else ""
            findings.append(Finding(kind, verdict, count + "; ".join(texts), remedy))
    return findings


def read_challenge_split(path: str | Path) -> ChallengeSplit:
    """Read the queries of an annotation file, with or without times.

    Raises:
        UserError: the file is missing or invalid, or has no queries.
    """
    annotations = read_annotations(path)
    durations = {clip.clip_uid: clip.duration for _, clip in iter_clips(annotations)}
    queries: dict[QueryKey, int] = {}
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
    """Find all cases in the content of a challenge file; returns them and its valid predictions."""
    cases: Cases = defaultdict(list)
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        cases["not a challenge file"].append("it has no list 'results'")
        return cases, []
    for key, value in (("version", VERSION), ("challenge", CHALLENGE)):
        if content.get(key) != value:
            case = f"{key} is {content.get(key)!r}, must be {value!r}"
            cases["another version or challenge"].append(case)
    predictions: dict[str, Prediction] = {}  # by place in the file
    for index, result in enumerate(content["results"]):
        place = f"results[{index}]"
        try:
            predictions[place] = msgspec.convert(result, Prediction)
        except msgspec.ValidationError as error:
            cases["invalid entry"].append(f"{place}: {error}")
            continue
        if unknown := result.keys() - FIELDS:
            cases["other keys in an entry"].append(f"{place}: {', '.join(sorted(unknown))}")
    _check_queries(predictions, split, cases)
    for place, prediction in predictions.items():
        _check_windows(place, prediction, split, cases)
    return cases, list(predictions.values())


def _check_queries(predictions: dict[str, Prediction], split: ChallengeSplit, cases: Cases) -> None:
    """Check that each query of the split is answered once, and no other."""
    places: dict[QueryKey, str] = {}
    order = []
    for place, prediction in predictions.items():
        key = prediction.key
        earlier = places.setdefault(key, place)
        if earlier != place:
            cases["query answered twice"].append(f"{place}: the same query as {earlier}")
        elif key in split.queries:
            order.append(split.queries[key])
        else:
            is_textless = key in split.textless
            kind = "query without text answered" if is_textless else "query not in the split"
            cases[kind].append(f"{place}: {key_in_words(key)}")
    for key in split.queries:
        if key not in places:
            cases["query missing"].append(key_in_words(key))
    descents = np.flatnonzero(np.diff(order) < 0)
    if len(descents):
        case = f"first at answer {descents[0] + 1} of {len(order)}"
        cases["another order than the split"].append(case)


def _check_windows(place: str, prediction: Prediction, split: ChallengeSplit, cases: Cases) -> None:
    """Check that a query has five different windows, which lie inside the clip."""
    if len(prediction.windows) != WINDOWS:
        cases[f"not {WINDOWS} windows"].append(f"{place}: {len(prediction.windows)} windows")
    limit = split.durations.get(prediction.clip_uid, math.inf)
    for rank, (start, end) in enumerate(prediction.windows):
        case = f"{place}.predicted_times[{rank}]: [{start}, {end}]"
        if start > end:
            cases["window ends before it starts"].append(case)
        if start < -ROUNDING or end > limit + ROUNDING:
            cases["window outside its clip"].append(f"{case}, clip of {limit:.3f} s")
        if start == end:
            cases["window of no length"].append(case)
        if (start, end) in prediction.windows[:rank]:
            cases["the same window again"].append(case)


def write_normalised(
    path: str | Path, source: str | Path, predictions: list[Prediction], split: ChallengeSplit
) -> None:
    """Write accepted predictions in the split's order, with times as floats and inside the clip.

    Scores beside the original file `source` are written, too; raises UserError if they are of other
    predictions.
    """
    scores = read_scores(source, predictions)
    row = {prediction.key: number for number, prediction in enumerate(predictions)}
    rows = [row[key] for key in split.queries]
    ends = np.array([split.durations[clip_uid] for clip_uid, _, _ in split.queries])
    windows = np.array([predictions[row].windows for row in rows], np.float64)
    windows = windows.clip(0.0, ends[:, None, None])
    ordered_scores = None if scores is None else np.array([scores[row] for row in rows])
    write_results(path, split.queries, windows, ordered_scores)


def accept(path: str | Path, split: ChallengeSplit, shown: int = 3) -> list[Prediction]:
    """Read a challenge file and print what is wrong or odd; returns its predictions.

    Raises UserError if the server would reject the file.
    """
    cases, predictions = check(read_json(path), split)
    if findings := in_table(cases, shown):
        print(findings.table())
    answered = len({prediction.key for prediction in predictions} & split.queries.keys())
    print(f"{answered} of {len(split.queries)} queries answered", flush=True)
    if faults := [f"{kind} ({len(cases[kind])})" for kind in REJECTED if kind in cases]:
        raise UserError(f"{path}: not acceptable: {', '.join(faults)}")
    odd = sum(map(len, cases.values()))
    print(f"{path}: acceptable" + (f"; oddities: {odd}" if odd else ""))
    return predictions
