"""Predictions: the best spans of a model's scores, temporal NMS, and the challenge file.

Shapes: B queries of a batch, V video units, K candidate windows, k kept ones, R rows (queries).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.base.errors import UserError, warn
from utils.base.files import fingerprint, read_json, write_json
from utils.base.lazy import torch
from utils.data.records import Records
from utils.evaluation.metrics import iou

VERSION = "1.0"
CHALLENGE = "ego4d_nlq_challenge"
WINDOWS = 5  # what the challenge asks for, for each query
PADDING = -1e29  # logits below it are padding's, which the models set to -1e30
LEAST = 1e-9  # probability of a span, so that it has a logarithm


def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, k: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k pairs i <= j with the highest P(start = i) * P(end = j).

    A row of the (V, V) table of products can hold one of the k best only if its maximum is one of
    the k highest maxima: those k rows are formed, not the table.

    Args:
        start_logits, end_logits: (B, V), padding -1e30.

    Returns:
        (B, k, 2) int64 first and last unit, and (B, k) float32 scores, best first; of equal scores
        the smallest i comes first, then the smallest j. In a clip with fewer than k pairs the best
        one is repeated with score 0.
    """
    start_logits, end_logits = start_logits.detach().float(), end_logits.detach().float()
    padding = start_logits < PADDING  # (B, V)
    start, end = start_logits.softmax(dim=1), end_logits.softmax(dim=1)
    units = start.shape[1]
    best_end = end.flip(1).cummax(dim=1).values.flip(1)  # over all j >= i
    _, rows = _first_best((start * best_end).masked_fill(padding, -1), min(k, units))
    products = start.gather(1, rows)[..., None] * end[:, None]  # (B, k, V)
    columns = torch.arange(units, device=rows.device)
    no_span = (columns < rows[..., None]) | padding.gather(1, rows)[..., None] | padding[:, None]
    places = rows[..., None] * units + columns  # in the (V, V) table
    scores, places = _first_best(
        products.masked_fill(no_span, -1).flatten(1), min(k, units**2), places.flatten(1)
    )
    scores = torch.nn.functional.pad(scores, (0, k - scores.shape[1]), value=-1)
    places = torch.nn.functional.pad(places, (0, k - places.shape[1]))
    places = torch.where(scores < 0, places[:, :1], places)
    return torch.stack([places // units, places % units], dim=2), scores.clamp(min=0)


def _first_best(
    values: torch.Tensor, count: int, places: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest values (B, count) and their places; of equal values the smallest place first.

    `torch.topk` picks any of equal values. The bits of floats from 0 up are in the order of the
    floats, so a whole number of a value's bits, then its place, has no equals.
    """
    if places is None:
        places = torch.arange(values.shape[1], device=values.device).expand_as(values)
    low = (1 << 32) - 1
    bits = values.view(torch.int32).to(torch.int64)  # negative for values below 0
    keys = ((bits << 32) | (low - places)).topk(count, dim=1).values
    return (keys >> 32).to(torch.int32).view(torch.float32), low - (keys & low)


def suppress(
    windows: np.ndarray, scores: np.ndarray, threshold: float, k: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Temporal non-maximum suppression: the k best windows that overlap little.

    The best window is kept and those with an IoU above `threshold` with it are set aside, then the
    best of the rest, and so on. Where fewer than k are left, the best of those set aside follow.

    Args:
        windows: (B, K, 2) seconds, K >= k.
        scores: (B, K).

    Returns:
        (B, k, 2) windows and (B, k) scores.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    windows = np.take_along_axis(windows, order[..., None], axis=1)
    free = np.ones(scores.shape, dtype=bool)
    unused = free.copy()
    kept = np.empty((len(scores), k), dtype=np.int64)
    queries = np.arange(len(scores))
    for number in range(k):
        # The first of the best-ranked group that is left: free windows, then those set aside.
        best = np.argmax(free * 2 + unused, axis=1)
        kept[:, number] = best
        unused[queries, best] = False
        free &= unused & (iou(windows, windows[queries, best][:, None]) <= threshold)
    scores = np.take_along_axis(scores, np.take_along_axis(order, kept, axis=1), axis=1)
    return np.take_along_axis(windows, kept[..., None], axis=1), scores


class Prediction(NamedTuple):
    """What a challenge file says of one query."""

    clip_uid: str
    annotation_uid: str
    query_idx: int
    windows: list[list[float]]  # [start, end] in seconds, best first


# The names of a prediction's fields in the file.
RESULT_KEYS = ("clip_uid", "annotation_uid", "query_idx", "predicted_times")


def write_predictions(
    path: str | Path, records: Records, windows: np.ndarray, scores: np.ndarray | None = None
) -> None:
    """Write the challenge file of a split, as `write_results` does.

    Args:
        records: the queries.
        windows: (R, k, 2) seconds, best first.
        scores: (R, k), for the side file.
    """
    keys = zip(
        (records.clip_uids[clip] for clip in records.clip),
        (records.annotation_uids[annotation] for annotation in records.annotation),
        records.query_idx.tolist(),
        strict=True,
    )
    write_results(path, keys, windows, scores)


def write_results(
    path: str | Path,
    keys: Iterable[tuple[str, str, int]],
    windows: np.ndarray,
    scores: np.ndarray | None = None,
) -> None:
    """Write a challenge file, atomically; scores go to a file beside it (see `scores_file`).

    Without scores, those of an earlier file of this name are removed: they are of other windows.

    Args:
        keys: clip uid, annotation uid and query number of each of R queries.
        windows: (R, k, 2) seconds, best first.
        scores: (R, k).
    """
    predictions = [
        Prediction(*key, times) for key, times in zip(keys, windows.tolist(), strict=True)
    ]
    results = [dict(zip(RESULT_KEYS, prediction, strict=True)) for prediction in predictions]
    write_json(path, {"version": VERSION, "challenge": CHALLENGE, "results": results})
    if scores is None:
        scores_file(path).unlink(missing_ok=True)
    else:
        content = {"predictions": _fingerprint(predictions), "scores": scores.tolist()}
        write_json(scores_file(path), content)


def scores_file(path: str | Path) -> Path:
    """Where the scores of a challenge file lie, whose format has no place for them.

    `{"predictions": fingerprint of the challenge file's results, "scores": [[score x k] x R]}`
    with the results in the order of the challenge file.
    """
    path = Path(path)
    return path.with_name(f"{path.stem}_scores.json")


def read_scores(path: str | Path, predictions: list[Prediction]) -> list[list[float]] | None:
    """The scores beside challenge file `path`, read as `predictions`; None if there are none.

    Raises:
        UserError: the scores are of other predictions, or malformed.
    """
    file = scores_file(path)
    if not file.exists():
        return None
    content = read_json(file)
    scores = content.get("scores") if isinstance(content, dict) else None
    if not isinstance(scores, list) or not all(isinstance(some, list) for some in scores):
        raise UserError(f"{file}: must hold 'scores', a list for each query of {path}")
    if content.get("predictions") != _fingerprint(predictions):
        raise UserError(f"{file}: scores of other predictions than {path} has; delete or redo it")
    windows = [len(prediction.windows) for prediction in predictions]
    if list(map(len, scores)) != windows or not all(_is_time(x) for some in scores for x in some):
        raise UserError(f"{file}: must hold a number for each window of {path}")
    return scores


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a challenge file and check it; any number of windows a query is accepted.

    Another `version` or `challenge` is only warned of.

    Raises:
        UserError: names the file, the JSON path of the first fault, and how many more there are.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise UserError(f"{path}: not a challenge file: it has no list 'results'")
    for key, value in (("version", VERSION), ("challenge", CHALLENGE)):
        if content.get(key) != value:
            warn(f"{path}: {key} is {content.get(key)!r}, not {value!r}")
    faults = []
    seen: dict[tuple, int] = {}
    predictions = []
    for number, result in enumerate(content["results"]):
        fault = result_fault(result)
        if fault is None:
            key = (result["clip_uid"], result["annotation_uid"], result["query_idx"])
            earlier = seen.setdefault(key, number)
            if earlier != number:
                fault = f": the same query as results[{earlier}]"
            predictions.append(Prediction(*key, result["predicted_times"]))
        if fault is not None:
            faults.append(f"results[{number}]{fault}")
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise UserError(f"{path}: {faults[0]}{more}")
    return predictions


def _fingerprint(predictions: list[Prediction]) -> str:
    return fingerprint([tuple(prediction) for prediction in predictions])


def result_fault(result: Any) -> str | None:
    """What is wrong with an entry of a challenge file's `results`, after its JSON path, or None."""
    if not isinstance(result, dict):
        return ": must be an object"
    for key in ("clip_uid", "annotation_uid"):
        if not isinstance(result.get(key), str):
            return f".{key}: must be a text"
    query_idx = result.get("query_idx")
    if type(query_idx) is not int or query_idx < 0:
        return ".query_idx: must be a whole number, 0 or more"
    windows = result.get("predicted_times")
    if not isinstance(windows, list):
        return ".predicted_times: must be a list of [start, end]"
    for place, window in enumerate(windows):
        if not isinstance(window, list) or len(window) != 2 or not all(map(_is_time, window)):
            return f".predicted_times[{place}]: must be [start, end] in seconds"
    return None


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def spans_to_compare(
    start_logits: torch.Tensor, end_logits: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best spans of each clip (C, count, 2), and scores (C, count) to compare among clips.

    A span's probability alone says how it compares with its own clip's spans, for they sum to one
    even where nothing is found; its logits alone let clips win where all is high. The score is the
    mean of both, as logarithms, which finds more than either (see docs/search.md).

    Args:
        start_logits, end_logits: (C, V).
    """
    spans, probability = best_spans(start_logits, end_logits, count)
    height = start_logits.gather(1, spans[..., 0]) + end_logits.gather(1, spans[..., 1])
    return spans, (height.float() + probability.clamp(min=LEAST).log()) / 2
