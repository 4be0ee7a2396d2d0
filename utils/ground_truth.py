"""The right answers to a split's queries, from an annotation file or from the split itself."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.annotations import iter_queries, read_annotations
from utils.records import Records


class GroundTruth(NamedTuple):
    """Windows of a split's queries."""

    seconds: np.ndarray  # (R, 2), NaN where the annotation file has no such query
    listed: int  # queries there are to answer, evaluated or not


def split_ground_truth(
    records: Records, listed: int, annotations: str | Path | None
) -> GroundTruth | None:
    """The windows to score `records` against; None if there are no times to score with.

    `annotations` is an NLQ-schema file; without it the exact times of the prepared split serve.
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
    nowhere = (np.nan, np.nan)
    keys = zip(
        [records.clip_uids[i] for i in records.clip],
        [records.annotation_uids[i] for i in records.annotation],
        records.query_idx.tolist(),
        strict=True,
    )
    seconds = np.array([times.get(key, nowhere) for key in keys], dtype=np.float64)
    return GroundTruth(seconds.reshape(-1, 2), there)
