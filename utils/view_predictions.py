"""Make one HTML page to look through predictions: queries, windows, IoU, curves.

    python utils/view_predictions.py --annotations data/nlq_val.json --output predictions.html \\
        --predictions "NLQ only=scratch.json" "NaQ=tuned.json" --narrations data/egoclip.csv

The page is one file that needs no network; several challenge files stand side by side in it.
"""

import argparse
import base64
import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from utils.annotations import Query, iter_clips, iter_queries, read_annotations
from utils.errors import UserError, run_program, warn
from utils.files import atomic_write, read_json
from utils.metrics import iou
from utils.narrations import read_narrations
from utils.options import ArgumentParser
from utils.predictions import WINDOWS, read_predictions
from utils.records import NARRATION_MARK, read_records
from utils.scoring import predicted_windows, true_windows

VIEWER = Path(__file__).resolve().parent / "viewer"
SCRIPTS = ("page.js", "queries.js", "detail.js", "charts.js")  # one script, in this order
MOST_FILES = 6  # as many as there are colours that can be told apart

Narration = tuple[float, float, str]  # start and end in clip seconds, text


class Run(NamedTuple):
    """What one challenge file says of R queries."""

    name: str
    windows: np.ndarray  # (R, 5, 2) seconds, NaN where there are fewer
    answered: np.ndarray  # (R,) bool


def name_files(texts: list[str]) -> dict[str, str]:
    """Challenge files by the name they have in the page, out of `NAME=FILE` or `FILE`.

    Files without a name are called by their stem, or by their path where stems are the same.

    Raises:
        UserError: a name is given twice, or there are too many files.
    """
    if len(texts) > MOST_FILES:
        raise UserError(f"--predictions: {len(texts)} files; at most {MOST_FILES} fit side by side")
    stems = [Path(text).stem for text in texts]
    named: dict[str, str] = {}
    for text, stem in zip(texts, stems, strict=True):
        # Names and paths may hold a "=" too: what is there decides.
        splits = [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == "="]
        if not splits or Path(text).exists():
            name, file = stem if stems.count(stem) == 1 else text, text
        else:
            name, file = next((one for one in splits if Path(one[1]).is_file()), splits[0])
        if not name or not file:
            raise UserError(f"--predictions: '{text}' is not NAME=FILE")
        if name in named:
            raise UserError(f"--predictions: two files are named '{name}'; give each its own NAME=")
        named[name] = file
    return named


def read_run(name: str, file: str, queries: list[Query]) -> Run:
    """The first five windows that a challenge file gives to each query; others are warned of.

    Raises:
        UserError: the file is malformed, or none of its predictions is for these queries.
    """
    predictions = read_predictions(file)
    windows, answered = predicted_windows(queries, predictions, WINDOWS)
    if not answered.any():
        raise UserError(
            f"{file}: none of its {len(predictions)} predictions is for a query of the "
            "annotations: of another split or version?"
        )
    if strangers := len(predictions) - int(answered.sum()):
        warn(f"{file}: {strangers} predictions are for no query of the annotations; left out")
    return Run(name, windows, answered)


def clip_narrations(file: str, annotations: dict) -> dict[str, list[Narration]]:
    """Narrations of each clip of the annotations, by start.

    Out of EgoClip's table (`.csv`, `.tsv`), annotations with NaQ, or a prepared data set (`.json`);
    in the latter two, narrations are the queries that begin with `#`.
    """
    if Path(file).suffix != ".json":
        found = _egoclip_narrations(file, annotations)
    elif isinstance(content := read_json(file), dict) and "videos" in content:
        found = _naq_narrations(file)
    else:
        found = _prepared_narrations(file)
    wanted = {clip["clip_uid"] for _, clip in iter_clips(annotations)}
    found = {uid: sorted(own) for uid, own in found.items() if uid in wanted and own}
    if not found:
        warn(f"{file}: holds no narration of the {len(wanted)} clips; the page has none")
    return found


def _egoclip_narrations(file: str, annotations: dict) -> dict[str, list[Narration]]:
    clips = list(iter_clips(annotations))
    rows = read_narrations(file, list(dict.fromkeys(video["video_uid"] for video, _ in clips)))
    found = {}
    for video, clip in tqdm(clips, desc="narrations of clips", unit="clip", disable=None):
        start = clip["video_start_sec"]
        inside = rows.inside(video["video_uid"], start, clip["video_end_sec"])
        times = rows.starts[inside] - start, rows.ends[inside] - start
        texts = rows.texts[inside].to_list()
        found[clip["clip_uid"]] = list(zip(*(t.tolist() for t in times), texts, strict=True))
    return found


def _naq_narrations(file: str) -> dict[str, list[Narration]]:
    found: dict[str, list[Narration]] = {}
    for query in iter_queries(read_annotations(file)):
        text, start = query.query["query"], query.query.get("clip_start_sec")
        if text.startswith(NARRATION_MARK) and start is not None:
            narration = (start, query.query["clip_end_sec"], text)
            found.setdefault(query.clip_uid, []).append(narration)
    return found


def _prepared_narrations(file: str) -> dict[str, list[Narration]]:
    records = read_records(file)
    found: dict[str, list[Narration]] = {}
    for row in np.flatnonzero(records.is_narration).tolist():
        text = records.sentences[records.sentence[row]]
        own = found.setdefault(records.clip_uids[records.clip[row]], [])
        own.append((*records.exact[row].tolist(), text))
    return found


def page_data(
    annotations: dict,
    queries: list[Query],
    runs: list[Run],
    narrations: dict[str, list[Narration]],
    videos: dict[str, str],
) -> dict[str, Any]:
    """All that the page shows, as columns for JSON; IoU are those of `utils.metrics`, unrounded.

    Texts that queries share are numbered; numbers are aligned with the queries (R); windows and
    IoU are flat, (R * 5 * 2) and (R * 5), with NaN for none, which JSON writes as null.

    Args:
        videos: clip uid -> address of its video.
    """
    truth = true_windows(queries)  # (R, 2)
    lengths = {
        clip["clip_uid"]: clip["video_end_sec"] - clip["video_start_sec"]
        for _, clip in iter_clips(annotations)
    }
    clips, clip = number(query.clip_uid for query in queries)
    sources, source = number(query.annotation_uid for query in queries)
    templates, template = number(_text(query, "template") for query in queries)
    objects, slot = number(_text(query, "slot_x") for query in queries)
    return {
        "perQuery": WINDOWS,
        "clips": [
            {
                "uid": uid,
                "seconds": round(lengths[uid], 3),
                "narrations": [
                    (round(s, 2), round(e, 2), text) for s, e, text in narrations.get(uid, ())
                ],
                "video": videos.get(uid),
            }
            for uid in clips
        ],
        "annotations": sources,
        "templates": templates,
        "objects": objects,
        "queries": {
            "text": [query.query["query"] for query in queries],
            "clip": clip,
            "annotation": source,
            "index": [query.query_idx for query in queries],
            "template": template,
            "object": slot,
            "truth": np.round(truth, 3).ravel(),
        },
        "runs": [
            {
                "name": run.name,
                "answered": run.answered,
                "windows": np.round(run.windows, 3).ravel(),
                "iou": np.where(
                    np.isnan(run.windows).any(axis=2) | np.isnan(truth).any(axis=1)[:, None],
                    np.nan,
                    iou(run.windows, truth[:, None]),
                ).ravel(),
            }
            for run in runs
        ],
    }


def number(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """Distinct texts in the order they come, and the number of each text among them."""
    table: dict[str, int] = {}
    numbers = [table.setdefault(text, len(table)) for text in texts]
    return list(table), numbers


def _text(query: Query, key: str) -> str:
    value = query.query.get(key)
    return value.strip() if isinstance(value, str) else ""


def render(title: str, data: dict[str, Any]) -> str:
    """The page.

    Texts of the files are nowhere markup: the title is escaped, the data is JSON without any `<`,
    which the script puts in as text; and the page allows no script but its own.
    """
    pages = Environment(
        loader=FileSystemLoader(VIEWER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (VIEWER / "page.css").read_text(encoding="utf-8")
    script = "".join((VIEWER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    content = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return pages.get_template("page.html").render(
        title=title,
        style=Markup(style),
        style_hash=_digest(style),
        script=Markup(script),
        script_hash=_digest(script),
        data=Markup(content.replace("<", "\\u003c")),
    )


def _digest(text: str) -> str:
    """As a content security policy names an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def find_videos(folder: str, output: str, annotations: dict) -> dict[str, str]:
    """Addresses, relative to the page, of those clips that have a `<clip_uid>.mp4` in a folder.

    Raises:
        UserError: no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--videos {folder}: no such folder")
    uids = [clip["clip_uid"] for _, clip in iter_clips(annotations)]
    files = {uid: Path(folder) / f"{uid}.mp4" for uid in uids}
    found = {
        uid: quote(Path(os.path.relpath(file, Path(output).parent)).as_posix())
        for uid, file in files.items()
        if file.is_file()
    }
    if len(found) < len(files):
        warn(f"{folder}: holds videos of {len(found)} of {len(files)} clips")
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--predictions", required=True, nargs="+", metavar="[NAME=]FILE",
        help=f"challenge files to show side by side, at most {MOST_FILES}",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", required=True, metavar="FILE",
        help="their split: with ground truth, or the unannotated one",
    )  # fmt: skip
    parser.add_argument(
        "--narrations", metavar="FILE",
        help="narrations to show: egoclip.csv, annotations with NaQ, or a prepared data set",
    )  # fmt: skip
    parser.add_argument("--videos", metavar="DIR", help="folder with <clip_uid>.mp4 to play")
    parser.add_argument("--output", required=True, metavar="FILE", help="the page to write (.html)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read all files, write the page."""
    options = parse(arguments)
    files = name_files(options.predictions)
    annotations = read_annotations(options.annotations)
    queries = list(iter_queries(annotations))
    if not queries:
        raise UserError(f"{options.annotations}: holds no language queries to show")
    runs = [read_run(name, file, queries) for name, file in files.items()]
    narrations = clip_narrations(options.narrations, annotations) if options.narrations else {}
    videos = find_videos(options.videos, options.output, annotations) if options.videos else {}
    page = render(
        f"Predictions: {', '.join(files)}",
        page_data(annotations, queries, runs, narrations, videos),
    ).encode()
    with atomic_write(options.output) as file:
        file.write(page)
    print(
        f"{len(queries)} queries, {len(runs)} file{'s' if len(runs) > 1 else ''} of predictions, "
        f"{len(page) / 1e6:.1f} MB: open {options.output} in a browser"
    )


if __name__ == "__main__":
    run_program(main)
