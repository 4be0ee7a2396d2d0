"""Annotation files in the Ego4D schema. Times are seconds; keys not named here are skipped."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from utils.base.errors import UserError
from utils.base.files import read_json

LONGEST = 1e9  # seconds; anything beyond would overflow as a number of frames
JSON_LINES = "jsonl"  # version of annotations converted from JSON lines, which name no videos
SAME_BOUND = 1e-3  # seconds by which two mentions of a clip's bound may differ

Seconds = Annotated[float, Meta(ge=-LONGEST, le=LONGEST)]
Bounds = tuple[float, float]  # where a clip starts and ends in its video (s)
ClipBounds = dict[str, dict[str, Bounds]]  # video uid -> clip uid -> bounds
QueryKey = tuple[str, str, int]  # clip uid, annotation uid, query_idx: identifies a query


class LanguageQuery(Struct):
    """A query in the file: its text may be missing, and in a test split its times."""

    query: str | None = None
    clip_start_sec: Seconds | None = None
    clip_end_sec: Seconds | None = None
    template: str | None = None
    slot_x: str | None = None

    def __post_init__(self) -> None:
        if (self.clip_start_sec is None) != (self.clip_end_sec is None):
            raise ValueError("has only one of clip_start_sec and clip_end_sec")


class Annotation(Struct):
    """Queries of one annotator; those of other benchmarks are skipped."""

    annotation_uid: str | None = None
    language_queries: list[LanguageQuery] | None = None

    def __post_init__(self) -> None:
        if self.language_queries is not None and not self.annotation_uid:
            raise ValueError("has language_queries but no annotation_uid")


class AnnotatedClip(Struct):
    clip_uid: str
    video_start_sec: Seconds
    video_end_sec: Seconds
    annotations: list[Annotation] | None = None

    def __post_init__(self) -> None:
        if fault := clip_name_fault(self.clip_uid):
            raise ValueError(f"clip_uid: {fault}")
        if self.duration < 0:
            raise ValueError("the clip ends before it starts (video_end_sec < video_start_sec)")

    @property
    def bounds(self) -> Bounds:
        """Start and end in the video (s)."""
        return self.video_start_sec, self.video_end_sec

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.video_end_sec - self.video_start_sec


class AnnotatedVideo(Struct):
    video_uid: Annotated[str, Meta(min_length=1)]
    clips: list[AnnotatedClip]


class Annotations(Struct):
    """An annotation file, with the keys that may tell its version of Ego4D."""

    videos: list[AnnotatedVideo]
    version: Any = None
    manifest: Any = None
    metadata: Any = None


class Query(NamedTuple):
    """A question about a clip, and its position in the file."""

    video_uid: str
    clip_uid: str
    annotation_uid: str
    query_idx: int  # position in the annotation's `language_queries`
    text: str
    window: tuple[float, float] | None  # seconds in the clip
    template: str | None
    slot_x: str | None  # what the template's X stands for

    @property
    def key(self) -> QueryKey:
        return self[1:4]


def key_in_words(key: QueryKey) -> str:
    """The name of a query in messages."""
    return "clip {}, annotation {}, query {}".format(*key)


def read_annotations(path: str | Path) -> Annotations:
    """Read an annotation file.

    Allowed, because the published files contain it: queries without text (or with null or ""),
    windows of zero length or past the clip, small negative starts, queries without times,
    annotations without `language_queries`.

    Raises:
        UserError: the file is missing or invalid; the message names the file and the JSON path.
    """
    return read_json(path, Annotations)


def iter_clips(annotations: Annotations) -> Iterator[tuple[AnnotatedVideo, AnnotatedClip]]:
    """Each clip with its video, in the order of the file."""
    for video in annotations.videos:
        for clip in video.clips:
            yield video, clip


def iter_queries(annotations: Annotations, with_textless: bool = False) -> Iterator[Query]:
    """Each query that has text, in the order of the file.

    With `with_textless` also the others, with the text "".
    """
    for video, clip in iter_clips(annotations):
        for annotation in clip.annotations or ():
            for index, query in enumerate(annotation.language_queries or ()):
                if not query.query and not with_textless:
                    continue
                window = None
                if query.clip_start_sec is not None:
                    window = query.clip_start_sec, query.clip_end_sec
                yield Query(
                    video.video_uid, clip.clip_uid, annotation.annotation_uid, index,
                    query.query or "", window, query.template, query.slot_x,
                )  # fmt: skip


def read_clips(paths: Sequence[Path]) -> ClipBounds:
    """The union of the clips of annotation files.

    Raises:
        UserError: a file is missing or invalid, or two mentions of a clip differ in bounds.
    """
    clips: ClipBounds = {}
    for path in paths:
        for video, clip in iter_clips(read_annotations(path)):
            bounds = clips.setdefault(video.video_uid, {}).setdefault(clip.clip_uid, clip.bounds)
            check_bounds(clip.clip_uid, bounds, clip.bounds, path)
    return clips


def check_bounds(clip_uid: str, earlier: Bounds, later: Bounds, path: Path) -> None:
    """Raise UserError if two bounds of a clip differ, the later ones in the file `path`."""
    differences = (abs(a - b) for a, b in zip(earlier, later, strict=True))
    if max(differences) > SAME_BOUND:
        raise UserError(
            f"{path}: clip {clip_uid} has two different bounds, {earlier} and {later} s: the "
            "annotation files are not of one version; fetch them again"
        )


def clip_name_fault(uid: str) -> str | None:
    """Why a clip uid can't name a file, or None."""
    if not uid or "/" in uid or "\\" in uid or ".." in uid or not uid.isprintable():
        return f"{uid!r:.60} can't name a file: path separators and '..' are not allowed"
    return None
