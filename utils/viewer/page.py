"""The page of queries, windows and curves: one HTML file that needs no network.

What it shows comes from challenge files (`view_predictions.py`) or from answers (`ask.py`).
R queries, k windows each.
"""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.base.errors import UserError
from utils.base.files import atomic_write, check_output, to_json
from utils.evaluation.metrics import iou

VIEWER = Path(__file__).resolve().parent
# One script, in this order.
SCRIPTS = ("elements.js", "page.js", "queries.js", "detail.js", "charts.js")

Narration = tuple[float, float, str]  # start and end in clip seconds, text


class PageClip(NamedTuple):
    """The clip, or whole video, of queries."""

    seconds: float
    narrations: Sequence[Narration] = ()
    video: str | None = None  # address of the video file
    video_uid: str = ""  # of the clip's video


class PageQueries(NamedTuple):
    """R queries; the columns of annotations are optional."""

    text: list[str]
    clip: list[str]  # uids
    truth: np.ndarray | None = None  # (R, 2) seconds, NaN for a query without times
    annotation: list[str] | None = None  # uids
    index: list[int] | None = None  # positions in the annotations
    template: list[str] | None = None
    object: list[str] | None = None


class PageRun(NamedTuple):
    """The windows of one challenge file, or of one trained run."""

    name: str
    windows: np.ndarray  # (R, k, 2) seconds, padded with NaN
    answered: np.ndarray  # (R,) bool
    scores: np.ndarray | None = None  # (R, k)
    score_name: str = "score"


def check_page(option: str, file: str) -> None:
    """Raise UserError if a page of that name can't be written, or browsers would not show it."""
    if Path(file).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{option} {file}: browsers need a name that ends with .html")
    check_output(option, file)


def address(file: str | Path, page: str | Path) -> str:
    """The address of a file relative to a page, so that both can be moved together."""
    return quote(os.fsencode(Path(os.path.relpath(file, Path(page).parent)).as_posix()))


def write_page(
    file: str | Path,
    queries: PageQueries,
    runs: Sequence[PageRun],
    clips: Mapping[str, PageClip],
    *,
    answers: bool = False,
) -> int:
    """Write the page atomically; returns its size in bytes.

    Texts of the files can't become markup: the title is escaped, the data is JSON without `<` that
    the script inserts as text, and the page allows no other script.

    Args:
        runs: all with the same k.
        clips: by uid.
        answers: show answers to questions: times as h:mm:ss, no figures, no charts.
    """
    heading = "Answers" if answers else "Predictions"
    names = dict.fromkeys(queries.clip) if answers else [run.name for run in runs]
    pages = Environment(
        loader=FileSystemLoader(VIEWER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (VIEWER / "page.css").read_text(encoding="utf-8")
    script = "".join((VIEWER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    data = {"answers": answers, **_columns(queries, runs, clips)}
    content = to_json(data).decode()
    page = pages.get_template("page.html").render(
        answers=answers,
        heading=heading,
        title=f"{heading}: {', '.join(names)}",
        style=Markup(style),
        style_hash=_digest(style),
        script=Markup(script),
        script_hash=_digest(script),
        data=Markup(content.replace("<", "\\u003c")),
    )
    with atomic_write(file) as stream:
        return stream.write(page.encode())


def _columns(
    queries: PageQueries, runs: Sequence[PageRun], clips: Mapping[str, PageClip]
) -> dict[str, Any]:
    """The content of the page as columns for JSON; IoU are not rounded, as in `metrics`.

    Texts that queries share are numbered. Windows (R * k * 2), IoU and scores (R * k) are flat,
    padded with NaN, which is written as null.
    """
    empty = [""] * len(queries.text)
    truth = np.full((len(empty), 2), np.nan) if queries.truth is None else queries.truth
    clip_uids, clip = _numbered(queries.clip)
    annotations, annotation = _numbered(queries.annotation or empty)
    templates, template = _numbered(queries.template or empty)
    objects, slot = _numbered(queries.object or empty)
    return {
        "perQuery": runs[0].windows.shape[1],
        "clips": [
            {
                "uid": uid,
                "seconds": round(clips[uid].seconds, 3),
                "narrations": [(round(s, 2), round(e, 2), t) for s, e, t in clips[uid].narrations],
                "video": clips[uid].video,
                "videoUid": clips[uid].video_uid,
            }
            for uid in clip_uids
        ],
        "annotations": annotations,
        "templates": templates,
        "objects": objects,
        "queries": {
            "text": queries.text,
            "clip": clip,
            "annotation": annotation,
            "index": queries.index or [0] * len(empty),
            "template": template,
            "object": slot,
            "truth": np.round(truth, 3).ravel(),
        },
        "runs": [
            {
                "name": run.name,
                "answered": run.answered,
                "windows": np.round(run.windows, 3).ravel(),
                "scores": None if run.scores is None else run.scores.ravel(),
                "scoreName": run.score_name,
                "iou": np.where(
                    np.isnan(run.windows).any(axis=2) | np.isnan(truth).any(axis=1)[:, None],
                    np.nan,
                    iou(run.windows, truth[:, None]),
                ).ravel(),
            }
            for run in runs
        ],
    }


def _numbered(texts: list[str]) -> tuple[list[str], list[int]]:
    """Distinct texts in order of appearance, and the number of each text among them."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return list(numbers), [numbers[text] for text in texts]


def _digest(text: str) -> str:
    """The hash of an inline style or script for the content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
