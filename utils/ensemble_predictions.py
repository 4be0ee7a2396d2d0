"""Merge challenge files of several models, or seeds, into one.

    python utils/ensemble_predictions.py --predictions vslnet.json reler.json --output both.json

A run folder or checkpoint instead of a file predicts every query of --split first.
A window counts by its score (of NAME_scores.json beside NAME.json) or, where a file has none, by
1 / rank. Added to it is, from each other file, the best score times IoU of a window that is the
same for temporal NMS, so that what several files agree on leads; then temporal NMS.
With --method clusters the files' first windows are clustered by their centres, as published with
GroundNLQ.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, quiet_libraries, run_program, warn
from utils.base.options import ArgumentParser
from utils.evaluation.clusters import merge_clusters
from utils.evaluation.metrics import iou
from utils.evaluation.predictions import (
    WINDOWS,
    read_predictions,
    read_scores,
    suppress,
    write_results,
)

QUERIES_AT_ONCE = 1024  # each needs the IoU of all its windows with one another
FILLER = -1.0  # score of a window that is there already: behind all others


def merge(
    windows: np.ndarray, scores: np.ndarray, weights: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows of several files.

    A file's order stands: a window scores no more than those before it (temporal NMS may have
    brought a worse one forward). In a query with fewer than five different windows the best one is
    repeated with score 0.

    Args:
        windows: (R, F, K, 2) seconds, K windows of each of F files, best first; NaN for none.
        scores: (R, F, K), 0 or more.
        weights: (F,) what a file's scores are multiplied with.
        threshold: IoU above which temporal NMS takes two windows for the same.

    Returns:
        (R, 5, 2) windows and (R, 5) scores, best first.
    """
    blocks = []
    for at in range(0, len(windows), QUERIES_AT_ONCE):
        block = slice(at, at + QUERIES_AT_ONCE)
        blocks.append(_merge_block(windows[block], scores[block], weights, threshold))
    merged, totals = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return merged, totals


def _merge_block(
    windows: np.ndarray, scores: np.ndarray, weights: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    queries, files, each = scores.shape
    exists = ~np.isnan(windows).any(axis=3).reshape(queries, -1)  # (R, N) of all files' windows
    scores = np.minimum.accumulate(scores, axis=2) * weights[:, None]
    scores = np.where(exists, scores.reshape(queries, -1), 0.0)
    windows = windows.reshape(queries, -1, 2)
    equal = (windows[:, :, None] == windows[:, None]).all(axis=3)  # (R, N, N)
    overlaps = iou(windows[:, :, None], windows[:, None])
    overlaps = np.where(equal, 1.0, np.where(overlaps > threshold, overlaps, 0.0))
    support = (overlaps * scores[:, None]).reshape(queries, -1, files, each).max(axis=3)
    same_file = np.repeat(np.eye(files, dtype=bool), each, axis=0)  # (N, F)
    totals = scores + np.where(same_file, 0.0, support).sum(axis=2)
    # Of equal windows the first stays; the best window fills the places of the others.
    repeated = np.tril(equal, -1).any(axis=2) | ~exists
    totals = np.where(repeated, FILLER, totals)
    best = windows[np.arange(queries), totals.argmax(axis=1), None]
    windows = np.where(repeated[..., None], best, windows)
    missing = max(WINDOWS - windows.shape[1], 0)
    windows = np.concatenate([windows, np.repeat(best, missing, axis=1)], axis=1)
    totals = np.pad(totals, ((0, 0), (0, missing)), constant_values=FILLER)
    windows, totals = suppress(windows, totals, threshold, totals.shape[1])
    # Temporal NMS does not set aside copies of an empty window: fillers go behind all others.
    order = np.argsort(totals == FILLER, axis=1, kind="stable")[:, :WINDOWS]
    windows = np.take_along_axis(windows, order[..., None], axis=1)
    return windows, np.maximum(np.take_along_axis(totals, order, axis=1), 0.0)


def read_files(paths: list[str]) -> tuple[list[tuple], np.ndarray, np.ndarray]:
    """Challenge files of the same queries, and their scores.

    Returns:
        keys of R queries in the order of the first file, windows (R, F, K, 2) with NaN for none,
        and scores (R, F, K): those beside the files, or 1 / rank for all if a file has none.

    Raises:
        UserError: files of different queries, a query without any window, or scores below 0.
    """
    files = [read_predictions(path) for path in paths]
    rows = {prediction.key: row for row, prediction in enumerate(files[0])}
    for path, file in zip(paths, files, strict=True):
        keys = {prediction.key for prediction in file}
        if differ := rows.keys() ^ keys:
            clip, annotation, number = min(differ)
            where = path if min(differ) in keys else paths[0]
            raise UserError(
                f"{len(differ)} queries are in only one of {paths[0]} and {path}, for one query "
                f"{number} of annotation {annotation} of clip {clip}, in {where}; "
                "an ensemble needs files of the same queries"
            )
    if not rows:
        raise UserError(f"{paths[0]}: has no queries, nothing to merge")
    file_scores = [read_scores(path, file) for path, file in zip(paths, files, strict=True)]
    most = max(len(prediction.windows) for file in files for prediction in file)
    windows = np.full((len(rows), len(files), most, 2), np.nan)
    scores = np.broadcast_to(1.0 / np.arange(1, most + 1), windows.shape[:3]).copy()
    for number, file in enumerate(files):
        for prediction in file:
            values = np.reshape(prediction.windows, (-1, 2))
            windows[rows[prediction.key], number, : len(values)] = values
    if empty := np.count_nonzero(np.isnan(windows).all(axis=(1, 2, 3))):
        raise UserError(f"{paths[0]}: {empty} queries have no window in any of the files")
    if unscored := [path for path, own in zip(paths, file_scores, strict=True) if own is None]:
        if len(unscored) < len(paths):
            warn(f"{', '.join(unscored)}: no scores beside it, so all files count by rank")
        return list(rows), windows, scores
    for number, (path, file) in enumerate(zip(paths, files, strict=True)):
        for prediction, values in zip(file, file_scores[number], strict=True):
            if min(values, default=0) < 0:
                raise UserError(
                    f"{path}: has scores below 0; an ensemble needs 0 or more, as P(window)"
                )
            scores[rows[prediction.key], number, : len(values)] = values
    return list(rows), windows, scores


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--predictions", required=True, nargs="+", metavar="FILE|RUN",
        help="challenge files, or run folders or checkpoints, which predict first",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="what runs predict"
    )
    parser.add_argument(
        "--data_root", metavar="DIR", help="where runs find data (default: where they were trained)"
    )
    parser.add_argument(
        "--method", choices=("agreement", "clusters"), default="agreement", help="how to merge"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="challenge file to write")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="of each file (default: all 1)"
    )
    parser.add_argument(
        "--nms_threshold", type=float, default=0.5, metavar="T",
        help="IoU above which two windows are the same",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    options.weights = options.weights or [1.0] * len(options.predictions)
    if len(options.weights) != len(options.predictions):
        parser.error(f"{len(options.weights)} --weights for {len(options.predictions)} files")
    if not all(0 < weight < np.inf for weight in options.weights):
        parser.error("--weights must be above 0")
    if not 0 <= options.nms_threshold <= 1:
        parser.error("--nms_threshold must be from 0 to 1")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Read the files, merge them, write one with scores beside it."""
    options = parse(arguments)
    files = []
    for path in options.predictions:
        if Path(path).is_dir() or path.endswith(".t7"):
            from utils.search.trained_runs import predict_run  # brings PyTorch

            quiet_libraries()
            path = str(predict_run(path, options.split, options.data_root))
        files.append(path)
    queries, windows, scores = read_files(files)
    weights = np.array(options.weights)
    if options.method == "clusters":
        merged, totals = merge_clusters(windows, scores * weights[:, None])
    else:
        merged, totals = merge(windows, scores, weights, options.nms_threshold)
    write_results(options.output, queries, merged, totals)
    firsts, best = windows[:, :, 0], merged[:, None, 0]
    same = (iou(firsts, best) > options.nms_threshold) | (firsts == best).all(axis=2)  # (R, F)
    for path, share in zip(files, same.mean(axis=0), strict=True):
        print(f"{path}: its first window is the ensemble's for {100 * share:.1f} % of the queries")
    print(f"{len(queries)} queries of {len(files)} files merged, written to {options.output}")


if __name__ == "__main__":
    run_program(main)
