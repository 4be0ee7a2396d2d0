"""Score predicted windows on a split: read true and predicted windows, compute figures.

Shapes: R rows (queries), K predicted windows per query, best first.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import UserError, warn
from utils.data.annotations import Annotations, Query, iter_queries, read_annotations
from utils.data.records import Records
from utils.evaluation.metrics import Scores, score_table
from utils.evaluation.predictions import WINDOWS, read_predictions

NO_WINDOW = (np.nan, np.nan)


class GroundTruth(NamedTuple):
    """The true windows of a split's queries."""

    seconds: np.ndarray  # (R, 2), NaN if the annotation file has no such query
    listed: int  # queries to answer, evaluated or not


def ground_truth(
    records: Records, listed: int, annotations: str | Path | None
) -> GroundTruth | None:
    """The true windows of `records`, None if there are no times.

    They are read from `annotations`, a file in the NLQ schema, or else from the prepared split,
    which lists `listed` queries. Raises UserError if the annotations are of other queries.
    """
    if annotations is None:
        has_times = (records.exact[:, 1] > 0).any()
        return GroundTruth(records.exact, listed) if has_times else None
    queries = list(iter_queries(read_annotations(annotations)))
    windows = {query.key: query.window for query in queries if query.window}
    if not windows:
        return None
    seconds = np.array([windows.get(key, NO_WINDOW) for key in records.keys], dtype=np.float64)
    if np.isnan(seconds).all():
        raise UserError(
            f"{annotations}: has windows of none of the split's {len(records)} queries: of another "
            "split or version?"
        )
    return GroundTruth(seconds.reshape(-1, 2), len(queries))


def true_windows(queries: list[Query]) -> np.ndarray:
    """(R, 2) seconds, NaN for a query without times."""
    windows = [query.window or NO_WINDOW for query in queries]
    return np.array(windows, dtype=np.float64).reshape(-1, 2)


def read_truth(path: str | Path) -> tuple[Annotations, list[Query], np.ndarray]:
    """Read annotations with ground truth, their queries and the queries' windows (R, 2).

    Raises:
        UserError: the file is missing or invalid, or no query has times.
    """
    annotations = read_annotations(path)
    queries = list(iter_queries(annotations))
    truth = true_windows(queries)
    if np.isnan(truth).all():
        raise UserError(
            f"{path}: its {len(queries)} queries have no times, so predictions can't be scored; "
            "give annotations with ground truth"
        )
    _warn_of_reversed(truth, path)
    return annotations, queries, truth


class PredictedWindows(NamedTuple):
    """The predictions of a challenge file for a list of queries."""

    windows: np.ndarray  # (R, K, 2) seconds, padded with NaN
    answered: np.ndarray  # (R,) bool: the query has a prediction
    unknown: int  # predictions for other queries


def read_windows(path: str | Path, queries: list[Query], count: int) -> PredictedWindows:
    """Read the first `count` windows of each query from a challenge file.

    Raises:
        UserError: the file is missing or invalid, or no prediction is for any of the queries.
    """
    predictions = read_predictions(path)
    by_key = {prediction.key: prediction.windows for prediction in predictions}
    answers = [by_key.get(query.key) for query in queries]
    answered = np.array([answer is not None for answer in answers], dtype=bool)
    if not answered.any():
        raise UserError(
            f"{path}: none of its {len(predictions)} predictions is for one of the {len(queries)} "
            "queries of the annotations: of another split or version?"
        )
    if short := sum(len(prediction.windows) < WINDOWS for prediction in predictions):
        warn(f"{path}: {short} of {len(predictions)} predictions have fewer than {WINDOWS} windows")
    padding = [NO_WINDOW] * count
    windows = np.array([((answer or []) + padding)[:count] for answer in answers])
    _warn_of_reversed(windows, path)
    return PredictedWindows(windows, answered, len(predictions) - int(answered.sum()))


def _warn_of_reversed(windows: np.ndarray, path: str | Path) -> None:
    if count := np.count_nonzero(windows[..., 1] < windows[..., 0]):
        warn(f"{path}: {count} windows end before they start; they overlap nothing")


def report(scores: Scores, title: str) -> str:
    """The published table, and the number of queries."""
    return f"{score_table(scores, title)}\n{scores.summary()}"
