"""A made-up split and challenge files to look through, of any size, and the page of them."""

import json
from pathlib import Path

import numpy as np

from utils.evaluation.predictions import write_results
from utils.view_predictions import main

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>&amp;"
OBJECTS = ("knife", "cup", "red box")
TEMPLATES = (
    "Objects: Where is object X?",
    "People: Who did I interact with when I did activity X?",
    None,
)


def write_split(folder: Path, queries: int, per_clip: int = 10, seed: int = 0) -> Path:
    """Annotations with ground truth; the second query is hostile text, some queries are null."""
    random = np.random.default_rng(seed)
    clips = []
    for first in range(0, queries, per_clip):
        number = first // per_clip
        asked = []
        for row in range(first, min(first + per_clip, queries)):
            start = float(random.uniform(0, 400))
            asked.append(
                {
                    "query": f"where is the {OBJECTS[row % 3]} number {row}?",
                    "clip_start_sec": start,
                    "clip_end_sec": start + float(random.exponential(8)),
                    "template": TEMPLATES[row % 3],
                    "slot_x": OBJECTS[row % 3],
                }
            )
        if number == 0:
            asked[1] |= {"query": HOSTILE, "template": f"T{HOSTILE}", "slot_x": f"S{HOSTILE}"}
            asked.insert(3, {"query": None})
        annotation = {
            "annotation_uid": f"annotation-{number}{HOSTILE if number == 0 else ''}",
            "language_queries": asked,
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


def write_predictions_of(annotations: Path, path: Path, spread: float, seed: int = 0) -> Path:
    """A challenge file whose windows lie around the true ones, `spread` seconds off."""
    random = np.random.default_rng(seed)
    keys, windows = [], []
    for video in json.loads(annotations.read_text())["videos"]:
        for clip in video["clips"]:
            for annotation in clip["annotations"]:
                for index, query in enumerate(annotation["language_queries"]):
                    if not query["query"]:
                        continue
                    keys.append((clip["clip_uid"], annotation["annotation_uid"], index))
                    true = np.array([query["clip_start_sec"], query["clip_end_sec"]])
                    off = random.normal(0, spread, size=(5, 2))
                    windows.append(np.sort(np.maximum(true + off, 0), axis=1))
    write_results(path, keys, np.array(windows))
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
