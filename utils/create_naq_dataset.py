"""Narrations to NaQ: turn EgoClip narrations into training queries and join them with NLQ or TACoS.

Reads egoclip.csv, {vq,nlq,moments}_train.json and {nlq,tacos}_train.json (for v2: ..._v2.json)
under the data root; writes {nlq,tacos}_aug_naq_train.json (..._v2.json) there.
"""

import gc
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
from msgspec import Raw
from tqdm import tqdm

from utils.base.cores import usable_cores
from utils.base.errors import UserError, run_program, warn
from utils.base.files import atomic_write, read_json, to_json
from utils.base.lazy import polars as pl
from utils.base.machine import ahead
from utils.base.options import ArgumentParser
from utils.base.tasks import ENDINGS, FRAME_RATE, clip_sources
from utils.data.annotations import (
    JSON_LINES,
    ClipBounds,
    check_bounds,
    read_annotations,
    read_clips,
)
from utils.data.narrations import Narrations, read_narrations

V1_SHARE, V1_SEED = 0.95, 300  # the published v1 data set holds 95 % of the videos
AT_ONCE = 50  # videos made in one go


class NaqClip(NamedTuple):
    """A clip that has narrations."""

    clip: dict  # a new entry without annotations
    annotation: dict
    queries: int  # in the annotation


Counts = Counter[tuple[str, str]]  # queries of each clip, by video uid and clip uid


def show(name: str, counts: Counts) -> None:
    """Print how many queries, videos and clips there are."""
    print(f"========> {name} stats")
    print(f"# queries {counts.total()}")
    print(f"# videos {len({video_uid for video_uid, _ in counts})}")
    print(f"# clips {len(counts)}")


def main(arguments: list[str] | None = None) -> None:
    """Read clips and narrations, write their union with the annotated queries, print counts."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", choices=("nlq", "tacos"), required=True, help="joined with this")
    parser.add_argument(
        "--em_version", choices=("v1", "v2"), required=True, help="version of the annotations"
    )
    parser.add_argument("--data_root", default="data", metavar="DIR", help="where the files lie")
    options = parser.parse_args(arguments)
    root = Path(options.data_root)
    ending = ENDINGS[options.em_version]

    clips = read_clips([root / name for name in clip_sources(options.em_version)])
    print(f"# Unique videos: {len(clips)}")
    print(f"# Unique clips: {sum(map(len, clips.values()))}", flush=True)
    if options.em_version == "v1":
        clips = v1_share(clips)
    file = root / f"{options.type}_train{ending}"
    if read_annotations(file).version == JSON_LINES:
        raise UserError(
            f"{file}: made of JSON lines, which do not say which video a clip is cut out of; "
            "narrations need Ego4D's own annotations"
        )
    annotated = read_json(file)  # with all its keys, which are carried along
    narrations = read_narrations(root / "egoclip.csv", sorted(clips))
    print(f"egoclip.csv: {narrations.describe_skipped()}", file=sys.stderr)

    output = root / f"{options.type}_aug_naq_train{ending}"
    annotated_counts, naq_counts = write_union(output, annotated, clips, narrations)
    union_counts = annotated_counts.copy()
    union_counts.update(naq_counts)
    name = options.type.upper()
    for title, counts in (
        (name, annotated_counts), ("NaQ", naq_counts), (f"{name}+NaQ", union_counts),
    ):  # fmt: skip
        show(title, counts)
    if not naq_counts:
        warn("no narration lies inside a clip: do egoclip.csv and the clips belong together?")
    print(f"wrote {output}", file=sys.stderr)


def v1_share(clips: ClipBounds) -> ClipBounds:
    """The videos of the published v1 data set: sorted, shuffled with its seed, the first 95 %."""
    videos = sorted(clips)
    random.Random(V1_SEED).shuffle(videos)
    return {video: clips[video] for video in videos[: int(V1_SHARE * len(videos))]}


def write_union(
    path: Path, annotated: dict, clips: ClipBounds, narrations: Narrations
) -> tuple[Counts, Counts]:
    """Write annotated and NaQ queries as one annotation file, videos and clips sorted by uid.

    Videos are written as they are made, so memory holds the new queries of a few of them only.

    Returns: what there is in the annotated queries, and in NaQ.
    """
    annotated_counts, naq_counts = Counter(), Counter()
    merged = _clips_by_uid(annotated, annotated_counts, path)
    videos = sorted(merged.keys() | clips.keys())
    with atomic_write(path) as file:
        file.write(b'{"videos": [')
        separator = b""
        naq_clips = _naq_clips(videos, clips, narrations)
        bar = tqdm(naq_clips, desc=f"writing {path.name}", unit="video", total=len(videos))
        for video_uid, new_clips in bar:
            video_clips = merged.pop(video_uid, {})
            for new in new_clips:
                clip_uid = new.clip["clip_uid"]
                clip = video_clips.setdefault(clip_uid, new.clip)
                check_bounds(clip_uid, _bounds(new.clip), _bounds(clip), path)
                clip["annotations"].append(new.annotation)
                naq_counts[video_uid, clip_uid] = new.queries
            if video_clips:
                sorted_clips = [video_clips[clip_uid] for clip_uid in sorted(video_clips)]
                video = {"video_uid": video_uid, "clips": sorted_clips, "split": "train"}
                file.write(separator + to_json(video))
                separator = b", "
        file.write(b"]}")
    return annotated_counts, naq_counts


def _clips_by_uid(annotated: dict, counts: Counts, path: Path) -> dict[str, dict[str, dict]]:
    """video uid -> clip uid -> clip; a clip listed twice becomes one with both's annotations."""
    merged: dict[str, dict[str, dict]] = {}
    for video in annotated["videos"]:
        video_uid = video["video_uid"]
        for clip in video["clips"]:
            clip_uid, annotations = clip["clip_uid"], clip.get("annotations") or []
            queries = sum(len(each.get("language_queries") or ()) for each in annotations)
            counts[video_uid, clip_uid] += queries
            video_clips = merged.setdefault(video_uid, {})
            first = video_clips.setdefault(clip_uid, clip | {"annotations": []})
            check_bounds(clip_uid, _bounds(first), _bounds(clip), path)
            first["annotations"].extend(annotations)
    return merged


def _bounds(clip: dict) -> tuple[float, float]:
    return clip["video_start_sec"], clip["video_end_sec"]


def _naq_clips(
    videos: Sequence[str], clips: ClipBounds, narrations: Narrations
) -> Iterator[tuple[str, list[NaqClip]]]:
    """Each video, and those of its clips that have narrations."""

    def make(group: Sequence[str]) -> list[tuple[str, list[NaqClip]]]:
        bounds = [(uid, clip, *clips[uid][clip]) for uid in group for clip in clips.get(uid, ())]
        new_clips: dict[str, list[NaqClip]] = {uid: [] for uid in group}
        for clip, (count, queries) in zip(bounds, _naq_queries(bounds, narrations), strict=True):
            if count:
                new_clips[clip[0]].append(_naq_clip(*clip, count, queries))
        return list(new_clips.items())

    groups = (videos[at : at + AT_ONCE] for at in range(0, len(videos), AT_ONCE))
    for group in ahead(make, groups, usable_cores()):
        yield from group


def _naq_queries(
    clips: Sequence[tuple[str, str, float, float]], narrations: Narrations
) -> Iterator[tuple[int, Raw]]:
    """Of each clip (video, clip, start, end): how many narrations lie in it, and as JSON."""
    rows = [narrations.inside(video, start, end) for video, _, start, end in clips]
    counts = np.array([len(inside) for inside in rows], np.int64)
    all_rows = np.concatenate([np.empty(0, np.int64), *rows])
    clip_starts = np.repeat(np.array([start for _, _, start, _ in clips]), counts)
    starts, ends = narrations.starts[all_rows], narrations.ends[all_rows]
    table = pl.DataFrame(
        {
            "clip_start_sec": starts - clip_starts,
            "clip_end_sec": ends - clip_starts,
            "video_start_sec": starts,
            "video_end_sec": ends,
            "video_start_frame": np.floor(starts * FRAME_RATE).astype(np.int64),
            "video_end_frame": np.ceil(ends * FRAME_RATE).astype(np.int64),
            "query": narrations.texts.gather(all_rows),
        }
    )
    # Encoded column by column: a dictionary for each of a million queries takes twice as long.
    encoded = iter(table.select(pl.struct(pl.all()).struct.json_encode()).to_series().to_list())
    for count in counts.tolist():
        yield count, Raw(f"[{','.join(islice(encoded, count))}]".encode())


def _naq_clip(
    video_uid: str, clip_uid: str, start: float, end: float, count: int, queries: Raw
) -> NaqClip:
    clip = {
        "clip_uid": clip_uid,
        "video_start_sec": start,
        "video_end_sec": end,
        "video_start_frame": math.floor(start * FRAME_RATE),
        "video_end_frame": math.ceil(end * FRAME_RATE),
        "annotations": [],
    }
    annotation = {"language_queries": queries, "annotation_uid": f"{video_uid}_{clip_uid}"}
    return NaqClip(clip, annotation, count)


if __name__ == "__main__":
    gc.disable()  # annotations are many small objects, none in a cycle: looking for them costs time
    run_program(main)
