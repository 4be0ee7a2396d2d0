"""Predictions: temporal NMS, and the challenge file with its scores.

Shapes: B queries of a batch, K candidate windows, k selected ones, R rows (queries).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct, field
from msgspec.structs import astuple

from utils.base.errors import UserError, warn
from utils.base.files import fingerprint, read_json, write_json
from utils.data.annotations import QueryKey
from utils.evaluation.metrics import iou

VERSION = "1.0"
CHALLENGE = "ego4d_nlq_challenge"
WINDOWS = 5  # of each query, in the challenge


class Prediction(Struct, frozen=True):
    """An entry of a challenge file: the windows predicted for a query."""

    clip_uid: str
    annotation_uid: str
    query_idx: Annotated[int, Meta(ge=0, lt=2**31)]
    windows: list[tuple[float, float]] = field(name="predicted_times")  # seconds, best first

    @property
    def key(self) -> QueryKey:
        return self.clip_uid, self.annotation_uid, self.query_idx


class ChallengeFile(Struct, kw_only=True):
    version: Any = None
    challenge: Any = None
    results: list[Prediction]


class ScoresFile(Struct):
    """Scores beside a challenge file, whose format has no field for them."""

    predictions: str  # fingerprint of the challenge file's results
    scores: list[list[float]]  # of each window, in the order of the challenge file


def suppress(
    windows: np.ndarray, scores: np.ndarray, threshold: float, k: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Temporal non-maximum suppression: the k best windows that overlap little.

    Repeatedly selects the best window, and sets aside those whose IoU with it is above `threshold`.
    If fewer than k are selected, the best of those set aside follow.

    Args:
        windows: (B, K, 2) seconds, K >= k.
        scores: (B, K).

    Returns:
        (B, k, 2) windows and (B, k) scores.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    windows = np.take_along_axis(windows, order[..., None], axis=1)
    is_free = np.ones(scores.shape, dtype=bool)
    is_unused = is_free.copy()
    selected = np.empty((len(scores), k), dtype=np.int64)
    queries = np.arange(len(scores))
    for rank in range(k):
        # The first free window, or else the first one set aside.
        best = np.argmax(is_free * 2 + is_unused, axis=1)
        selected[:, rank] = best
        is_unused[queries, best] = False
        is_free &= is_unused & (iou(windows, windows[queries, best][:, None]) <= threshold)
    scores = np.take_along_axis(scores, np.take_along_axis(order, selected, axis=1), axis=1)
    return np.take_along_axis(windows, selected[..., None], axis=1), scores


def write_results(
    path: str | Path,
    keys: Iterable[QueryKey],
    windows: np.ndarray,
    scores: np.ndarray | None = None,
) -> None:
    """Write a challenge file atomically, and scores to a file beside it (see `scores_file`).

    Without scores, an existing file of scores is removed: it belongs to other windows.

    Args:
        keys: of R queries.
        windows: (R, k, 2) seconds, best first.
        scores: (R, k).
    """
    results = [Prediction(*key, times) for key, times in zip(keys, windows.tolist(), strict=True)]
    write_json(path, ChallengeFile(version=VERSION, challenge=CHALLENGE, results=results))
    if scores is None:
        scores_file(path).unlink(missing_ok=True)
    else:
        write_json(scores_file(path), ScoresFile(_fingerprint(results), scores.tolist()))


def scores_file(path: str | Path) -> Path:
    """The file of a challenge file's scores: `NAME_scores.json` beside `NAME.json`."""
    path = Path(path)
    return path.with_name(f"{path.stem}_scores.json")


def read_scores(path: str | Path, predictions: list[Prediction]) -> list[list[float]] | None:
    """The scores of `predictions`, read from the challenge file `path`; None if there are none.

    Raises:
        UserError: the scores are of other predictions, or the file is invalid.
    """
    file = scores_file(path)
    if not file.exists():
        return None
    content = read_json(file, ScoresFile)
    counts = [len(prediction.windows) for prediction in predictions]
    if content.predictions != _fingerprint(predictions) or [*map(len, content.scores)] != counts:
        raise UserError(f"{file}: scores of other predictions than {path} has; delete or redo it")
    return content.scores


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a challenge file, with any number of windows per query.

    Warns of another `version` or `challenge`.

    Raises:
        UserError: the file is missing or invalid, or answers a query twice; the message names the
            file and the JSON path.
    """
    content = read_json(path, ChallengeFile)
    for key, value in (("version", VERSION), ("challenge", CHALLENGE)):
        if getattr(content, key) != value:
            warn(f"{path}: {key} is {getattr(content, key)!r}, not {value!r}")
    indices: dict[QueryKey, int] = {}
    for index, prediction in enumerate(content.results):
        earlier = indices.setdefault(prediction.key, index)
        if earlier != index:
            raise UserError(f"{path}: results[{index}]: the same query as results[{earlier}]")
    return content.results


def _fingerprint(predictions: list[Prediction]) -> str:
    return fingerprint([astuple(prediction) for prediction in predictions])
