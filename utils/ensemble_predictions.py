"""Merge challenge files of several models, or seeds, into one.

    python utils/ensemble_predictions.py --predictions vslnet.json reler.json --output both.json

Instead of a file, a run folder or checkpoint may be given, which first predicts --split.
Windows are ranked by their scores (of NAME_scores.json beside NAME.json), or by 1 / rank if a file
has none. To the score of a window each other file adds its best score times IoU of a window that
temporal NMS takes for the same; then temporal NMS. With --method clusters the first windows of the
files are clustered by their centres, as published with GroundNLQ.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, run_program, warn
from utils.base.options import ArgumentParser, within
from utils.data.annotations import QueryKey, key_in_words
from utils.evaluation.ensembles import by_agreement, by_clusters, merge
from utils.evaluation.metrics import iou
from utils.evaluation.predictions import read_predictions, read_scores, write_results


def read_files(paths: list[str]) -> tuple[list[QueryKey], np.ndarray, np.ndarray]:
    """Read challenge files of the same queries, and their scores.

    Returns:
        keys of R queries in the order of the first file, windows (R, F, K, 2) padded with NaN, and
        scores (R, F, K): those beside the files, or 1 / rank if a file has none.

    Raises:
        UserError: files of different queries, a query without any window, or scores below 0.
    """
    files = [read_predictions(path) for path in paths]
    rows = {prediction.key: row for row, prediction in enumerate(files[0])}
    if not rows:
        raise UserError(f"{paths[0]}: has no queries, nothing to merge")
    for path, file in zip(paths, files, strict=True):
        if different := rows.keys() ^ {prediction.key for prediction in file}:
            raise UserError(
                f"{len(different)} queries are in only one of {paths[0]} and {path} (for one "
                f"{key_in_words(min(different))}); an ensemble needs files of the same queries"
            )
    count = max(len(prediction.windows) for file in files for prediction in file)
    windows = np.full((len(rows), len(files), count, 2), np.nan)
    scores = np.full(windows.shape[:3], 1.0 / np.arange(1, count + 1))
    all_scores = [read_scores(path, file) for path, file in zip(paths, files, strict=True)]
    unscored = [path for path, values in zip(paths, all_scores, strict=True) if values is None]
    if 0 < len(unscored) < len(paths):
        warn(f"{', '.join(unscored)}: no scores beside it, so all files count by rank")
    for number, (file, file_scores) in enumerate(zip(files, all_scores, strict=True)):
        for index, prediction in enumerate(file):
            place = rows[prediction.key], number, slice(len(prediction.windows))
            windows[place] = np.reshape(prediction.windows, (-1, 2))
            if not unscored:
                scores[place] = file_scores[index]
    if scores.min(initial=0) < 0:
        raise UserError(f"{', '.join(paths)}: scores below 0; an ensemble needs 0 or more")
    if empty := np.count_nonzero(np.isnan(windows).all(axis=(1, 2, 3))):
        raise UserError(f"{paths[0]}: {empty} queries have no window in any of the files")
    return list(rows), windows, scores


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--predictions", required=True, nargs="+", metavar="FILE|RUN",
        help="challenge files, or run folders or checkpoints, which predict first",
    )  # fmt: skip
    add("--split", choices=("val", "test"), default="test", help="what runs predict")
    add(
        "--data_root", metavar="DIR", help="where runs find data (default: where they were trained)"
    )
    add("--method", choices=("agreement", "clusters"), default="agreement", help="how to merge")
    add("--output", required=True, metavar="FILE", help="challenge file to write")
    add(
        "--weights", type=within(float, "(0, inf)"), nargs="+", metavar="W",
        help="of each file (default: all 1)",
    )  # fmt: skip
    add(
        "--nms_threshold", type=within(float, "[0, 1]"), default=0.5, metavar="T",
        help="IoU above which two windows are the same",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    options.weights = options.weights or [1.0] * len(options.predictions)
    if len(options.weights) != len(options.predictions):
        parser.error(f"{len(options.weights)} --weights for {len(options.predictions)} files")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    files = []
    for path in options.predictions:
        if Path(path).is_dir() or path.endswith(".t7"):
            from utils.search.trained_runs import predict_run  # brings PyTorch

            path = str(predict_run(path, options.split, options.data_root))
        files.append(path)
    queries, windows, scores = read_files(files)
    methods = {
        "agreement": partial(by_agreement, threshold=options.nms_threshold),
        "clusters": by_clusters,
    }
    weighted = scores * np.array(options.weights)[:, None]
    merged, totals = merge(windows, weighted, methods[options.method])
    write_results(options.output, queries, merged, totals)
    firsts, best = windows[:, :, 0], merged[:, None, 0]
    agrees = (iou(firsts, best) > options.nms_threshold) | (firsts == best).all(axis=2)  # (R, F)
    for path, share in zip(files, agrees.mean(axis=0), strict=True):
        print(f"{path}: its first window is the ensemble's for {100 * share:.1f} % of the queries")
    print(f"{len(queries)} queries of {len(files)} files merged, written to {options.output}")


if __name__ == "__main__":
    run_program(main)
