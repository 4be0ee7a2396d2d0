"""Narrations to NaQ: turn narrations into training queries, joined with NLQ or TACoS, or alone.

    python utils/create_naq_dataset.py --type nlq --em_version v2
    python utils/create_naq_dataset.py --narrations videos/*.srt --format srt \\
        --features data/features/clip

The first reads egoclip.csv, {vq,nlq,moments}_train.json and {nlq,tacos}_train.json (for v2:
..._v2.json) under the data root; writes {nlq,tacos}_aug_naq_train.json (..._v2.json) there. The
second needs no annotations: the clips are the videos that have features, long ones cut into
several; writes naq_train.json and naq_val.json.
"""

import argparse
import gc
import math
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
from msgspec import Meta, Raw
from tqdm import tqdm

from utils.base.cores import usable_cores
from utils.base.errors import UserError, named, run_program, warn
from utils.base.files import atomic_write, read_json, to_json
from utils.base.lazy import polars as pl
from utils.base.machine import ahead
from utils.base.options import ArgumentParser, within
from utils.base.tasks import ENDINGS, FRAME_RATE, clip_sources
from utils.data.annotations import (
    JSON_LINES,
    ClipBounds,
    check_bounds,
    read_annotations,
    read_clips,
)
from utils.data.narration_formats import FORMATS, read_any_narrations
from utils.data.narrations import Narrations
from utils.features.cards import SHAPES_FILE, read_card, rows_per_second

V1_SHARE, V1_SEED = 0.95, 300  # published v1 data: the first 95 % of the shuffled videos
GROUP = 50  # videos processed together

Rows = Annotated[int, Meta(ge=1, lt=2**24)]  # of a video's features: up to a hundred days


Counts = Counter[tuple[str, str]]  # queries of each clip, by video uid and clip uid


def show(name: str, counts: Counts) -> None:
    print(f"========> {name} stats")
    print(f"# queries {counts.total()}")
    print(f"# videos {len({video_uid for video_uid, _ in counts})}")
    print(f"# clips {len(counts)}")


def main(arguments: list[str] | None = None) -> None:
    """Read clips and narrations, write their union with the annotated queries, print counts."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--type", choices=("nlq", "tacos"), help="joined with this")
    add("--em_version", choices=("v1", "v2"), help="version of the annotations")
    add("--data_root", default="data", metavar="DIR", help="where the files lie")
    add(
        "--narrations", nargs="+", metavar="FILE",
        help="narrations; subtitles are one file a video (default: DIR/egoclip.csv)",
    )  # fmt: skip
    add("--format", choices=("egoclip", *FORMATS), default="egoclip", help="what they are")
    add(
        "--features", metavar="DIR",
        help="videos of your own: a folder with their features, instead of --type, --em_version",
    )  # fmt: skip
    add(
        "--clip_seconds", type=within(float, "[1, inf)"), default=480.0, metavar="X",
        help="videos of your own that are longer are cut into equal clips",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    annotated = options.type is not None and options.em_version is not None
    if annotated == bool(options.features) or (options.features and options.type):
        parser.error("give either --type and --em_version, or --features for videos of your own")
    if annotated:
        join_annotated(options)
    else:
        make_alone(options)


def read_files(options: argparse.Namespace, clips: ClipBounds) -> Narrations:
    """Read the narrations of the clips' videos from the files that the options name."""
    files = list(map(Path, options.narrations or [f"{options.data_root}/egoclip.csv"]))
    narrations = read_any_narrations(files, options.format, sorted(clips))
    if len(narrations.malformed):
        name = files[0].name if len(files) == 1 else f"{len(files)} files"
        print(f"{name}: {narrations.describe_skipped()}", file=sys.stderr)
    return narrations


def make_alone(options: argparse.Namespace) -> None:
    """NaQ alone, for videos that have features; every tenth narrated video is for validation."""
    folder = Path(options.features)
    clips = clips_of_features(folder, options.clip_seconds)
    narrations = read_files(options, clips)
    narrated = {video for video, (start, stop) in narrations.extents.items() if start < stop}
    if len(narrated) < 2:
        raise UserError(
            f"{folder}: {len(narrated)} of its {len(clips)} videos ({named(clips)}) have "
            "narrations, two are needed: for training and for validation; do the narrations name "
            "videos as the features do?"
        )
    print(f"{len(narrated)} of {len(clips)} videos have narrations", file=sys.stderr)
    videos = shuffled(narrated)
    in_val = max(1, len(videos) // 10)
    for split, videos_of_split in (("train", videos[in_val:]), ("val", videos[:in_val])):
        output = Path(options.data_root) / f"naq_{split}.json"
        clips_of_split = {video: clips[video] for video in videos_of_split}
        _, counts = write_union(output, {"videos": []}, clips_of_split, narrations, split)
        show(f"NaQ {split}", counts)
        print(f"wrote {output}", file=sys.stderr)


def clips_of_features(folder: Path, clip_seconds: float) -> ClipBounds:
    """Clips of the videos whose features are in a folder: whole, or cut into equal parts."""
    rate = rows_per_second(read_card(folder))
    clips: ClipBounds = {}
    for video, rows in read_json(folder / SHAPES_FILE, dict[str, Rows]).items():
        duration = rows / rate
        parts = max(1, math.ceil(duration / clip_seconds))
        bounds = pairwise(duration * part / parts for part in range(parts + 1))
        names = [video] if parts == 1 else [f"{video}_part{part + 1}" for part in range(parts)]
        clips[video] = dict(zip(names, bounds, strict=True))
    return clips


def join_annotated(options: argparse.Namespace) -> None:
    """Narrations of Ego4D's clips, joined with NLQ or TACoS."""
    root, ending = Path(options.data_root), ENDINGS[options.em_version]
    clips = read_clips([root / name for name in clip_sources(options.em_version)])
    print(f"# Unique videos: {len(clips)}")
    print(f"# Unique clips: {sum(map(len, clips.values()))}", flush=True)
    if options.em_version == "v1":
        clips = {video: clips[video] for video in shuffled(clips)[: int(V1_SHARE * len(clips))]}
    file = root / f"{options.type}_train{ending}"
    if read_annotations(file).version == JSON_LINES:
        raise UserError(
            f"{file}: made of JSON lines, which do not say which video a clip is cut out of; "
            "narrations need Ego4D's own annotations"
        )
    annotated = read_json(file)  # with all its keys, which are carried along
    narrations = read_files(options, clips)

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
        warn("no narration lies inside a clip: do the narrations and the clips belong together?")
    print(f"wrote {output}", file=sys.stderr)


def shuffled(video_uids: Iterable[str]) -> list[str]:
    """Video uids in a random order that is always the same."""
    videos = sorted(video_uids)
    random.Random(V1_SEED).shuffle(videos)
    return videos


def write_union(
    path: Path, annotated: dict, clips: ClipBounds, narrations: Narrations, split: str = "train"
) -> tuple[Counts, Counts]:
    """Write annotated and NaQ queries as one annotation file, videos and clips sorted by uid.

    Videos are written one at a time, so that memory holds the new queries of a few videos only.

    Returns: counts of the annotated queries, and of NaQ.
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
            for clip, queries in new_clips:
                _add_clip(video_clips, clip, path)
                naq_counts[video_uid, clip["clip_uid"]] = queries
            if video_clips:
                sorted_clips = [video_clips[clip_uid] for clip_uid in sorted(video_clips)]
                video = {"video_uid": video_uid, "clips": sorted_clips, "split": split}
                file.write(separator + to_json(video))
                separator = b", "
        file.write(b"]}")
    return annotated_counts, naq_counts


def _clips_by_uid(annotated: dict, counts: Counts, path: Path) -> dict[str, dict[str, dict]]:
    """video uid -> clip uid -> clip."""
    merged: dict[str, dict[str, dict]] = {}
    for video in annotated["videos"]:
        video_uid = video["video_uid"]
        for clip in video["clips"]:
            _add_clip(merged.setdefault(video_uid, {}), clip, path)
            annotations = clip.get("annotations") or ()
            queries = (annotation.get("language_queries") or () for annotation in annotations)
            counts[video_uid, clip["clip_uid"]] += sum(map(len, queries))
    return merged


def _add_clip(clips: dict[str, dict], clip: dict, path: Path) -> None:
    """Add a clip to those of its video; annotations of a clip that is listed twice are joined."""
    merged = clips.setdefault(clip["clip_uid"], clip | {"annotations": []})
    bounds = [(c["video_start_sec"], c["video_end_sec"]) for c in (merged, clip)]
    check_bounds(clip["clip_uid"], *bounds, path)
    merged["annotations"].extend(clip.get("annotations") or ())


def _naq_clips(
    videos: Sequence[str], clips: ClipBounds, narrations: Narrations
) -> Iterator[tuple[str, list[tuple[dict, int]]]]:
    """Each video, and its clips with narrations: their content and number of queries."""

    def make(group: Sequence[str]) -> list[tuple[str, list[tuple[dict, int]]]]:
        bounds = [(uid, clip, *clips[uid][clip]) for uid in group for clip in clips.get(uid, ())]
        new_clips: dict[str, list[tuple[dict, int]]] = {uid: [] for uid in group}
        for clip, (count, queries) in zip(bounds, _naq_queries(bounds, narrations), strict=True):
            if count:
                new_clips[clip[0]].append((_naq_clip(*clip, queries), count))
        return list(new_clips.items())

    groups = (videos[first : first + GROUP] for first in range(0, len(videos), GROUP))
    for group in ahead(make, groups, usable_cores()):
        yield from group


def _naq_queries(
    clips: Sequence[tuple[str, str, float, float]], narrations: Narrations
) -> Iterator[tuple[int, Raw]]:
    """For each clip (video, clip, start, end), its narrations: their number, and JSON."""
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
    # Encoding columns is twice as fast as encoding a dictionary per query.
    encoded = iter(table.select(pl.struct(pl.all()).struct.json_encode()).to_series().to_list())
    for count in counts.tolist():
        yield count, Raw(f"[{','.join(islice(encoded, count))}]".encode())


def _naq_clip(video_uid: str, clip_uid: str, start: float, end: float, queries: Raw) -> dict:
    annotation = {"language_queries": queries, "annotation_uid": f"{video_uid}_{clip_uid}"}
    return {
        "clip_uid": clip_uid,
        "video_start_sec": start,
        "video_end_sec": end,
        "video_start_frame": math.floor(start * FRAME_RATE),
        "video_end_frame": math.ceil(end * FRAME_RATE),
        "annotations": [annotation],
    }


if __name__ == "__main__":
    gc.disable()  # annotations are many small objects without cycles: collecting costs time
    run_program(main)
