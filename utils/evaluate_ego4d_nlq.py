"""Score a challenge file against ground truth: R@k IoU=t, mIoU, and how many queries counted.

    python utils/evaluate_ego4d_nlq.py --ground_truth_json data/nlq_val.json \\
        --model_prediction_json vslnet_700_val_result.json --thresholds 0.3 0.5 --topK 1 3 5
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, run_program, warn
from utils.base.options import ArgumentParser
from utils.data.annotations import iter_queries, read_annotations
from utils.data.spans import EMPTY_SECONDS
from utils.evaluation.analysis import object_sets, query_object
from utils.evaluation.metrics import breakdown, breakdown_table, evaluate, score_table
from utils.evaluation.predictions import WINDOWS, read_predictions
from utils.evaluation.scoring import predicted_windows, true_windows


class Protocol(NamedTuple):
    """Evaluated queries and how they are scored, in the order `breakdown` takes them."""

    truth: np.ndarray  # (R, 2)
    windows: np.ndarray  # (R, K, 2)
    thresholds: list[float]
    topK: list[int]


def print_breakdown(title: str, groups: Iterable[str], names: list, protocol: Protocol) -> None:
    """A table with a line for each group that queries belong to; `names` has one a query."""
    groups = list(groups)
    number = {name: index for index, name in enumerate(groups)}
    of_query = np.array([number.get(name, -1) for name in names])
    scores = breakdown(protocol.truth, protocol.windows, of_query, *protocol[2:])
    if scores:
        print(f"\n{breakdown_table({groups[i]: own for i, own in scores.items()}, title)}")
    print(f"{title}: {np.count_nonzero(of_query < 0)} of {len(of_query)} queries are in no group")


def print_breakdowns(queries: list[dict], training: str | None, protocol: Protocol) -> None:
    """By template, and by how often annotations `training` ask about the query's object."""
    templates = [str(query.get("template") or "") for query in queries]
    print_breakdown("template", sorted(set(templates) - {""}), templates, protocol)
    if training is None:
        print("object frequency: give --train_annotations FILE to count objects in")
        return
    seen = iter_queries(read_annotations(training))
    sets = object_sets(query_object(query.query) for query in seen)
    set_of = {name: title for title, names in sets.items() for name in names}
    objects = [set_of.get(query_object(query)) for query in queries]
    print_breakdown("object frequency", sets, objects, protocol)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ground_truth_json", required=True, metavar="FILE", help="annotations")
    parser.add_argument(
        "--model_prediction_json", required=True, metavar="FILE", help="challenge file to score"
    )
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=[0.3, 0.5], metavar="T",
        help="IoU that a window must exceed",
    )  # fmt: skip
    parser.add_argument(
        "--topK", type=int, nargs="+", default=[1, 3, 5], metavar="K", help="windows that may hit"
    )
    parser.add_argument(
        "--skip_empty_windows", action="store_true",
        help="drop ground truth of at most 1/30 s, as published figures do",
    )  # fmt: skip
    parser.add_argument(
        "--breakdown", action="store_true", help="also score each template and object frequency"
    )
    parser.add_argument(
        "--train_annotations", metavar="FILE", help="annotations to count objects in (--breakdown)"
    )
    options = parser.parse_args(arguments)
    if not all(0 <= threshold < 1 for threshold in options.thresholds):
        parser.error("--thresholds must be 0 or more and below 1")
    if min(options.topK) < 1:
        parser.error("--topK must be 1 or more")
    if options.train_annotations and not options.breakdown:
        parser.error("--train_annotations needs --breakdown")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read both files, score, print."""
    options = parse(arguments)
    queries = list(iter_queries(read_annotations(options.ground_truth_json)))
    truth = true_windows(queries)
    timed = ~np.isnan(truth).any(axis=1)
    if not timed.any():
        raise UserError(
            f"{options.ground_truth_json}: its {len(queries)} queries have no times, so "
            "predictions can't be scored; give annotations with ground truth"
        )
    predictions = read_predictions(options.model_prediction_json)
    if few := sum(len(prediction.windows) < WINDOWS for prediction in predictions):
        warn(f"{few} of {len(predictions)} predictions have fewer than {WINDOWS} windows")
    windows, answered = predicted_windows(queries, predictions, max(options.topK))
    empty = truth[:, 1] - truth[:, 0] <= EMPTY_SECONDS
    rows = np.flatnonzero(timed & answered & ~(empty & options.skip_empty_windows))
    if not len(rows):
        raise UserError(
            f"{options.model_prediction_json}: none of its {len(predictions)} predictions is for "
            f"a query to evaluate of {options.ground_truth_json}: of another split or version?"
        )
    protocol = Protocol(truth[rows], windows[rows], options.thresholds, options.topK)
    scores = evaluate(*protocol, listed=len(queries))
    strangers = {prediction[:3] for prediction in predictions} - {query[1:4] for query in queries}
    print(score_table(scores))
    print(scores.summary())
    print(
        f"queries without prediction: {np.count_nonzero(~answered)}; "
        f"without times: {np.count_nonzero(~timed)}; "
        f"with a window of at most 1/30 s: {np.count_nonzero(empty)} "
        f"({'left out' if options.skip_empty_windows else 'kept'}); "
        f"predictions without query: {len(strangers)}"
    )
    if options.breakdown:
        print_breakdowns([queries[row].query for row in rows], options.train_annotations, protocol)


if __name__ == "__main__":
    run_program(main)
