"""Public TACoS annotations to the NLQ schema: tacos_{train,val,test}.json under the data root.

The public files, {train,val,test}.json, hold for each video its frame rate, its number of frames,
sentences, and their windows in frames. A clip is a whole video; sentences are the queries.
"""

import math
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from utils.base.errors import UserError, run_program
from utils.base.files import read_json, write_json
from utils.base.options import ArgumentParser
from utils.base.tasks import SPLITS, TASKS
from utils.data.annotations import clip_name_fault

# What real files contain; counted so that nobody has to wonder.
ODDITIES = ("reversed", "of zero length", "past the end")


def main(arguments: list[str] | None = None) -> None:
    """Convert the three splits and print how much each holds."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--input_dir", required=True, metavar="DIR", help="folder of {train,val,test}.json"
    )
    parser.add_argument("--data_root", default="data", metavar="DIR", help="folder to write")
    options = parser.parse_args(arguments)
    print(f"{'split':<6} {'queries':>8} {'clips':>6}  windows")
    for split in SPLITS:
        annotations, queries, oddities = convert_split(
            Path(options.input_dir) / f"{split}.json", split
        )
        write_json(Path(options.data_root) / TASKS["tacos"].annotations[split], annotations)
        notes = ", ".join(f"{count} {kind}" for kind, count in oddities.items())
        print(f"{split:<6} {queries:>8} {len(annotations['videos']):>6}  {notes}", flush=True)


def convert_split(path: Path, split: str) -> tuple[dict, int, dict[str, int]]:
    """Convert one public file.

    Reversed windows are turned round; windows of zero length, or ending past the video, are kept
    as NLQ's own are.

    Returns: annotations in the NLQ schema, the number of queries, and how many windows are odd.

    Raises:
        UserError: the file is missing or not of the public form.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be an object of videos; is it the public TACoS file?")
    videos, queries, oddities = [], 0, dict.fromkeys(ODDITIES, 0)
    for name, video in content.items():
        if fault := _video_fault(name, video):
            raise UserError(f"{path}: {name}: {fault}")
        clip = _clip(name, video, oddities)
        queries += len(video["sentences"])
        videos.append({"video_uid": name, "split": split, "clips": [clip]})
    return {"version": "tacos", "videos": videos}, queries, oddities


def _clip(name: str, video: dict, oddities: dict[str, int]) -> dict:
    fps, frames = video["fps"], video["num_frames"]
    queries = []
    for (first, last), sentence in zip(video["timestamps"], video["sentences"], strict=True):
        oddities["reversed"] += first > last
        oddities["of zero length"] += first == last
        first, last = min(first, last), max(first, last)
        oddities["past the end"] += last > frames
        start, end = first / fps, last / fps
        queries.append(
            {
                "query": sentence,
                "clip_start_sec": start,
                "clip_end_sec": end,
                "video_start_sec": start,
                "video_end_sec": end,
                "video_start_frame": first,
                "video_end_frame": last,
            }
        )
    return {
        "clip_uid": name,
        "video_start_sec": 0.0,
        "video_end_sec": frames / fps,
        "video_start_frame": 0,
        "video_end_frame": frames,
        "annotations": [{"annotation_uid": name, "language_queries": queries}],
    }


def _video_fault(name: str, video: Any) -> str | None:
    """What keeps a public entry from being converted, or None."""
    if fault := clip_name_fault(name):
        return fault
    if not isinstance(video, dict):
        return "must be an object"
    for key in ("fps", "num_frames"):
        if not _is_number(video.get(key)) or video[key] <= 0:
            return f"{key} must be a number above 0"
    for key in ("timestamps", "sentences"):
        if not isinstance(video.get(key), list):
            return f"{key} must be a list"
    if len(video["timestamps"]) != len(video["sentences"]):
        return "timestamps and sentences differ in number"
    for index, window in enumerate(video["timestamps"]):
        if not isinstance(window, list) or len(window) != 2 or not all(map(_is_number, window)):
            return f"timestamps[{index}] must be two frame numbers"
    for index, sentence in enumerate(video["sentences"]):
        if not isinstance(sentence, str):
            return f"sentences[{index}] must be a text"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


if __name__ == "__main__":
    run_program(main)
