"""A prepared split as columns: aligned arrays, one entry a query.

In: data/dataset/<task>/<split>.json, `{clip_uid: {"fps", "num_frames", "timestamps",
"exact_times", "sentences", "annotation_uids", "query_idx"}}`. Out: `Records`. Shapes: C clips,
R queries.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from utils.base.errors import UserError, named, warn
from utils.base.files import read_json
from utils.base.tasks import ROWS_PER_SECOND
from utils.data.annotations import (
    Query,
    clip_name_fault,
    iter_clips,
    iter_queries,
    read_annotations,
)

NARRATION_MARK = "#"  # narrations begin with it ("#C C picks the knife"), other queries don't


def clean_sentence(text: str) -> str:
    """A query as the text encoders get it: spaces and question marks at its ends off, one put on.

    Spaces come off first, so "knife ?" keeps its inner space, as in the published data sets.
    """
    return text.strip(" ").strip("?").lower() + "?"


@dataclass(frozen=True)
class Records:
    """The queries of a split. Selecting rows keeps the tables of clips and texts whole."""

    clip_uids: list[str]  # C
    sentences: list[str]  # distinct
    annotation_uids: list[str]  # distinct
    fps: np.ndarray  # (C,) float64, feature rows a second
    num_frames: np.ndarray  # (C,) int64, feature rows
    clip: np.ndarray  # (R,) int32, index into clip_uids, fps, num_frames
    sentence: np.ndarray  # (R,) int32, index into sentences
    annotation: np.ndarray  # (R,) int32, index into annotation_uids
    query_idx: np.ndarray  # (R,) int32, position in the annotation's list of queries
    timestamps: np.ndarray  # (R, 2) float64, feature rows as in the file
    exact: np.ndarray  # (R, 2) float64, seconds in the clip
    is_narration: np.ndarray  # (R,) bool

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def duration(self) -> np.ndarray:
        """(R,) seconds each query's clip lasts."""
        return (self.num_frames / self.fps)[self.clip]

    @property
    def seconds(self) -> np.ndarray:
        """(R, 2) windows as `timestamps` have them, in seconds and kept within the clip."""
        start, end = (self.timestamps / self.fps[self.clip, None]).T
        return np.stack([np.maximum(start, 0.0), np.minimum(end, self.duration)], axis=1)

    def select(self, rows: np.ndarray) -> "Records":
        """Fewer queries, by row numbers or by a (R,) mask."""
        columns = ("clip", "sentence", "annotation", "query_idx", "timestamps", "exact")
        chosen = {name: getattr(self, name)[rows] for name in (*columns, "is_narration")}
        return dataclasses.replace(self, **chosen)

    def keep_clips(self, clip_uids: Collection[str], narrations: bool) -> "Records":
        """Of the narrations (or else of the other queries), keep those of the listed clips.

        Queries of the other kind all stay; an empty list keeps none of this kind.
        """
        listed = set(clip_uids)
        if unknown := listed.difference(self.clip_uids):
            warn(f"{len(unknown)} of {len(listed)} listed clips are not in this split")
        is_listed = np.array([uid in listed for uid in self.clip_uids], dtype=bool)
        return self.select(is_listed[self.clip] | (self.is_narration != narrations))


def read_records(path: str | Path) -> Records:
    """Read a prepared split.

    Older files lack `exact_times`: timestamps / fps stand in for them.

    Raises:
        UserError: the file is missing or malformed; the message names the clip and the fault.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be an object of clips, as prepare_ego4d_dataset.py makes it")
    clip_uids, sentences, annotations = list(content), {}, {}
    clips = []
    for uid in clip_uids:
        try:
            # Taken out of `content`, so that its lists are freed as soon as they are columns.
            clips.append(_clip_columns(uid, content.pop(uid), sentences, annotations))
        except _FaultError as fault:
            raise UserError(f"{path}: clip {uid}: {fault}") from None
    fps, num_frames, sentence, annotation, query_idx, timestamps, exact = (
        np.concatenate(parts) for parts in zip(_NO_QUERIES, *clips, strict=True)
    )
    queries = [len(columns[-1]) for columns in clips]
    is_narration = np.array([text.startswith(NARRATION_MARK) for text in sentences], dtype=bool)
    return Records(
        clip_uids=clip_uids,
        sentences=list(sentences),
        annotation_uids=list(annotations),
        fps=fps,
        num_frames=num_frames,
        clip=np.repeat(np.arange(len(clip_uids), dtype=np.int32), queries),
        sentence=sentence,
        annotation=annotation,
        query_idx=query_idx,
        timestamps=timestamps,
        exact=exact,
        is_narration=is_narration[sentence],
    )


def subsample(
    records: Records,
    scaling_clips: str | Path | None = None,
    zeroshot_clips: str | Path | None = None,
) -> Records:
    """Few-shot and zero-shot subsets.

    Args:
        scaling_clips: file listing the clips whose narrations are kept; None keeps all.
        zeroshot_clips: file listing the clips whose other queries are kept; None keeps all, an
            empty list none (zero-shot).
    """
    if scaling_clips is not None:
        records = records.keep_clips(read_clip_list(scaling_clips), narrations=True)
    if zeroshot_clips is not None:
        records = records.keep_clips(read_clip_list(zeroshot_clips), narrations=False)
    return records


def read_clip_list(path: str | Path) -> list[str]:
    """Clip uids out of a file: a JSON list, or one uid a line. An empty file is an empty list.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: must be text: one clip uid a line, or a JSON list") from None
    if not text.startswith(("[", "{", '"')):
        return [line.strip() for line in text.splitlines() if line.strip()]
    names = read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: must be a JSON list of clip uids, or one clip uid a line")
    return names


class _FaultError(Exception):
    """What is wrong with a clip."""


Columns = tuple[np.ndarray, ...]  # fps, num_frames, sentence, annotation, query_idx, times, exact

# So that a split without clips has columns of the right types too.
_NO_QUERIES: Columns = (
    np.zeros(0),
    np.zeros(0, dtype=np.int64),
    *(np.zeros(0, dtype=np.int32) for _ in range(3)),
    *(np.zeros((0, 2)) for _ in range(2)),
)


def _clip_columns(
    uid: str, clip: Any, sentences: dict[str, int], annotations: dict[str, int]
) -> Columns:
    """The columns of one clip; texts not seen before are entered into the two tables."""
    if fault := clip_name_fault(uid):
        raise _FaultError(fault)
    if not isinstance(clip, dict):
        raise _FaultError("must be an object")
    texts = _texts(clip, "sentences")
    rows = len(texts)
    fps, num_frames = _positive(clip, "fps"), _positive(clip, "num_frames")
    if num_frames % 1:
        raise _FaultError("num_frames must be a whole number")
    timestamps = _numbers(clip, "timestamps", (rows, 2))
    exact = _numbers(clip, "exact_times", (rows, 2)) if "exact_times" in clip else timestamps / fps
    query_idx = _numbers(clip, "query_idx", (rows,))
    if not np.array_equal(query_idx, np.clip(np.rint(query_idx), 0, 2**31 - 1)):
        raise _FaultError("query_idx must hold whole numbers, 0 or more")
    annotation_uids = _texts(clip, "annotation_uids")
    if len(annotation_uids) != rows:
        raise _FaultError(f"{rows} sentences but {len(annotation_uids)} annotation_uids")
    return (
        fps,
        num_frames.astype(np.int64),
        _codes(texts, sentences),
        _codes(annotation_uids, annotations),
        query_idx.astype(np.int32),
        timestamps,
        exact,
    )


def _codes(texts: list[str], table: dict[str, int]) -> np.ndarray:
    """(R,) int32 numbers of texts in a table of distinct ones, which grows by those not in it."""
    numbers = (table.setdefault(text, len(table)) for text in texts)
    return np.fromiter(numbers, dtype=np.int32, count=len(texts))


def _texts(clip: dict, key: str) -> list[str]:
    texts = _present(clip, key)
    if not isinstance(texts, list) or not set(map(type, texts)) <= {str}:
        raise _FaultError(f"{key} must be a list of texts")
    return texts


def _positive(clip: dict, key: str) -> np.ndarray:
    value = _present(clip, key)
    if type(value) not in (int, float) or not 0 < value < np.inf:
        raise _FaultError(f"{key} must be a number above 0")
    return np.array([value], dtype=np.float64)


def _numbers(clip: dict, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """`clip[key]` as finite float64 numbers of a shape whose first entry is the sentences'."""
    values = _present(clip, key)
    if not isinstance(values, list):
        raise _FaultError(f"{key} must be a list")
    if len(values) != shape[0]:
        raise _FaultError(f"{shape[0]} sentences but {len(values)} {key}")
    try:
        numbers = np.asarray(values) if values else np.zeros(shape)
    except ValueError:  # rows of different lengths
        numbers = None
    if numbers is None or numbers.shape != shape or numbers.dtype.kind not in "iuf":
        raise _FaultError(f"{key} must hold {'pairs of ' * (len(shape) - 1)}numbers only")
    if not np.isfinite(numbers).all():
        raise _FaultError(f"{key} must be finite")
    return numbers.astype(np.float64)


def _present(clip: dict, key: str) -> Any:
    if key not in clip:
        raise _FaultError(f"{key} is missing; make the file again with prepare_ego4d_dataset.py")
    return clip[key]


def prepare_split(path: str | Path, has_times: bool = True) -> dict[str, dict]:
    """Bring the queries of an annotation file into the form that both models read.

    Queries without text are left out, and so are clips without queries. Without `has_times`,
    queries may lack times and then get 0, 0.

    Returns: clip uid -> `fps` (feature rows a second), `num_frames` (feature rows), and one entry
    a query in each of `timestamps` (rows), `exact_times` (s in the clip), `sentences`,
    `annotation_uids`, `query_idx`.

    Raises:
        UserError: the file is missing or malformed, or a query lacks times it should have.
    """
    annotations = read_annotations(path)
    clips: dict[str, dict] = {}
    for _, clip in iter_clips(annotations):
        entry = _new_entry(clip)
        if clips.setdefault(clip["clip_uid"], entry)["num_frames"] != entry["num_frames"]:
            raise UserError(f"{path}: clip {clip['clip_uid']} is listed with two durations")
    reversed_windows = 0
    for query in tqdm(iter_queries(annotations), desc=f"preparing {path}", unit="query"):
        start, end = _times(query, has_times, path)
        reversed_windows += end < start
        entry = clips[query.clip_uid]
        entry["timestamps"].append([int(start * ROWS_PER_SECOND), int(end * ROWS_PER_SECOND)])
        entry["exact_times"].append([start, end])
        entry["sentences"].append(clean_sentence(query.query["query"]))
        entry["annotation_uids"].append(query.annotation_uid)
        entry["query_idx"].append(query.query_idx)
    if reversed_windows:
        warn(f"{path}: {reversed_windows} windows end before they start; kept as they are")
    clips = {uid: entry for uid, entry in clips.items() if entry["sentences"]}
    for uid, entry in clips.items():
        if entry["num_frames"] < 1:
            raise UserError(
                f"{path}: clip {uid} is shorter than one feature row, 16/30 s; take it out"
            )
    return clips


def _new_entry(clip: dict) -> dict:
    duration = clip["video_end_sec"] - clip["video_start_sec"]
    return {
        "fps": ROWS_PER_SECOND,
        "num_frames": int(duration * ROWS_PER_SECOND),
        "timestamps": [],
        "exact_times": [],
        "sentences": [],
        "annotation_uids": [],
        "query_idx": [],
    }


def _times(query: Query, has_times: bool, path: str | Path) -> tuple[float, float]:
    start, end = query.query.get("clip_start_sec"), query.query.get("clip_end_sec")
    if start is not None:
        return float(start), float(end)
    if has_times:
        raise UserError(
            f"{path}: query {query.query_idx} of annotation {query.annotation_uid} in clip "
            f"{query.clip_uid} has no clip_start_sec; only the test split may lack times"
        )
    return 0.0, 0.0


def read_split(
    data_root: str | Path,
    task: str,
    name: str,
    scaling_clips: str | None = None,
    zeroshot_clips: str | None = None,
) -> tuple[Records, int]:
    """The columns of `<data_root>/dataset/<task>/<name>.json`, and how many queries it lists.

    `scaling_clips` and `zeroshot_clips` are lists of clips whose narrations, or NLQ queries, are
    kept (see `utils.data.records.subsample`). Raises `UserError` if the file is not there.
    """
    file = Path(data_root) / "dataset" / task / f"{name}.json"
    if not file.is_file():
        folder = file.parent.parent
        there = sorted(path.name for path in folder.glob("*") if path.is_dir())
        raise UserError(
            f"{file}: no such file; make it with utils/prepare_ego4d_dataset.py "
            f"(data sets in {folder}: {', '.join(there) or 'none'})"
        )
    records = read_records(file)
    wanted = subsample(records, scaling_clips, zeroshot_clips)
    if not len(wanted):
        raise UserError(f"{file}: no queries in this split, nothing to do")
    return wanted, len(records)


def keep_some(records: Records, wanted: np.ndarray, name: str) -> Records:
    """The wanted queries (R,) bool; a `UserError` if none of the split is left."""
    if not wanted.any():
        raise UserError(f"{name}: no query of this split has a window to use, nothing to do")
    return records.select(wanted)


def keep_complete(
    records: Records, lengths: Mapping[str, np.ndarray], name: str, tolerant: bool
) -> Records:
    """The queries whose clips have all features; the others are left out, or an error.

    `lengths` gives, for each feature, the rows (C,) of each clip, 0 where it has none. Raises
    `UserError` if clips lack features and `tolerant` is off, or if nothing is left.
    """
    used = np.unique(records.clip)
    lacking = [(clip, kind) for kind, rows in lengths.items() for clip in used[rows[used] == 0]]
    if not lacking:
        return records
    lost = np.isin(records.clip, [clip for clip, _ in lacking])
    said = (
        f"{name}: {len({clip for clip, _ in lacking})} clips with {int(lost.sum())} of "
        f"{len(records)} queries lack features: "
        + named(f"{records.clip_uids[clip]} ({kind})" for clip, kind in lacking)
    )
    if not tolerant:
        raise UserError(f"{said}; add the files, or predict the rest with --allow_missing")
    if lost.all():
        raise UserError(f"{said}; nothing is left")
    warn(f"{said}; they are left out")
    return records.select(~lost)
