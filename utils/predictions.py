"""Predictions: the best spans of two softmaxes, temporal NMS, and the challenge file."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.errors import UserError
from utils.files import read_json, write_json
from utils.metrics import window_iou
from utils.records import Records

VERSION, CHALLENGE = "1.0", "ego4d_nlq_challenge"
PAIRS_AT_ONCE = 1 << 24


def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, k: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k likeliest spans: (B, V) logits, padding at -1e30 -> (B, k, 2) units, (B, k) scores.

    A span's score is the product of the two softmaxes at its first and last unit. Where a clip has
    fewer than k spans the best one fills up.
    """
    batch, units = start_logits.shape
    spans = torch.empty(batch, k, 2, dtype=torch.int64, device=start_logits.device)
    scores = torch.empty(batch, k, device=start_logits.device)
    chunk = max(1, PAIRS_AT_ONCE // units**2)
    for at in range(0, batch, chunk):
        rows = slice(at, at + chunk)
        start = start_logits[rows].float().softmax(1)
        end = end_logits[rows].float().softmax(1)
        joint = torch.triu(start[:, :, None] * end[:, None]).flatten(1)
        best, place = joint.topk(min(k, units**2), dim=1)
        if best.shape[1] < k:
            missing = k - best.shape[1]
            best = torch.cat((best, best.new_zeros(len(best), missing)), 1)
            place = torch.cat((place, place[:, :1].expand(-1, missing)), 1)
        place = torch.where(best > 0, place, place[:, :1])
        spans[rows] = torch.stack((place // units, place % units), 2)
        scores[rows] = best
    return spans, scores


def suppress(
    windows: np.ndarray, scores: np.ndarray, threshold: float, k: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Temporal NMS: (B, K, 2) windows in seconds, (B, K) scores -> the k best that differ.

    A window is passed over if its IoU with a better one that was kept is above the threshold.
    Where fewer than k remain the best of those passed over fill up.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    windows = np.take_along_axis(windows, order[..., None], 1)
    scores = np.take_along_axis(scores, order, 1)
    count = windows.shape[1]
    passed_over = np.zeros(scores.shape, bool)
    for place in range(count - 1):
        keeps = ~passed_over[:, place]
        overlaps = window_iou(windows[:, place + 1 :], windows[:, place : place + 1])
        passed_over[:, place + 1 :] |= keeps[:, None] & (overlaps > threshold)
    # Kept ones first, then those passed over, both by score.
    chosen = np.argsort(passed_over, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(windows, chosen[..., None], 1), np.take_along_axis(scores, chosen, 1)


def write_predictions(path: str | Path, records: Records, windows: np.ndarray) -> None:
    """Write the challenge file: `windows` (R, 5, 2) in seconds, one row per query of `records`."""
    columns = (records.clip.tolist(), records.annotation.tolist(), records.query_idx.tolist())
    results = [
        {
            "clip_uid": records.clip_uids[clip],
            "annotation_uid": records.annotation_uids[annotation],
            "query_idx": query_idx,
            "predicted_times": times,
        }
        for clip, annotation, query_idx, times in zip(*columns, windows.tolist(), strict=True)
    ]
    write_json(path, {"version": VERSION, "challenge": CHALLENGE, "results": results})


class Prediction(NamedTuple):
    """The windows predicted for one query."""

    clip_uid: str
    annotation_uid: str
    query_idx: int
    times: np.ndarray  # (P, 2) seconds, best first


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a challenge file; a `UserError` names the first fault and counts the others."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise UserError(f"{path}: not a challenge file, it has no list 'results'")
    found, faults = [], []
    for number, result in enumerate(content["results"]):
        fault = _result_fault(result)
        if fault:
            faults.append(f"results[{number}]{fault}")
            continue
        times = np.array(result["predicted_times"], dtype=np.float64)
        found.append(
            Prediction(result["clip_uid"], result["annotation_uid"], result["query_idx"], times)
        )
    keys = {prediction[:3] for prediction in found}
    if len(keys) < len(found):
        seen: set = set()
        twice = next(p for p in found if p[:3] in seen or seen.add(p[:3]))
        faults.append(f"query {twice.query_idx} of {twice.annotation_uid} is answered twice")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{path}: {faults[0]}{more}; not a valid challenge file")
    return found


def _result_fault(result: Any) -> str | None:
    if not isinstance(result, dict):
        return " is not an object"
    for key, kind in (("clip_uid", str), ("annotation_uid", str), ("query_idx", int)):
        if not isinstance(result.get(key), kind) or isinstance(result[key], bool):
            return f".{key} is missing or not {'text' if kind is str else 'a whole number'}"
    times = result.get("predicted_times")
    if not isinstance(times, list) or not times:
        return ".predicted_times is missing or empty"
    for place, window in enumerate(times):
        if not isinstance(window, list) or len(window) != 2 or not all(map(_is_time, window)):
            return f".predicted_times[{place}] is not a pair of times in seconds"
    return None


def _is_time(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    )
