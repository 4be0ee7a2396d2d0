"""Small annotation files and prepared clips."""

import json
from pathlib import Path


def annotations(seconds: float = 100.0, **clips: list[dict]) -> dict:
    """Annotations of one video `v`: of each clip, the queries of its annotation `a`."""
    entries = [
        {
            "clip_uid": uid,
            "video_start_sec": 0.0,
            "video_end_sec": seconds,
            "annotations": [{"annotation_uid": "a", "language_queries": queries}],
        }
        for uid, queries in clips.items()
    ]
    return {"videos": [{"video_uid": "v", "clips": entries}]}


def write_annotations(path: Path, seconds: float = 100.0, **clips: list[dict]) -> Path:
    """The same as a file."""
    path.write_text(json.dumps(annotations(seconds, **clips)))
    return path


def timed(text: str | None, start: float, end: float, **more: str) -> dict:
    """A query with its times."""
    return {"query": text, "clip_start_sec": start, "clip_end_sec": end, **more}


def raw_queries(content: dict | Path) -> list[dict]:
    """All queries of annotations or of a file of them, as they stand in it."""
    if isinstance(content, Path):
        content = json.loads(content.read_text())
    return [
        query
        for video in content["videos"]
        for clip in video["clips"]
        for annotation in clip["annotations"]
        for query in annotation.get("language_queries") or ()
    ]


def prepared_clip(*queries: tuple[str, float, float], num_frames: int = 100) -> dict:
    """A clip of a prepared split with (sentence, start, end) queries of annotation `a`."""
    windows = [[start, end] for _, start, end in queries]
    return {
        "fps": 1.875,
        "num_frames": num_frames,
        "timestamps": [[int(time * 1.875) for time in window] for window in windows],
        "exact_times": windows,
        "sentences": [sentence for sentence, _, _ in queries],
        "annotation_uids": ["a"] * len(queries),
        "query_idx": list(range(len(queries))),
    }
