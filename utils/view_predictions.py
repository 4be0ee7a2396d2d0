"""Make one HTML page to look through predictions: queries, windows, IoU, curves.

    python utils/view_predictions.py --annotations data/nlq_val.json --output predictions.html \\
        --predictions "NLQ only=scratch.json" "NaQ=tuned.json" --narrations data/egoclip.csv

The page is one file that needs no network; it shows several challenge files side by side.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
from msgspec import Raw
from tqdm import tqdm

from utils.base.errors import UserError, run_program, warn
from utils.base.files import read_json
from utils.base.options import ArgumentParser
from utils.data.annotations import Annotations, Query, iter_clips, iter_queries, read_annotations
from utils.data.egoclip import read_narrations
from utils.data.records import NARRATION_MARK, read_records
from utils.evaluation.predictions import WINDOWS
from utils.evaluation.scoring import read_windows, true_windows
from utils.viewer.page import (
    Narration,
    PageClip,
    PageQueries,
    PageRun,
    address,
    check_page,
    write_page,
)

MOST_FILES = 6  # as many as there are colours that can be told apart


def name_files(texts: list[str]) -> dict[str, str]:
    """Challenge files by their name in the page, from texts `NAME=FILE` or `FILE`.

    A file without a name is named by its stem, or by its path if several stems are equal.

    Raises:
        UserError: a name is given twice, or there are too many files.
    """
    if len(texts) > MOST_FILES:
        raise UserError(f"--predictions: {len(texts)} files; at most {MOST_FILES} fit side by side")
    stems = [Path(text).stem for text in texts]
    files: dict[str, str] = {}
    for text, stem in zip(texts, stems, strict=True):
        # Names and paths may contain "=": the file that exists decides.
        splits = [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == "="]
        if not splits or Path(text).exists():
            name, file = stem if stems.count(stem) == 1 else text, text
        else:
            name, file = next((split for split in splits if Path(split[1]).is_file()), splits[0])
        if not name or not file:
            raise UserError(f"--predictions: '{text}' is not NAME=FILE")
        if name in files:
            raise UserError(f"--predictions: two files are named '{name}'; give each its own NAME=")
        files[name] = file
    return files


def read_run(name: str, file: str, queries: list[Query]) -> PageRun:
    """Read the first five windows of each query; warns of predictions for other queries."""
    windows, answered, unknown = read_windows(file, queries, WINDOWS)
    if unknown:
        warn(f"{file}: {unknown} predictions are for no query of the annotations; left out")
    return PageRun(name, windows, answered)


def clip_narrations(file: str, annotations: Annotations) -> dict[str, list[Narration]]:
    """Narrations of each clip of the annotations, by start.

    Read from EgoClip's table (`.csv`, `.tsv`), annotations with NaQ or a prepared data set
    (`.json`), where narrations are the queries that begin with `#`.
    """
    if Path(file).suffix != ".json":
        pairs = _egoclip_narrations(file, annotations)
    elif "videos" in read_json(file, dict[str, Raw]):
        pairs = _naq_narrations(file)
    else:
        pairs = _prepared_narrations(file)
    narrations: dict[str, list] = {clip.clip_uid: [] for _, clip in iter_clips(annotations)}
    for uid, narration in pairs:
        if uid in narrations:
            narrations[uid].append(narration)
    if not any(narrations.values()):
        warn(f"{file}: holds no narration of the {len(narrations)} clips; the page has none")
    return {uid: sorted(of_clip) for uid, of_clip in narrations.items() if of_clip}


Pairs = Iterator[tuple[str, Narration]]  # clip uid, narration


def _egoclip_narrations(file: str, annotations: Annotations) -> Pairs:
    clips = list(iter_clips(annotations))
    rows = read_narrations(file, list(dict.fromkeys(video.video_uid for video, _ in clips)))
    for video, clip in tqdm(clips, desc="narrations of clips", unit="clip", disable=None):
        inside = rows.inside(video.video_uid, *clip.bounds)
        times = (np.stack([rows.starts[inside], rows.ends[inside]], 1) - clip.bounds[0]).tolist()
        for (start, end), text in zip(times, rows.texts[inside], strict=True):
            yield clip.clip_uid, (start, end, text)


def _naq_narrations(file: str) -> Pairs:
    for query in iter_queries(read_annotations(file)):
        if query.text.startswith(NARRATION_MARK) and query.window is not None:
            yield query.clip_uid, (*query.window, query.text)


def _prepared_narrations(file: str) -> Pairs:
    records = read_records(file)
    for row in np.flatnonzero(records.is_narration).tolist():
        text = records.sentences[records.sentence[row]]
        yield records.clip_uids[records.clip[row]], (*records.exact[row].tolist(), text)


def page_queries(queries: list[Query]) -> PageQueries:
    return PageQueries(
        text=[query.text for query in queries],
        clip=[query.clip_uid for query in queries],
        truth=true_windows(queries),
        annotation=[query.annotation_uid for query in queries],
        index=[query.query_idx for query in queries],
        template=[(query.template or "").strip() for query in queries],
        object=[(query.slot_x or "").strip() for query in queries],
    )


def find_videos(folder: str, output: str, annotations: Annotations) -> dict[str, str]:
    """Addresses, relative to the page, of the videos `<clip_uid>.mp4` in a folder, by clip uid.

    Raises:
        UserError: no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--videos {folder}: no such folder")
    uids = [clip.clip_uid for _, clip in iter_clips(annotations)]
    files = {uid: Path(folder) / f"{uid}.mp4" for uid in uids}
    addresses = {uid: address(file, output) for uid, file in files.items() if file.is_file()}
    if len(addresses) < len(files):
        warn(f"{folder}: holds videos of {len(addresses)} of {len(files)} clips")
    return addresses


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--predictions", required=True, nargs="+", metavar="[NAME=]FILE",
        help=f"challenge files to show side by side, at most {MOST_FILES}",
    )  # fmt: skip
    add(
        "--annotations", required=True, metavar="FILE",
        help="their split: with ground truth, or the unannotated one",
    )  # fmt: skip
    add(
        "--narrations", metavar="FILE",
        help="narrations to show: egoclip.csv, annotations with NaQ, or a prepared data set",
    )  # fmt: skip
    add("--videos", metavar="DIR", help="folder with <clip_uid>.mp4 to play")
    add("--output", required=True, metavar="FILE", help="the page to write (.html)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    check_page("--output", options.output)
    files = name_files(options.predictions)
    annotations = read_annotations(options.annotations)
    queries = list(iter_queries(annotations))
    if not queries:
        raise UserError(f"{options.annotations}: holds no language queries to show")
    runs = [read_run(name, file, queries) for name, file in files.items()]
    narrations = clip_narrations(options.narrations, annotations) if options.narrations else {}
    videos = find_videos(options.videos, options.output, annotations) if options.videos else {}
    clips = {}
    for video, clip in iter_clips(annotations):
        uid = clip.clip_uid
        clips[uid] = PageClip(
            clip.duration, narrations.get(uid, ()), videos.get(uid), video.video_uid
        )
    size = write_page(options.output, page_queries(queries), runs, clips)
    print(
        f"{len(queries)} queries, {len(runs)} file{'s' if len(runs) > 1 else ''} of predictions, "
        f"{size / 1e6:.1f} MB: open {options.output} in a browser"
    )


if __name__ == "__main__":
    run_program(main)
