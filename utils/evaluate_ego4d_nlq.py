"""Score a challenge file against annotations: recall at IoU thresholds, mean IoU, breakdowns."""

import sys
from collections import Counter
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from utils.annotations import Query, iter_queries, read_annotations
from utils.errors import UserError, run_program
from utils.metrics import (
    RANKING_THRESHOLDS,
    THRESHOLDS,
    TOP_K,
    evaluate,
    evaluate_groups,
    group_table,
    is_about_objects,
    plain_object,
    score_table,
)
from utils.options import ArgumentParser
from utils.predictions import Prediction, read_predictions

EMPTY_SECONDS = 1 / 30  # windows up to one frame long count as empty


def read_truth(path: str | Path) -> list[Query]:
    """The queries of an annotation file that have times; a `UserError` if none has."""
    queries = list(iter_queries(read_annotations(path)))
    timed = [query for query in queries if query.query.get("clip_start_sec") is not None]
    if not timed:
        raise UserError(f"{path}: its {len(queries)} queries hold no times to score against")
    return timed


def align(queries: list[Query], predictions: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Right windows (R, 2), and predicted ones (R, P, 2) that are NaN where there is none."""
    truth = np.array([[q.query["clip_start_sec"], q.query["clip_end_sec"]] for q in queries])
    most = max((len(p.times) for p in predictions), default=1)
    windows = np.full((len(queries), most, 2), np.nan)
    place = {(q.clip_uid, q.annotation_uid, q.query_idx): row for row, q in enumerate(queries)}
    for prediction in predictions:
        row = place.get(prediction[:3])
        if row is not None:
            windows[row, : len(prediction.times)] = prediction.times
    return truth.astype(np.float64), windows


def template_groups(queries: list[Query]) -> dict[str, np.ndarray]:
    """Row numbers of the queries of each template."""
    templates = np.array([query.query.get("template") or "" for query in queries])
    return {name: np.flatnonzero(templates == name) for name in sorted(set(templates) - {""})}


def query_object(query: Query) -> str | None:
    """The object a query is about, if its template is about objects or places."""
    if not is_about_objects(query.query.get("template")):
        return None
    return plain_object(query.query.get("slot_x"))


def frequency_sets(training: list[Query]) -> dict[str, set[str]]:
    """Objects by how often training queries are about them: low, mid and high shot.

    An object asked about up to 10 times is low-shot, up to 50 times mid-shot, beyond high-shot.
    """
    counts = Counter(filter(None, map(query_object, training)))
    bounds = {
        "low-shot (1-10)": (1, 10),
        "mid-shot (11-50)": (11, 50),
        "high-shot (51-)": (51, np.inf),
    }
    return {
        name: {thing for thing, count in counts.items() if low <= count <= high}
        for name, (low, high) in bounds.items()
    }


def object_groups(queries: list[Query], sets: dict[str, set[str]]) -> dict[str, np.ndarray]:
    """Row numbers of the queries about the objects of each set; others are left out."""
    objects = [query_object(query) for query in queries]
    return {
        name: np.array([row for row, thing in enumerate(objects) if thing in things], int)
        for name, things in sets.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Read, score and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--ground_truth_json", required=True, metavar="FILE", help="annotations")
    parser.add_argument(
        "--model_prediction_json", required=True, metavar="FILE", help="challenge file"
    )
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=list(THRESHOLDS), metavar="T", help="IoUs"
    )
    parser.add_argument(
        "--topK", nargs="+", type=int, default=list(TOP_K), metavar="K", help="first K windows"
    )
    parser.add_argument(
        "--skip_empty_windows",
        action="store_true",
        help="leave out windows of at most 1/30 s, as the published figures do",
    )
    parser.add_argument("--breakdown", action="store_true", help="also a table per query template")
    parser.add_argument(
        "--train_annotations",
        metavar="FILE",
        help="also a table per object frequency in these training annotations",
    )
    options = parser.parse_args(arguments)
    if min(options.topK) < 1:
        raise UserError(f"--topK must be at least 1, is {min(options.topK)}")

    queries = read_truth(options.ground_truth_json)
    predictions = read_predictions(options.model_prediction_json)
    truth, windows = align(queries, predictions)
    listed = len(queries)
    empty = truth[:, 1] - truth[:, 0] <= EMPTY_SECONDS
    answered = ~np.isnan(windows[:, 0, 0])
    strangers = len(predictions) - int(answered.sum())
    if not answered.any():
        raise UserError(
            f"{options.model_prediction_json}: none of its {len(predictions)} predictions answers "
            f"a query of {options.ground_truth_json}; were they made for another split or version?"
        )
    wanted = answered & ~empty if options.skip_empty_windows else answered
    kept = np.flatnonzero(wanted)
    queries = [queries[row] for row in kept]
    truth, windows = truth[kept], windows[kept]

    scores = evaluate(truth, windows, options.thresholds, options.topK, listed)
    print(score_table(scores))
    print(
        f"{scores.said()}: {listed - int(answered.sum())} without a prediction, {int(empty.sum())} "
        f"with an empty window ({'left out' if options.skip_empty_windows else 'kept'}); "
        f"{strangers} predictions without a query"
    )
    if set(RANKING_THRESHOLDS) <= set(options.thresholds) and 1 in options.topK:
        print(f"mean R@1 over IoU 0.3 and 0.5: {100 * scores.mean_recall_1:.2f}")
    breakdowns = {}
    if options.breakdown:
        breakdowns["template"] = template_groups(queries)
    if options.train_annotations is not None:
        training = list(iter_queries(read_annotations(options.train_annotations)))
        breakdowns["object frequency"] = object_groups(queries, frequency_sets(training))
    for heading, groups in breakdowns.items():
        found = evaluate_groups(truth, windows, groups, options.thresholds, options.topK)
        if found:
            print("\n" + group_table(found, heading))


if __name__ == "__main__":
    run_program(main)
