"""Scoring a model's windows on a split: the right answers, and the figures."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import UserError
from utils.data.annotations import Query, iter_queries, read_annotations
from utils.data.records import Records
from utils.evaluation.metrics import Scores, evaluate, score_table
from utils.evaluation.predictions import Prediction, write_predictions
from utils.evaluation.submissions import accept, read_split


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
    times = {}
    there = 0
    for query in iter_queries(read_annotations(annotations)):
        there += 1
        start, end = query.query.get("clip_start_sec"), query.query.get("clip_end_sec")
        if start is not None and end is not None:
            times[query.clip_uid, query.annotation_uid, query.query_idx] = (start, end)
    if not times:
        return None
    keys = zip(
        [records.clip_uids[number] for number in records.clip],
        [records.annotation_uids[number] for number in records.annotation],
        records.query_idx.tolist(),
        strict=True,
    )
    seconds = np.array([times.get(key, (np.nan, np.nan)) for key in keys], dtype=np.float64)
    return GroundTruth(seconds.reshape(-1, 2), there)


def true_windows(queries: list[Query]) -> np.ndarray:
    """(R, 2) seconds, NaN for a query without times."""
    times = [(q.query.get("clip_start_sec"), q.query.get("clip_end_sec")) for q in queries]
    return np.array(times, dtype=np.float64).reshape(-1, 2)  # None becomes NaN


def predicted_windows(
    queries: list[Query], predictions: list[Prediction], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` windows of each query, (R, count, 2), NaN where there are fewer.

    Also (R,) whether a prediction answers the query.
    """
    by_query = {prediction[:3]: prediction.windows for prediction in predictions}
    found = [by_query.get(query[1:4]) for query in queries]
    none = [[np.nan, np.nan]] * count
    windows = np.array([(own[:count] + none)[:count] if own else none for own in found])
    return windows.reshape(-1, count, 2), np.array([own is not None for own in found], dtype=bool)


def score(truth: GroundTruth, windows: np.ndarray) -> Scores:
    """Figures of windows (R, P, 2) in seconds."""
    return evaluate(truth.seconds, windows, listed=truth.listed)


def report(scores: Scores, title: str) -> str:
    """The published table, and how many queries it is of."""
    return f"{score_table(scores, title)}\n{scores.summary()}"


def truth_to_train_by(records: Records, listed: int, annotations: str | None) -> GroundTruth:
    """The windows that checkpoints are chosen by; raises UserError if there are none."""
    truth = ground_truth(records, listed, annotations)
    if truth is None:
        raise UserError(
            f"{annotations or 'val.json'}: holds no times, and training needs a split with times "
            "to choose checkpoints by; give --eval_gt_json"
        )
    return truth


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
    write_predictions(file, records, windows, scores)
    truth = ground_truth(records, listed, annotations)
    if truth is None:
        print(f"{annotations or 'the split'} holds no times: predictions only, nothing to score")
    else:
        print(report(score(truth, windows), file.stem))
    print(f"{len(windows)} of {listed} queries predicted, written to {file}")
    if submitted:
        accept(file, read_split(annotations))
