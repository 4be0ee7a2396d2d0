"""Annotation files to prepared data sets: DIR/{train,val,test}.json, one entry a clip.

Takes files in the Ego4D schema (NLQ, NLQ joined with NaQ, TACoS). Times become positions of
feature rows, 1.875 a second, beside the exact seconds.
"""

import gc
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from utils.annotations import Query, iter_clips, iter_queries, read_annotations
from utils.errors import UserError, run_program, warn
from utils.files import write_json
from utils.options import ArgumentParser
from utils.records import clean_sentence
from utils.tasks import ROWS_PER_SECOND, SPLITS


def main(arguments: list[str] | None = None) -> None:
    """Prepare the three splits and print how much each holds."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    for split in SPLITS:
        explanation = f"annotations of the {split} split"
        if split == "test":
            explanation += "; its queries may lack times"
        parser.add_argument(
            f"--input_{split}_split", required=True, metavar="FILE", help=explanation
        )
    parser.add_argument(
        "--output_save_path",
        required=True,
        metavar="DIR",
        help="folder to write, such as data/dataset/nlq_official_v1",
    )
    options = parser.parse_args(arguments)
    inputs = {split: Path(getattr(options, f"input_{split}_split")) for split in SPLITS}
    for split, path in inputs.items():  # found before the first split is worked on for minutes
        if not path.is_file():
            raise UserError(f"--input_{split}_split {path}: no such file")
    counts = {}
    for split, path in inputs.items():
        clips = prepare_split(path, has_times=split != "test")
        write_json(Path(options.output_save_path) / f"{split}.json", clips)
        counts[split] = sum(len(clip["sentences"]) for clip in clips.values()), len(clips)
    print(f"{'split':<6} {'queries':>10} {'clips':>8}")
    for split, (queries, clips) in counts.items():
        print(f"{split:<6} {queries:>10} {clips:>8}")


def prepare_split(path: str | Path, has_times: bool = True) -> dict[str, dict]:
    """Bring the queries of an annotation file into the form that both models read.

    Queries without text are left out, and so are clips without queries. Without `has_times`,
    queries may lack times and then get 0, 0.

    Returns: clip uid -> `fps` (feature rows a second), `num_frames` (feature rows), and one entry
    a query in each of `timestamps` (rows), `exact_times` (s in the clip), `sentences`,
    `annotation_uids`, `query_idx`.

    Raises:
        UserError: the file is missing or malformed, or a query lacks times it should have.
    """
    annotations = read_annotations(path)
    clips: dict[str, dict] = {}
    for _, clip in iter_clips(annotations):
        entry = _new_entry(clip)
        if clips.setdefault(clip["clip_uid"], entry)["num_frames"] != entry["num_frames"]:
            raise UserError(f"{path}: clip {clip['clip_uid']} is listed with two durations")
    reversed_windows = 0
    for query in tqdm(iter_queries(annotations), desc=f"preparing {path}", unit="query"):
        start, end = _times(query, has_times, path)
        reversed_windows += end < start
        entry = clips[query.clip_uid]
        entry["timestamps"].append([int(start * ROWS_PER_SECOND), int(end * ROWS_PER_SECOND)])
        entry["exact_times"].append([start, end])
        entry["sentences"].append(clean_sentence(query.query["query"]))
        entry["annotation_uids"].append(query.annotation_uid)
        entry["query_idx"].append(query.query_idx)
    if reversed_windows:
        warn(f"{path}: {reversed_windows} windows end before they start; kept as they are")
    clips = {uid: entry for uid, entry in clips.items() if entry["sentences"]}
    for uid, entry in clips.items():
        if entry["num_frames"] < 1:
            raise UserError(
                f"{path}: clip {uid} is shorter than one feature row, 16/30 s; take it out"
            )
    return clips


def _new_entry(clip: dict) -> dict:
    duration = clip["video_end_sec"] - clip["video_start_sec"]
    return {
        "fps": ROWS_PER_SECOND,
        "num_frames": int(duration * ROWS_PER_SECOND),
        "timestamps": [],
        "exact_times": [],
        "sentences": [],
        "annotation_uids": [],
        "query_idx": [],
    }


def _times(query: Query, has_times: bool, path: str | Path) -> tuple[float, float]:
    start, end = query.query.get("clip_start_sec"), query.query.get("clip_end_sec")
    if start is not None:
        return float(start), float(end)
    if has_times:
        raise UserError(
            f"{path}: query {query.query_idx} of annotation {query.annotation_uid} in clip "
            f"{query.clip_uid} has no clip_start_sec; only the test split may lack times"
        )
    return 0.0, 0.0


if __name__ == "__main__":
    gc.disable()  # a million small objects, none in a cycle: looking for cycles only costs time
    run_program(main)
