"""Score a challenge file against ground truth: R@k IoU=t, mIoU, and how many queries counted.

    python utils/evaluate_ego4d_nlq.py --ground_truth_json data/nlq_val.json \\
        --model_prediction_json vslnet_700_val_result.json --thresholds 0.3 0.5 --topK 1 3 5

With intervals, by window length and position, beside another model: utils/analyse_predictions.py.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser, within
from utils.data.spans import EMPTY_SECONDS
from utils.evaluation.analysis import by_object, by_template
from utils.evaluation.metrics import breakdown_table, evaluate, score_table
from utils.evaluation.scoring import read_truth, read_windows


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ground_truth_json", required=True, metavar="FILE", help="annotations")
    add("--model_prediction_json", required=True, metavar="FILE", help="challenge file to score")
    add(
        "--thresholds", type=within(float, "[0, 1)"), nargs="+", default=[0.3, 0.5], metavar="T",
        help="IoU that a window must exceed",
    )  # fmt: skip
    add(
        "--topK", type=within(int, "[1, 1e9]"), nargs="+", default=[1, 3, 5], metavar="K",
        help="windows that may hit",
    )  # fmt: skip
    add(
        "--skip_empty_windows", action="store_true",
        help="drop ground truth of at most 1/30 s, as published figures do",
    )  # fmt: skip
    add("--breakdown", action="store_true", help="also score each template and object frequency")
    add("--train_annotations", metavar="FILE", help="annotations to count objects in (--breakdown)")
    options = parser.parse_args(arguments)
    if options.train_annotations and not options.breakdown:
        parser.error("--train_annotations needs --breakdown")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    _, queries, truth = read_truth(options.ground_truth_json)
    windows, answered, unknown = read_windows(
        options.model_prediction_json, queries, max(options.topK)
    )
    timed = ~np.isnan(truth).any(axis=1)
    empty = truth[:, 1] - truth[:, 0] <= EMPTY_SECONDS
    evaluated = timed & answered & ~(empty & options.skip_empty_windows)
    if not evaluated.any():
        raise UserError(
            f"{options.model_prediction_json}: no prediction is for a query to evaluate"
        )
    protocol = options.thresholds, options.topK
    scores = evaluate(truth[evaluated], windows[evaluated], *protocol, listed=len(queries))
    print(score_table(scores))
    print(scores.summary())
    print(
        f"queries without prediction: {np.count_nonzero(~answered)}; "
        f"without times: {np.count_nonzero(~timed)}; "
        f"with a window of at most 1/30 s: {np.count_nonzero(empty)} "
        f"({'left out' if options.skip_empty_windows else 'kept'}); "
        f"predictions without query: {unknown}"
    )
    if not options.breakdown:
        return
    by_frequency = by_object(queries, options.ground_truth_json, options.train_annotations)
    for grouping in (by_template(queries), by_frequency):
        groups = {
            name: evaluate(truth[rows], windows[rows], *protocol)
            for name, rows in grouping.groups(evaluated).items()
        }
        if groups:
            print(f"\n{breakdown_table(groups, grouping.title)}")
        if remark := grouping.ungrouped(evaluated):
            print(remark)


if __name__ == "__main__":
    run_program(main)
