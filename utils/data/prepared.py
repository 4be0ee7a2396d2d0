"""A prepared split, data/dataset/<task>/<split>.json, made of an annotation file."""

import sys
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from tqdm import tqdm

from utils.base.errors import UserError, warn
from utils.base.tasks import ROWS_PER_SECOND
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.data.words import clean_sentence

Index = Annotated[int, Meta(ge=0, lt=2**31)]  # in an int32 column


class PreparedClip(Struct, kw_only=True):
    """A clip in the file; its lists have one entry per query."""

    fps: Annotated[float, Meta(gt=0)]  # feature rows a second
    num_frames: Annotated[int, Meta(gt=0, lt=2**31)]  # feature rows
    timestamps: list[tuple[float, float]]  # feature rows
    exact_times: list[tuple[float, float]] | None = None  # s in the clip; older files have none
    sentences: list[str]
    annotation_uids: list[str]
    query_idx: list[Index]

    def __post_init__(self) -> None:
        for name in ("timestamps", "exact_times", "annotation_uids", "query_idx"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.sentences):
                raise ValueError(f"{len(self.sentences)} sentences but {len(column)} {name}")


def new_clip(num_frames: int) -> PreparedClip:
    """A clip without queries."""
    return PreparedClip(
        fps=ROWS_PER_SECOND, num_frames=num_frames, timestamps=[], exact_times=[],
        sentences=[], annotation_uids=[], query_idx=[],
    )  # fmt: skip


def prepare_split(path: str | Path, has_times: bool = True) -> dict[str, PreparedClip]:
    """The content of a prepared split, by clip uid, from an annotation file.

    Leaves out queries without text and clips without queries. Without `has_times`, queries may lack
    times, and then get 0, 0.

    Raises:
        UserError: the file is missing or invalid, or a query lacks times in spite of `has_times`.
    """
    annotations = read_annotations(path)
    clips: dict[str, PreparedClip] = {}
    for _, annotated in iter_clips(annotations):
        num_frames = int(annotated.duration * ROWS_PER_SECOND)
        clip = clips.setdefault(annotated.clip_uid, new_clip(num_frames))
        if clip.num_frames != num_frames:
            raise UserError(f"{path}: clip {annotated.clip_uid} is listed with two durations")
    reversed_windows = textless = 0
    queries = iter_queries(annotations, with_textless=True)
    for query in tqdm(queries, desc=f"preparing {path}", unit="query"):
        if not query.text:
            textless += 1
            continue
        if query.window is None and has_times:
            raise UserError(
                f"{path}: query {query.query_idx} of annotation {query.annotation_uid} in clip "
                f"{query.clip_uid} has no clip_start_sec; only the test split may lack times"
            )
        start, end = query.window or (0.0, 0.0)
        reversed_windows += end < start
        clip = clips[query.clip_uid]
        clip.timestamps.append((int(start * ROWS_PER_SECOND), int(end * ROWS_PER_SECOND)))
        clip.exact_times.append((start, end))
        clip.sentences.append(clean_sentence(query.text))
        clip.annotation_uids.append(query.annotation_uid)
        clip.query_idx.append(query.query_idx)
    if textless:
        print(f"{path}: {textless} queries without text are left out", file=sys.stderr)
    if reversed_windows:
        warn(f"{path}: {reversed_windows} windows end before they start; kept as they are")
    clips = {uid: clip for uid, clip in clips.items() if clip.sentences}
    for uid, clip in clips.items():
        if clip.num_frames < 1:
            raise UserError(
                f"{path}: clip {uid} is shorter than one feature row, 16/30 s; remove it"
            )
    return clips
