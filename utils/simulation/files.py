"""The simulated world as files in the published formats, with the oddities of real files.

Annotation files in the Ego4D schema, and narrations as egoclip.csv.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.files import atomic_write
from utils.base.lazy import polars as pl
from utils.base.tasks import FRAME_RATE, SPLITS
from utils.simulation.queries import Questions, phrase
from utils.simulation.world import World

# Shares of questions with the oddities of real files.
ODD_SHARES = {"missing": 0.003, "null": 0.003, "empty": 0.003, "no_length": 0.02, "past_end": 0.01}
NO_QUERIES = 0.02  # annotations without language_queries
MALFORMED_ROWS = 1e-4  # of egoclip.csv


def nlq_file(
    world: World, questions: Questions, split: str, version: str, seed: int, times: bool
) -> dict[str, Any]:
    """A file of questions, `version` v1 or v2; unannotated without `times`.

    Oddities do not depend on `times`, so that indices agree.
    """
    split_number = SPLITS.index(split)
    rng = np.random.default_rng((seed, 7, split_number, version == "v2"))
    in_split = world.videos.split[world.clips.video] == split_number
    clips = np.flatnonzero(world.clips.has_questions & in_split)
    in_file = np.isin(questions.clip, clips)
    if version == "v1":
        in_file &= ~questions.only_in_v2
    rows = np.flatnonzero(in_file).tolist()
    # clip -> annotation -> queries
    queries: dict[int, dict[int, list]] = {clip: {} for clip in clips.tolist()}
    for row, oddity in zip(rows, _oddities(len(rows), rng), strict=True):
        annotations = queries[questions.clip[row]]
        query = _query(world, questions, row, oddity, times)
        annotations.setdefault(int(questions.annotator[row]), []).append(query)
    chosen = rng.permutation(len(clips))[: max(1, round(NO_QUERIES * len(clips)))]
    with_empty_annotation = set(clips[chosen].tolist())

    content = {}
    for clip, annotations in queries.items():
        uid = world.clips.uids[clip]
        content[clip] = [
            {"annotation_uid": f"{uid}-{annotator}", "language_queries": annotations[annotator]}
            for annotator in sorted(annotations)
        ]
        if clip in with_empty_annotation:
            content[clip].append({"annotation_uid": f"{uid}-none"})
    return _file(world, split, version, content)


def clip_file(world: World, benchmark: str, split: str, version: str) -> dict[str, Any]:
    """A file of the `vq` or `moments` benchmark: clips, with annotations of other kinds."""
    in_split = world.videos.split[world.clips.video] == SPLITS.index(split)
    in_file = world.clips.annotated[:, ("vq", "moments").index(benchmark)] & in_split
    empty = {"vq": {"query_sets": {}}, "moments": {"labels": []}}[benchmark]
    content = {
        int(clip): [{"annotation_uid": f"{world.clips.uids[clip]}-{benchmark}", **empty}]
        for clip in np.flatnonzero(in_file)
    }
    return _file(world, split, version, content)


def _file(world: World, split: str, version: str, content: dict[int, list]) -> dict[str, Any]:
    videos: dict[int, dict] = {}
    clips = world.clips
    for clip, annotations in content.items():
        number = int(clips.video[clip])
        uid = world.videos.uids[number]
        video = videos.setdefault(number, {"video_uid": uid, "split": split, "clips": []})
        start, end = float(clips.start[clip]), float(clips.end[clip])
        video["clips"].append(
            {
                "clip_uid": clips.uids[clip],
                "source_clip_uid": clips.uids[clip],
                "video_start_sec": start,
                "video_end_sec": end,
                "video_start_frame": max(0, round(start * FRAME_RATE)),
                "video_end_frame": round(end * FRAME_RATE),
                "annotations": annotations,
            }
        )
    return {
        "version": version,
        "date": "simulated",
        "description": "a simulated world, not Ego4D",
        "videos": list(videos.values()),
    }


def _query(world: World, questions: Questions, row: int, oddity: str, times: bool) -> dict:
    query: dict[str, Any] = phrase(world, questions, row)
    if oddity == "missing":
        del query["query"]
    elif oddity in ("null", "empty"):
        query["query"] = None if oddity == "null" else ""
    if not times:
        return {"query": query["query"]} if "query" in query else {}
    clip = questions.clip[row]
    start, end = questions.window[row].tolist()
    if oddity == "no_length":
        end = start
    elif oddity == "past_end":
        # The start is right, the end lies beyond the clip.
        end = float(world.clips.duration[clip]) + 0.3
    elif start == 0.0:
        start = -4e-7
    offset = float(world.clips.start[clip])
    return {
        "clip_start_sec": start,
        "clip_end_sec": end,
        "video_start_sec": start + offset,
        "video_end_sec": end + offset,
        "video_start_frame": max(0, math.floor((start + offset) * FRAME_RATE)),
        "video_end_frame": math.ceil((end + offset) * FRAME_RATE),
        **query,
    }


def _oddities(count: int, rng: np.random.Generator) -> list[str]:
    """The oddity of each question, "" for none; each kind at least once in 12 questions or more."""
    oddities = [""] * count
    order = iter(rng.permutation(count).tolist())
    for kind, share in ODD_SHARES.items():
        for _ in range(max(round(share * count), int(count >= 12))):
            oddities[next(order)] = kind
    return oddities


def write_narrations(path: Path, world: World, narrations: "pl.DataFrame", seed: int) -> None:
    """Write egoclip.csv, tab-separated, with a few malformed rows."""
    video = narrations["video"]
    table = narrations.select(
        pl.Series("video_uid", world.videos.uids).gather(video),
        pl.Series("video_dur", world.videos.duration).gather(video).round(3),
        pl.format("narration_pass_{}", "pass").alias("narration_source"),
        pl.int_range(pl.len()).over("video").alias("narration_ind"),
        pl.col("time").round(5).alias("narration_time"),
        pl.col("start").round(7).alias("clip_start"),
        pl.col("end").round(7).alias("clip_end"),
        pl.col("text").alias("clip_text"),
        pl.format("[{}]", "verb").alias("tag_verb"),
        pl.format("[{}]", "object").alias("tag_noun"),
    )
    rng = np.random.default_rng((seed, 8))
    malformed = _malformed(world.videos.uids[0], max(len(table) * MALFORMED_ROWS, 5.0), rng)
    positions = np.sort(rng.integers(0, len(table) + 1, len(malformed)))
    bounds = [0, *positions.tolist(), len(table)]
    with atomic_write(path) as file:
        file.write("\t".join(table.columns).encode() + b"\n")
        for part, (first, last) in enumerate(pairwise(bounds)):
            rows = table[first:last]
            rows.write_csv(file, separator="\t", include_header=False, quote_style="never")
            if part < len(malformed):
                file.write(malformed[part].encode() + b"\n")


def _malformed(uid: str, count: float, rng: np.random.Generator) -> list[str]:
    """Malformed rows: too short, too long, without times, without text."""
    faults = (
        uid,
        f"{uid}\t100.0\tnarration_pass_1\t3\t5.0\t4.5\t5.5\t#C C puts\tthe cup\t[1]\t[2]",
        f"{uid}\t100.0\tnarration_pass_1\t4\t5.0\tn/a\t5.5\t#C C puts the cup\t[1]\t[2]",
        f"{uid}\t100.0\tnarration_pass_1\t5\t5.0\t\t\t#C C puts the cup\t[1]\t[2]",
        f"{uid}\t100.0\tnarration_pass_2\t6\t5.0\t4.5\t5.5\t\t[1]\t[2]",
    )
    return [faults[i % len(faults)] for i in rng.permutation(round(count))]
