"""Whether a challenge file answers its split as the challenge server wants it.

What is to be rejected: queries missing, unknown or answered twice, malformed entries, windows that
are not five, not finite numbers or reversed, another version or challenge. Anything else that is
unusual is reported.
"""

import json
import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.base.errors import UserError, warn
from utils.base.files import read_json
from utils.base.tables import Finding, Findings
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.evaluation.predictions import (
    CHALLENGE,
    RESULT_KEYS,
    VERSION,
    WINDOWS,
    Prediction,
    read_scores,
    result_fault,
    write_results,
)

ROUNDING = 1e-3  # seconds past a clip's end that are not worth a word
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

Key = tuple[str, str, int]  # clip uid, annotation uid, query_idx


class Split(NamedTuple):
    """The queries a challenge file must answer."""

    queries: dict[Key, int]  # those with text -> place in the split
    textless: set[Key]  # null or empty queries, which only take up an index
    durations: dict[str, float]  # clip uid -> seconds


class Cases:
    """Cases of each kind of fault or oddity, kinds in the order they were first met."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = {}  # to be rejected
        self.oddities: dict[str, list[str]] = {}

    def fault(self, kind: str, case: str) -> None:
        """Note a case for which the file is to be rejected."""
        self.faults.setdefault(kind, []).append(case)

    def odd(self, kind: str, case: str) -> None:
        """Note a case that is unusual and allowed."""
        self.oddities.setdefault(kind, []).append(case)

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


def read_split(path: str | Path) -> Split:
    """The queries of an annotation file, with times or without.

    Raises:
        UserError: the file is missing or malformed, or has no queries.
    """
    annotations = read_annotations(path)
    durations, indices = {}, set()
    for _, clip in iter_clips(annotations):
        uid = clip["clip_uid"]
        durations.setdefault(uid, clip["video_end_sec"] - clip["video_start_sec"])
        for annotation in clip.get("annotations") or ():
            for index in range(len(annotation.get("language_queries") or ())):
                indices.add((uid, annotation["annotation_uid"], index))
    queries = {query[1:4]: place for place, query in enumerate(iter_queries(annotations))}
    if not queries:
        raise UserError(f"{path}: has no language queries; give the NLQ annotations of the split")
    return Split(queries, indices - queries.keys(), durations)


def check(content: Any, split: Split) -> tuple[Cases, list[Prediction]]:
    """All faults and oddities of a challenge file's content, and its well-formed predictions."""
    cases = Cases()
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        cases.fault("not a challenge file", "it has no list 'results'")
        return cases, []
    for key, value in (("version", VERSION), ("challenge", CHALLENGE)):
        if key not in content:
            cases.fault(f"{key} is missing", f"must be {value!r}")
        elif content[key] != value:
            cases.fault(f"another {key}", f"{content[key]!r} instead of {value!r}")
    predictions, places, malformed = _well_formed(content["results"], cases)
    _check_queries(predictions, places, malformed, split, cases)
    _check_windows(predictions, places, split, cases)
    return cases, predictions


def _well_formed(results: list, cases: Cases) -> tuple[list[Prediction], list[str], set[tuple]]:
    """Predictions whose entries have the right form, where each stands, and keys of the others."""
    predictions, places, malformed = [], [], set()
    for number, result in enumerate(results):
        place = f"results[{number}]"
        if fault := result_fault(result):
            infinite = isinstance(result, dict) and _has_infinite(result.get("predicted_times"))
            kind = "times not finite" if infinite else "malformed entry"
            cases.fault(kind, place + fault)
            if isinstance(result, dict):
                malformed.add(tuple(str(result.get(key)) for key in RESULT_KEYS[:3]))
            continue
        if others := result.keys() - set(RESULT_KEYS):
            cases.odd("other keys in an entry", f"{place}: {', '.join(sorted(others))}")
        key = result["clip_uid"], result["annotation_uid"], result["query_idx"]
        predictions.append(Prediction(*key, result["predicted_times"]))
        places.append(place)
    return predictions, places, malformed


def _has_infinite(windows: Any) -> bool:
    """Whether any time is NaN or infinite; JSON has no such numbers, but Python writes them."""
    lists = windows if isinstance(windows, list) else []
    times = [time for window in lists if isinstance(window, list) for time in window]
    return any(isinstance(time, float) and not math.isfinite(time) for time in times)


def _check_queries(
    predictions: list[Prediction],
    places: list[str],
    malformed: set[tuple],
    split: Split,
    cases: Cases,
) -> None:
    """Each query of the split answered once, and nothing else."""
    seen: dict[Key, str] = {}
    order = []
    for prediction, place in zip(predictions, places, strict=True):
        key = prediction[:3]
        first = seen.setdefault(key, place)
        if first != place:
            cases.fault("query answered twice", f"{place}: the same query as {first}")
        elif key in split.queries:
            order.append(split.queries[key])
        elif key in split.textless:
            cases.odd("query without text answered", f"{place}: {_name(key)}")
        else:
            cases.fault("query not in the split", f"{place}: {_name(key)}")
    for key in split.queries:
        if key not in seen and tuple(map(str, key)) not in malformed:
            cases.fault("query missing", _name(key))
    if order != sorted(order):
        later = next(n for n in range(1, len(order)) if order[n] < order[n - 1])
        cases.odd("another order than the split", f"first at answer {later} of {len(order)}")


def _check_windows(
    predictions: list[Prediction], places: list[str], split: Split, cases: Cases
) -> None:
    """Five windows of each query, that run forwards, inside the clip, all different."""
    for prediction, place in zip(predictions, places, strict=True):
        if len(prediction.windows) != WINDOWS:
            cases.fault(f"not {WINDOWS} windows", f"{place}: {len(prediction.windows)} windows")
    # All windows of the file as one array, each with the number of its prediction and its rank.
    counts = [len(prediction.windows) for prediction in predictions]
    owner = np.repeat(np.arange(len(counts)), counts)
    rank = np.concatenate([np.arange(count) for count in counts] or [np.arange(0)])
    flat = [window for prediction in predictions for window in prediction.windows]
    windows = np.array(flat, dtype=np.float64).reshape(-1, 2)
    limits = [split.durations.get(prediction.clip_uid, math.inf) for prediction in predictions]
    start, end = windows.T
    limit = np.array(limits, dtype=np.float64)[owner]
    outside = (start < -ROUNDING) | (end > limit + ROUNDING)
    numbers = np.column_stack([owner, windows])
    _, first = np.unique(numbers, axis=0, return_index=True)
    again = np.ones(len(numbers), dtype=bool)
    again[first] = False
    for note, kind, where in (
        (cases.fault, "window ends before it starts", start > end),
        (cases.odd, "window outside its clip", outside),
        (cases.odd, "window of no length", start == end),
        (cases.odd, "the same window again", again),
    ):
        for row in np.flatnonzero(where):
            text = f"{places[owner[row]]}.predicted_times[{rank[row]}]: {flat[row]}"
            if where is outside:
                text += f", clip of {limit[row]:.3f} s"
            note(kind, text)


def _name(key: Key) -> str:
    return f"clip {key[0]}, annotation {key[1]}, query {key[2]}"


def write_normalised(path: str | Path, source: str | Path, predictions: list, split: Split) -> None:
    """Write acceptable predictions in the split's order, times as floats and inside the clip.

    Scores that lie beside the file `source` they were read from are kept.
    """
    try:
        scores = read_scores(source, predictions)
    except UserError as fault:
        warn(f"{fault}; left out")
        scores = None
    row = {prediction[:3]: number for number, prediction in enumerate(predictions)}
    rows = [row[key] for key in split.queries]
    ends = np.array([split.durations[key[0]] for key in split.queries])
    windows = np.array([predictions[row].windows for row in rows], np.float64)
    windows = windows.clip(0.0, ends[:, None, None])
    if scores is not None:
        scores = np.array([scores[row] for row in rows])
    write_results(path, split.queries, windows, scores)


def read_submission(path: str | Path) -> Any:
    """Read JSON, also with the NaN and Infinity that Python's own writer lets through.

    It must be plain UTF-8, as a reader expects that isn't told what else it is.
    """
    try:
        return read_json(path)
    except UserError:
        try:
            return json.loads(Path(path).read_text("utf-8"), parse_int=_whole_number)
        except (OSError, ValueError, RecursionError):
            pass  # neither reader can: the first one's words are clearer
        raise


def _whole_number(digits: str) -> int | float:
    """Whole numbers too long for any time or index become floats, infinite if need be."""
    return int(digits) if len(digits) < 16 else float(digits)


def accept(path: str | Path, split: Split, shown: int = 3) -> list[Prediction]:
    """The predictions of a challenge file, with a report of what is wrong or odd on stdout.

    Raises UserError if the server would reject the file.
    """
    cases, predictions = check(read_submission(path), split)
    if findings := cases.findings(shown):
        print(findings.table())
    answered = len({prediction[:3] for prediction in predictions} & split.queries.keys())
    print(f"{answered} of {len(split.queries)} queries answered", flush=True)
    if cases.faults:
        kinds = ", ".join(f"{kind} ({len(places)})" for kind, places in cases.faults.items())
        raise UserError(f"{path}: not acceptable: {kinds}")
    odd = sum(map(len, cases.oddities.values()))
    print(f"{path}: acceptable" + (f"; oddities: {odd}" if odd else ""))
    return predictions
