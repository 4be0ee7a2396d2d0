"""Scoring windows on a split: the right answers, the predicted ones, and the figures.

Shapes: R rows (queries), K predicted windows a query, best first.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import UserError, warn
from utils.data.annotations import Annotations, Query, iter_queries, read_annotations
from utils.data.records import Records
from utils.evaluation.metrics import Scores, evaluate, score_table
from utils.evaluation.predictions import WINDOWS, read_predictions, write_results
from utils.evaluation.submissions import accept, read_challenge_split

NO_WINDOW = (np.nan, np.nan)


class GroundTruth(NamedTuple):
    """The right windows of a split's queries."""

    seconds: np.ndarray  # (R, 2), NaN where the annotation file has no such query
    listed: int  # queries there are to answer, evaluated or not


def ground_truth(
    records: Records, listed: int, annotations: str | Path | None
) -> GroundTruth | None:
    """The windows to score `records` against; None if there are no times to score with.

    `annotations` is an NLQ-schema file; without it the exact times of the prepared split serve,
    `listed` queries before any were left out.
    """
    if annotations is None:
        known = records.exact[:, 1] > 0
        return GroundTruth(records.exact, listed) if known.any() else None
    queries = list(iter_queries(read_annotations(annotations)))
    windows = {query.key: query.window for query in queries if query.window}
    if not windows:
        return None
    seconds = np.array([windows.get(key, NO_WINDOW) for key in records.keys], dtype=np.float64)
    return GroundTruth(seconds.reshape(-1, 2), len(queries))


def true_windows(queries: list[Query]) -> np.ndarray:
    """(R, 2) seconds, NaN for a query without times."""
    windows = [query.window or NO_WINDOW for query in queries]
    return np.array(windows, dtype=np.float64).reshape(-1, 2)


def read_truth(path: str | Path) -> tuple[Annotations, list[Query], np.ndarray]:
    """Annotations to score predictions against, their queries and the queries' windows (R, 2).

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
    """What a challenge file says of a list of queries."""

    windows: np.ndarray  # (R, K, 2) seconds, NaN where there are fewer
    answered: np.ndarray  # (R,) whether a prediction is for the query
    unknown: int  # predictions for none of the queries


def read_windows(path: str | Path, queries: list[Query], count: int) -> PredictedWindows:
    """The first `count` windows that a challenge file gives to each query.

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
    if few := sum(len(prediction.windows) < WINDOWS for prediction in predictions):
        warn(f"{path}: {few} of {len(predictions)} predictions have fewer than {WINDOWS} windows")
    padding = [NO_WINDOW] * count
    windows = np.array([((answer or []) + padding)[:count] for answer in answers])
    _warn_of_reversed(windows, path)
    return PredictedWindows(windows, answered, len(predictions) - int(answered.sum()))


def _warn_of_reversed(windows: np.ndarray, path: str | Path) -> None:
    if count := np.count_nonzero(windows[..., 1] < windows[..., 0]):
        warn(f"{path}: {count} windows end before they start; they overlap nothing")


def score(truth: GroundTruth, windows: np.ndarray) -> Scores:
    """Figures of windows (R, K, 2) in seconds."""
    return evaluate(truth.seconds, windows, listed=truth.listed)


def report(scores: Scores, title: str) -> str:
    """The published table, and how many queries it is of."""
    return f"{score_table(scores, title)}\n{scores.summary()}"


def publish(
    file: Path,
    records: Records,
    windows: np.ndarray,
    scores: np.ndarray,
    listed: int,
    annotations: str | None,
    submitted: bool = False,
) -> None:
    """Write a split's challenge file with its scores, and print figures where they can be known.

    `submitted`: raise UserError if the challenge server would not take it for the `annotations`.
    """
    write_results(file, records.keys, windows, scores)
    truth = ground_truth(records, listed, annotations)
    if truth is None:
        print(f"{annotations or 'the split'} holds no times: predictions only, nothing to score")
    else:
        print(report(score(truth, windows), file.stem))
    print(f"{len(windows)} of {listed} queries predicted, written to {file}")
    if submitted:
        accept(file, read_challenge_split(annotations))
