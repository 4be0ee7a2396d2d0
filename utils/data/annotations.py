"""Annotation files in the Ego4D schema: read, check, walk.

Only the keys that matter are looked at: `video_uid`, `clip_uid`, the clip's `video_start_sec` and
`video_end_sec`, `annotation_uid`, and of each language query its text and its `clip_start_sec` and
`clip_end_sec`. Everything else is carried along as it is. Times are seconds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.base.errors import UserError
from utils.base.files import read_json

LONGEST = 1e9  # seconds; what is beyond is no time, and would overflow as a number of frames
SAME_BOUND = 1e-3  # seconds by which two mentions of a clip's bound may differ

Clips = dict[str, dict[str, tuple[float, float]]]  # video uid -> clip uid -> start, end (s)


class Query(NamedTuple):
    """A free-form question about a clip, and where it stands in its file."""

    video_uid: str
    clip_uid: str
    annotation_uid: str
    query_idx: int  # position in the annotation's `language_queries`
    query: dict


def read_annotations(path: str | Path) -> dict:
    """Read an annotation file and check its structure.

    Tolerated, because the published files contain it: queries without text (or with null or ""),
    windows of zero length or past the clip, small negative starts, queries without times,
    annotations without `language_queries` (visual queries and moments have other content there).

    Raises:
        UserError: the file is missing, isn't JSON, or something in it has the wrong form; the
            message names the file, the place in it and the fault.
    """
    content = read_json(path)
    try:
        _check(content)
    except _FaultError as fault:
        raise UserError(f"{path}: {fault}") from None
    return content


def iter_clips(annotations: dict) -> Iterator[tuple[dict, dict]]:
    """Each clip with its video, in the order of the file."""
    for video in annotations["videos"]:
        for clip in video["clips"]:
            yield video, clip


def read_clips(paths: Sequence[Path]) -> Clips:
    """The union of the clips of annotation files.

    Raises:
        UserError: a file is missing or malformed, or two mentions of a clip differ in bounds.
    """
    clips: Clips = {}
    for path in paths:
        for video, clip in iter_clips(read_annotations(path)):
            known = clips.setdefault(video["video_uid"], {})
            first = known.setdefault(clip["clip_uid"], clip_bounds(clip))
            check_bounds(first, clip, path)
    return clips


def clip_bounds(clip: dict) -> tuple[float, float]:
    """Where a clip starts and ends in its video (s)."""
    return clip["video_start_sec"], clip["video_end_sec"]


def check_bounds(bounds: tuple[float, float], clip: dict, path: Path) -> None:
    """Raises `UserError` if a clip, met while reading or making the file `path`, has others."""
    differences = (abs(a - b) for a, b in zip(bounds, clip_bounds(clip), strict=True))
    if max(differences) > SAME_BOUND:
        raise UserError(
            f"{path}: clip {clip['clip_uid']} has two different bounds, {bounds} and "
            f"{clip_bounds(clip)} s: the annotation files are not of one version; fetch them again"
        )


def iter_queries(annotations: dict) -> Iterator[Query]:
    """Each query that has text, in the order of the file; the others only take up an index."""
    for video, clip in iter_clips(annotations):
        for annotation in clip.get("annotations") or ():
            for index, query in enumerate(annotation.get("language_queries") or ()):
                if query.get("query"):
                    uids = video["video_uid"], clip["clip_uid"], annotation["annotation_uid"]
                    yield Query(*uids, index, query)


def clip_name_fault(name: Any) -> str | None:
    """What makes `name` unfit as a clip uid, or None; clip uids become names of files."""
    if not isinstance(name, str) or not name:
        return f"must be a non-empty text, not {_show(name)}"
    if "/" in name or "\\" in name or ".." in name or not name.isprintable():
        return f"{_show(name)} can't name a file: path separators and '..' are not allowed"
    return None


class _FaultError(Exception):
    """A place in the file and what is wrong there."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{where.lstrip('.') or 'top level'}: {what}")


def _check(content: Any) -> None:
    for video, at in _objects(content, "videos", ""):
        _check_text(video, "video_uid", at)
        for clip, clip_at in _objects(video, "clips", at):
            _check_clip(clip, clip_at)
            for annotation, annotation_at in _objects(clip, "annotations", clip_at, optional=True):
                _check_annotation(annotation, annotation_at)


def _check_clip(clip: dict, at: str) -> None:
    if "clip_uid" not in clip:
        raise _FaultError(at, "clip_uid is missing")
    if fault := clip_name_fault(clip["clip_uid"]):
        raise _FaultError(f"{at}.clip_uid", fault)
    for key in ("video_start_sec", "video_end_sec"):
        if key not in clip:
            raise _FaultError(at, f"{key} is missing")
        if not _is_time(clip[key]):
            raise _FaultError(f"{at}.{key}", f"must be seconds, not {_show(clip[key])}")
    if clip["video_end_sec"] < clip["video_start_sec"]:
        raise _FaultError(at, "the clip ends before it starts (video_end_sec < video_start_sec)")


def _check_annotation(annotation: dict, at: str) -> None:
    queries = annotation.get("language_queries")
    if queries is None:
        return
    _check_text(annotation, "annotation_uid", at)
    # Hundreds of thousands of queries: places are put into words only when there is a fault.
    if not isinstance(queries, list):
        raise _FaultError(f"{at}.language_queries", f"must be a list, not {_show(queries)}")
    for index, query in enumerate(queries):
        if fault := _query_fault(query):
            raise _FaultError(f"{at}.language_queries[{index}]", fault)


def _query_fault(query: Any) -> str | None:
    if type(query) is not dict:
        return f"must be an object, not {_show(query)}"
    text = query.get("query")
    if text is not None and type(text) is not str:
        return f"query must be a text, not {_show(text)}"
    start, end = query.get("clip_start_sec"), query.get("clip_end_sec")
    if _is_time(start) and _is_time(end):
        return None
    if (start is None) != (end is None):
        return "has only one of clip_start_sec and clip_end_sec"
    for key, value in (("clip_start_sec", start), ("clip_end_sec", end)):
        if value is not None and not _is_time(value):
            return f"{key} must be seconds, not {_show(value)}"
    return None


def _objects(parent: Any, key: str, at: str, optional: bool = False) -> Iterator[tuple[dict, str]]:
    """The objects of the list `parent[key]`, each with its place."""
    if not isinstance(parent, dict):
        raise _FaultError(at, f"must be an object, not {_show(parent)}")
    items = parent.get(key)
    if items is None and optional:
        return
    if items is None:
        raise _FaultError(at, f"{key} is missing")
    if not isinstance(items, list):
        raise _FaultError(f"{at}.{key}", f"must be a list, not {_show(items)}")
    for index, item in enumerate(items):
        place = f"{at}.{key}[{index}]"
        if not isinstance(item, dict):
            raise _FaultError(place, f"must be an object, not {_show(item)}")
        yield item, place


def _check_text(parent: dict, key: str, at: str) -> None:
    if key not in parent:
        raise _FaultError(at, f"{key} is missing")
    if not isinstance(parent[key], str) or not parent[key]:
        raise _FaultError(f"{at}.{key}", f"must be a non-empty text, not {_show(parent[key])}")


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and -LONGEST <= value <= LONGEST  # NaN is not


def _show(value: Any) -> str:
    """A value as a reader of JSON would write it, cut short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
