"""Merge challenge files of several models, or seeds, into one.

    python utils/ensemble_predictions.py --predictions vslnet.json reler.json --output both.json

A run folder or checkpoint in the place of a file predicts first: every query of --split.
A window counts by its score (of NAME_scores.json beside NAME.json) or, where a file has none, by
1 / rank. To its own score comes, from each other file, the best score times IoU of a window that
is the same for temporal NMS, so that what several files agree on leads; then temporal NMS.
With --method clusters the files' first windows are clustered by their centres, as published with
GroundNLQ.
"""

import argparse
import sys
from itertools import chain
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
    Prediction,
    read_predictions,
    read_scores,
    suppress,
    write_results,
)

QUERIES_AT_ONCE = 1024  # each needs the IoU of all its windows with one another
NO_SCORE = -1.0  # behind all others


def pad(rows: list[list], shape: tuple[int, ...]) -> np.ndarray:
    """Lists of up to `shape[0]` entries as one array (R, *shape), NaN behind their ends."""
    lengths = np.array([len(row) for row in rows])
    values = np.array([value for row in rows for value in row], dtype=np.float64)
    padded = np.full((len(rows), *shape), np.nan)
    padded[np.arange(shape[0]) < lengths[:, None]] = values.reshape(-1, *shape[1:])
    return padded


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
    blocks = [
        _merge_some(windows[at : at + QUERIES_AT_ONCE], scores[at : at + QUERIES_AT_ONCE],
                    weights, threshold)
        for at in range(0, len(windows), QUERIES_AT_ONCE)
    ]  # fmt: skip
    merged, totals = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return merged, totals


def _merge_some(
    windows: np.ndarray, scores: np.ndarray, weights: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    queries, files, each = scores.shape
    there = ~np.isnan(windows).any(axis=3).reshape(queries, -1)  # (R, N) of all files' windows
    scores = np.minimum.accumulate(scores, axis=2) * weights[:, None]
    scores = np.where(there, scores.reshape(queries, -1), 0.0)
    windows = windows.reshape(queries, -1, 2)
    overlaps = iou(windows[:, :, None], windows[:, None])  # (R, N, N)
    equal = (windows[:, :, None] == windows[:, None]).all(axis=3)
    overlaps = np.where(equal, 1.0, np.where(overlaps > threshold, overlaps, 0.0))
    support = (overlaps * scores[:, None]).reshape(queries, -1, files, each).max(axis=3)
    own = np.repeat(np.eye(files, dtype=bool), each, axis=0)  # (N, F)
    total = scores + np.where(own, 0.0, support).sum(axis=2)
    # Of equal windows one stays; the others make place for the best one, said to be a filler.
    repeated = np.tril(equal, -1).any(axis=2) | ~there
    total = np.where(repeated, NO_SCORE, total)
    best = windows[np.arange(queries), total.argmax(axis=1)]
    windows = np.where(repeated[..., None], best[:, None], windows)
    missing = max(WINDOWS - windows.shape[1], 0)
    windows = np.concatenate([windows, np.repeat(best[:, None], missing, axis=1)], axis=1)
    total = np.pad(total, ((0, 0), (0, missing)), constant_values=NO_SCORE)
    merged, total = suppress(windows, total, threshold, total.shape[1])
    # Temporal NMS does not set aside copies of an empty window: fillers go behind all others.
    order = np.argsort(total == NO_SCORE, axis=1, kind="stable")[:, :WINDOWS]
    total = np.take_along_axis(total, order, axis=1)
    return np.take_along_axis(merged, order[..., None], axis=1), np.maximum(total, 0.0)


def read_files(paths: list[str]) -> tuple[list[tuple], np.ndarray, np.ndarray]:
    """Challenge files of the same queries, and their scores.

    Returns:
        R queries (clip uid, annotation uid, number) in the order of the first file, windows
        (R, F, K, 2) with NaN for none, and scores (R, F, K).

    Raises:
        UserError: files of different queries, or a query without any window.
    """
    files = [read_predictions(path) for path in paths]
    queries = [prediction[:3] for prediction in files[0]]
    places = [{prediction[:3]: place for place, prediction in enumerate(own)} for own in files]
    for path, own in zip(paths[1:], places[1:], strict=True):
        if differ := places[0].keys() ^ own.keys():
            clip, annotation, number = min(differ)
            where = path if (clip, annotation, number) in own else paths[0]
            raise UserError(
                f"{len(differ)} queries are in only one of {paths[0]} and {path}, for one query "
                f"{number} of annotation {annotation} of clip {clip}, in {where}; "
                "an ensemble needs files of the same queries"
            )
    if not queries:
        raise UserError(f"{paths[0]}: has no queries, nothing to merge")
    orders = [[own[query] for query in queries] for own in places]
    width = max(len(prediction.windows) for own in files for prediction in own)
    windows = np.stack(
        [pad([own[i].windows for i in order], (width, 2))
         for own, order in zip(files, orders, strict=True)], axis=1
    )  # fmt: skip
    if empty := np.count_nonzero(np.isnan(windows).all(axis=(1, 2, 3))):
        raise UserError(f"{paths[0]}: {empty} queries have no window in any of the files")
    return queries, windows, _read_scores(paths, files, orders, width)


def _read_scores(
    paths: list[str], files: list[list[Prediction]], orders: list[list[int]], width: int
) -> np.ndarray:
    """(R, F, K) scores beside the files; 1 / rank for all if a file has none."""
    scores = [read_scores(path, own) for path, own in zip(paths, files, strict=True)]
    if lacking := [path for path, own in zip(paths, scores, strict=True) if own is None]:
        if len(lacking) < len(paths):
            warn(f"{', '.join(lacking)}: no scores beside it, so all files count by rank")
        ranks = 1.0 / np.arange(1, width + 1)
        return np.broadcast_to(ranks, (len(orders[0]), len(paths), width))
    if low := [
        path for path, own in zip(paths, scores, strict=True) if min(chain(*own), default=0) < 0
    ]:
        raise UserError(f"{low[0]}: has scores below 0; an ensemble needs 0 or more, as P(window)")
    return np.stack(
        [pad([own[i] for i in order], (width,)) for own, order in zip(scores, orders, strict=True)],
        axis=1,
    )


def _is_run(path: str) -> bool:
    return Path(path).is_dir() or path.endswith(".t7")


def _predicted(run: str, split: str, data_root: str | None) -> str:
    from utils.search.trained_runs import predict_run  # slow to import

    quiet_libraries()
    return str(predict_run(run, split, data_root))


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
    files = [
        _predicted(path, options.split, options.data_root) if _is_run(path) else path
        for path in options.predictions
    ]
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
    print(f"{len(queries)} queries of {len(weights)} files merged, written to {options.output}")


if __name__ == "__main__":
    run_program(main)
