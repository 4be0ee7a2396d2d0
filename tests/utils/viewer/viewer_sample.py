"""A made-up split and challenge files to look through, of any size, and the page of them."""

import json
from pathlib import Path

import numpy as np

from utils.data.annotations import iter_queries, read_annotations
from utils.evaluation.predictions import write_results
from utils.evaluation.scoring import true_windows
from utils.view_predictions import main

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>&amp;"
PER_CLIP = 10  # queries
OBJECTS = ("knife", "cup", "red box")
TEMPLATES = (
    "Objects: Where is object X?",
    "People: Who did I interact with when I did activity X?",
    None,
)


def write_split(folder: Path, queries: int) -> Path:
    """Annotations with ground truth; the second query is hostile text, one query is null."""
    random = np.random.default_rng(0)
    clips = []
    for first in range(0, queries, PER_CLIP):
        number = first // PER_CLIP
        entries = []
        for row in range(first, min(first + PER_CLIP, queries)):
            start = float(random.uniform(0, 400))
            entries.append(
                {
                    "query": f"where is the {OBJECTS[row % 3]} number {row}?",
                    "clip_start_sec": start,
                    "clip_end_sec": start + float(random.exponential(8)),
                    "template": TEMPLATES[row % 3],
                    "slot_x": OBJECTS[row % 3],
                }
            )
        if number == 0:
            entries[1] |= {"query": HOSTILE, "template": f"T{HOSTILE}", "slot_x": f"S{HOSTILE}"}
            entries.insert(3, {"query": None})
        annotation = {
            "annotation_uid": f"annotation-{number}{HOSTILE if number == 0 else ''}",
            "language_queries": entries,
        }
        clips.append(
            {
                "clip_uid": f"clip-{number:03}",
                "video_start_sec": 20.0,
                "video_end_sec": 500.0,
                "annotations": [annotation],
            }
        )
    videos = [{"video_uid": f"video-{clip['clip_uid']}", "clips": [clip]} for clip in clips]
    path = folder / "split.json"
    path.write_text(json.dumps({"videos": videos}))
    return path


def without_times(split: Path) -> Path:
    """The split as a test split: queries with their text alone."""
    content = json.loads(split.read_text())
    for video in content["videos"]:
        [annotation] = video["clips"][0]["annotations"]
        texts = [query["query"] for query in annotation["language_queries"]]
        annotation["language_queries"] = [{"query": text} for text in texts]
    split.write_text(json.dumps(content))
    return split


def write_predictions_of(annotations: Path, path: Path, spread: float, seed: int = 0) -> Path:
    """A challenge file whose windows lie around the true ones, `spread` seconds off."""
    queries = list(iter_queries(read_annotations(annotations)))
    noise = np.random.default_rng(seed).normal(0, spread, (len(queries), 5, 2))
    windows = np.sort(np.maximum(true_windows(queries)[:, None] + noise, 0), axis=2)
    write_results(path, [query.key for query in queries], windows)
    return path


def write_narrations(folder: Path, clips: int) -> Path:
    """EgoClip's table with three narrations a clip, hostile ones among them."""
    head = "video_uid\tclip_start\tclip_end\tclip_text"
    lines = [
        f"video-clip-{clip:03}\t{20 + at}\t{21 + at}\t#C C {text}"
        for clip in range(clips)
        for at, text in ((30, "picks the knife"), (10, HOSTILE), (479.5, "leaves"))
    ]
    path = folder / "egoclip.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def view(*arguments: object) -> None:
    """Run the program in this process."""
    main([str(argument) for argument in arguments])


def make_page(folder: Path, queries: int) -> tuple[Path, Path, list[Path]]:
    """The page of a split and two challenge files: the page, the split, the files."""
    split = write_split(folder, queries)
    files = [
        write_predictions_of(split, folder / "wide.json", 20.0, seed=1),
        write_predictions_of(split, folder / "close.json", 3.0, seed=2),
    ]
    page = folder / "page.html"
    view(
        "--annotations", split, "--output", page,
        "--narrations", write_narrations(folder, -(-queries // 10)),
        "--predictions", f"Wide {HOSTILE}={files[0]}", f"Close={files[1]}",
    )  # fmt: skip
    return page, split, files
