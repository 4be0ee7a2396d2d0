"""A prepared split (see prepared.py) as columns with one entry per query.

Shapes: C clips, R queries.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Raw

from utils.base.errors import UserError, named, warn
from utils.base.files import parse_json, read_json
from utils.data.annotations import QueryKey, clip_name_fault
from utils.data.prepared import PreparedClip, new_clip
from utils.data.spans import exact_unit_windows, unit_windows

NARRATION_MARK = "#"  # first character of narrations ("#C C picks the knife"), not of other queries


@dataclass(frozen=True)
class Records:
    """The queries of a split: columns (R,), and tables of clips and texts that they index."""

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
    def clip_seconds(self) -> np.ndarray:
        """(C,) lengths of the clips."""
        return self.num_frames / self.fps

    @property
    def duration(self) -> np.ndarray:
        """(R,) seconds of the queries' clips."""
        return self.clip_seconds[self.clip]

    @property
    def seconds(self) -> np.ndarray:
        """(R, 2) windows of `timestamps` in seconds, cut at the bounds of the clip."""
        start, end = (self.timestamps / self.fps[self.clip, None]).T
        return np.stack([np.maximum(start, 0.0), np.minimum(end, self.duration)], axis=1)

    @property
    def keys(self) -> list[QueryKey]:
        clips = [self.clip_uids[clip] for clip in self.clip]
        annotations = [self.annotation_uids[annotation] for annotation in self.annotation]
        return list(zip(clips, annotations, self.query_idx.tolist(), strict=True))

    def select(self, rows: np.ndarray) -> "Records":
        """Select queries by row numbers or a (R,) mask; the tables stay complete."""
        names = ("clip", "sentence", "annotation", "query_idx", "timestamps", "exact")
        columns = {name: getattr(self, name)[rows] for name in (*names, "is_narration")}
        return dataclasses.replace(self, **columns)

    def keep_clips(self, listed: set[str], narrations: bool) -> "Records":
        """Leave out narrations (or else the other queries) of clips that are not listed."""
        if unknown := listed.difference(self.clip_uids):
            warn(f"{len(unknown)} of {len(listed)} listed clips are not in this split")
        is_listed = np.array([uid in listed for uid in self.clip_uids], dtype=bool)
        return self.select(is_listed[self.clip] | (self.is_narration != narrations))


def read_records(path: str | Path) -> Records:
    """Read a prepared split.

    For older files without `exact_times`, exact times are timestamps / fps.

    Raises:
        UserError: the file is missing or invalid; the message names file, clip and JSON path.
    """
    content = read_json(path, dict[str, Raw])
    sentences: dict[str, int] = {}
    annotations: dict[str, int] = {}
    columns = [_columns(new_clip(1), sentences, annotations)]  # has types, even without clips
    fps, num_frames = [], []
    for uid, clip_content in content.items():  # parsed one at a time: lists take much memory
        clip = parse_json(clip_content, PreparedClip, f"{path}: clip {uid}")
        if fault := clip_name_fault(uid):
            raise UserError(f"{path}: clip {fault}")
        columns.append(_columns(clip, sentences, annotations))
        fps.append(clip.fps)
        num_frames.append(clip.num_frames)
    table = {name: np.concatenate([clip[name] for clip in columns]) for name in columns[0]}
    queries = [len(clip["sentence"]) for clip in columns[1:]]
    is_narration = np.array([text.startswith(NARRATION_MARK) for text in sentences], dtype=bool)
    return Records(
        clip_uids=list(content),
        sentences=list(sentences),
        annotation_uids=list(annotations),
        fps=np.array(fps, dtype=np.float64),
        num_frames=np.array(num_frames, dtype=np.int64),
        clip=np.repeat(np.arange(len(content), dtype=np.int32), queries),
        is_narration=is_narration[table["sentence"]],
        **table,
    )


def _columns(
    clip: PreparedClip, sentences: dict[str, int], annotations: dict[str, int]
) -> dict[str, np.ndarray]:
    """Columns of a clip's queries; new sentences and annotation uids are added to the tables."""
    timestamps = np.array(clip.timestamps, dtype=np.float64).reshape(-1, 2)
    exact = timestamps / clip.fps
    if clip.exact_times is not None:
        exact = np.array(clip.exact_times, dtype=np.float64).reshape(-1, 2)
    return {
        "sentence": _numbers(clip.sentences, sentences),
        "annotation": _numbers(clip.annotation_uids, annotations),
        "query_idx": np.array(clip.query_idx, dtype=np.int32),
        "timestamps": timestamps,
        "exact": exact,
    }


def _numbers(texts: list[str], table: dict[str, int]) -> np.ndarray:
    """(R,) int32 numbers of texts in a table, to which new texts are added."""
    numbers = (table.setdefault(text, len(table)) for text in texts)
    return np.fromiter(numbers, dtype=np.int32, count=len(texts))


def read_clip_list(path: str | Path) -> set[str]:
    """Read clip uids from a file: a JSON list, or one uid per line. An empty file is valid.

    Raises:
        UserError: there is no such file, it is not text, or JSON but not a list of texts.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{path}: no such list of clip uids") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: must be text: one clip uid a line, or a JSON list") from None
    if text.startswith(("[", "{")):
        return read_json(path, set[str])
    return {line.strip() for line in text.splitlines() if line.strip()}


def read_split(
    data_root: str | Path,
    task: str,
    name: str,
    scaling_clips: str | None = None,
    zeroshot_clips: str | None = None,
) -> tuple[Records, int]:
    """Read `<data_root>/dataset/<task>/<name>.json`; returns its records and number of queries.

    Args:
        scaling_clips: file with the clips whose narrations are kept; None keeps all.
        zeroshot_clips: file with the clips whose other queries are kept; None keeps all, an empty
            list none (zero-shot).

    Raises:
        UserError: the file is missing or invalid, or no query is left.
    """
    file = Path(data_root) / "dataset" / task / f"{name}.json"
    if not file.is_file():
        folder = file.parent.parent
        prepared = sorted(path.name for path in folder.glob("*") if path.is_dir())
        raise UserError(
            f"{file}: no such file; make it with utils/prepare_ego4d_dataset.py "
            f"(data sets in {folder}: {', '.join(prepared) or 'none'})"
        )
    records = read_records(file)
    listed = len(records)
    for clips, narrations in ((scaling_clips, True), (zeroshot_clips, False)):
        if clips is not None:
            records = records.keep_clips(read_clip_list(clips), narrations)
    if not len(records):
        raise UserError(f"{file}: no queries in this split, nothing to do")
    return records, listed


def label_windows(records: Records, units: np.ndarray, label_times: str) -> np.ndarray:
    """(R, 2) first and last unit of each window, of `units` (R,), by exact or published times."""
    if label_times == "exact":
        return exact_unit_windows(records.exact, records.duration, units)
    return unit_windows(records.seconds, records.duration, units)


def keep_usable(records: Records, usable: np.ndarray, name: str) -> Records:
    """Select queries by a (R,) mask. Raises UserError if no query of the split is left."""
    if not usable.any():
        raise UserError(f"{name}: no query of this split has a usable window, nothing to do")
    return records.select(usable)


def keep_complete(
    records: Records, lengths: Mapping[str, np.ndarray], name: str, tolerant: bool
) -> Records:
    """Select the queries whose clips have all features, with a warning about the others.

    `lengths` gives, for each feature, the rows (C,) of each clip, 0 if it is missing. Raises
    `UserError` if clips lack features and it is not `tolerant`, or if no query is left.
    """
    clips = np.unique(records.clip)
    gaps = [(clip, kind) for kind, rows in lengths.items() for clip in clips[rows[clips] == 0]]
    if not gaps:
        return records
    is_incomplete = np.isin(records.clip, [clip for clip, _ in gaps])
    message = (
        f"{name}: {len({clip for clip, _ in gaps})} clips with {int(is_incomplete.sum())} of "
        f"{len(records)} queries lack features: "
        + named(f"{records.clip_uids[clip]} ({kind})" for clip, kind in gaps)
    )
    if not tolerant:
        raise UserError(f"{message}; add the files, or predict the rest with --allow_missing")
    if is_incomplete.all():
        raise UserError(f"{message}; nothing is left")
    warn(f"{message}; they are left out")
    return records.select(~is_incomplete)
