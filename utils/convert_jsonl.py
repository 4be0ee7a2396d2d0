"""Convert JSON lines of queries, as GroundNLQ and OSGNet read them, to the NLQ schema.

    python utils/convert_jsonl.py --input ego4d_nlq_val_v2.jsonl --split val --output nlq_val.json

A line holds `query`, `query_id` (`<annotation_uid>_<index>`), `video_id` (the clip's uid),
`duration` and, but for test splits, `timestamps` [[start, end]] in clip seconds. The lines do not
say which video a clip is cut out of: each clip is given as a video of its own.
"""

import sys
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from msgspec import Meta, Struct

from utils.base.errors import UserError, run_program
from utils.base.files import check_output, parse_json, write_json
from utils.base.options import ArgumentParser
from utils.base.tasks import SPLITS
from utils.data.annotations import JSON_LINES, clip_name_fault

MOST_QUERIES = 10_000  # of an annotation


class JsonLine(Struct):
    query: str
    query_id: Annotated[str, Meta(pattern=r"^.+_[0-9]{1,9}$")]
    video_id: str
    duration: Annotated[float, Meta(gt=0)]
    timestamps: Annotated[list[tuple[float, float]], Meta(max_length=1)] = []


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--input", required=True, metavar="FILE", help="JSON lines (.jsonl)")
    add("--split", required=True, choices=SPLITS, help="the split they are of")
    add("--output", required=True, metavar="FILE", help="annotations to write (.json)")
    options = parser.parse_args(arguments)
    check_output("--output", options.output)
    annotations, queries, windows = convert(Path(options.input), options.split)
    write_json(options.output, annotations)
    clips = len(annotations["videos"])
    print(f"{queries} queries, {windows} with a window, {clips} clips: {options.output}")


def convert(path: Path, split: str) -> tuple[dict, int, int]:
    """Annotations in the NLQ schema, the number of queries, and how many have a window.

    Missing indices become queries without text, so that each query keeps its index.

    Raises:
        UserError: the file is missing, a line is invalid, or lines contradict each other.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    clips: dict[str, dict] = {}  # by uid
    clip_of: dict[str, str] = {}  # of each annotation
    queries: dict[str, dict[int, dict]] = {}  # by annotation and index
    windows = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            if not content.strip():
                continue
            source = f"{path}: line {number}"
            line = parse_json(content, JsonLine, source)
            annotation, _, index_text = line.query_id.rpartition("_")
            index, uid = int(index_text), line.video_id
            if fault := clip_name_fault(uid):
                raise UserError(f"{source}: {fault}")
            if index >= MOST_QUERIES:
                raise UserError(f"{source}: query_id {line.query_id} counts over {MOST_QUERIES}")
            clip = clips.setdefault(uid, _clip(line))
            if clip["video_end_sec"] != line.duration:
                raise UserError(f"{source}: clip {uid} has another duration than before")
            if clip_of.setdefault(annotation, uid) != uid:
                raise UserError(f"{source}: annotation {annotation} is of another clip before")
            by_index = queries.setdefault(annotation, {})
            if index in by_index:
                raise UserError(f"{source}: query_id {line.query_id} is given twice")
            by_index[index] = _query(line)
            windows += len(line.timestamps)
    if not clips:
        raise UserError(f"{path}: holds no queries")
    for annotation, by_index in queries.items():
        listed = [by_index.get(index, {"query": None}) for index in range(max(by_index) + 1)]
        entry = {"annotation_uid": annotation, "language_queries": listed}
        clips[clip_of[annotation]]["annotations"].append(entry)
    videos = [{"video_uid": uid, "split": split, "clips": [clip]} for uid, clip in clips.items()]
    return {"version": JSON_LINES, "videos": videos}, sum(map(len, queries.values())), windows


def _clip(line: JsonLine) -> dict:
    times = {"video_start_sec": 0.0, "video_end_sec": line.duration}
    return {"clip_uid": line.video_id, **times, "annotations": []}


def _query(line: JsonLine) -> dict:
    query: dict = {"query": line.query}
    for start, end in line.timestamps:
        query |= {"clip_start_sec": start, "clip_end_sec": end}
        query |= {"video_start_sec": start, "video_end_sec": end}
    return query


if __name__ == "__main__":
    run_program(main)
