"""The page of queries, windows and curves: one HTML file that needs no network.

What it shows comes from challenge files (`view_predictions.py`) or from answers (`ask.py`).
R queries, k windows each.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
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
SCRIPTS = ("page.js", "queries.js", "detail.js", "charts.js")  # one script, in this order

Narration = tuple[float, float, str]  # start and end in clip seconds, text


class Clip(NamedTuple):
    """What queries are about: a clip, or a whole video."""

    seconds: float
    narrations: Sequence[Narration] = ()
    video: str | None = None  # address to play it from


class Asked(NamedTuple):
    """R queries; columns may be left out where there are no annotations."""

    text: list[str]
    clip: list[str]  # uid of each
    truth: np.ndarray | None = None  # (R, 2) seconds, NaN for a query without times
    annotation: list[str] | None = None  # uid of each, and where the query stands in it
    index: list[int] | None = None
    template: list[str] | None = None
    object: list[str] | None = None


class Run(NamedTuple):
    """What one challenge file, or one trained run, answers."""

    name: str
    windows: np.ndarray  # (R, k, 2) seconds, NaN where there are fewer
    answered: np.ndarray  # (R,) bool
    scores: np.ndarray | None = None  # (R, k)


def page_data(
    asked: Asked, runs: Sequence[Run], clips: Mapping[str, Clip], *, answers: bool = False
) -> dict[str, Any]:
    """All that the page shows, as columns for JSON; IoU are unrounded, as in `metrics`.

    Texts that queries share are numbered; numbers are aligned with the queries (R); windows, IoU
    and scores are flat, (R * k * 2) and (R * k), with NaN for none, which JSON writes as null.

    Args:
        runs: all with the same k.
        clips: by uid.
        answers: to questions about a video of one's own: times as h:mm:ss, no figures, no charts.
    """
    none = [""] * len(asked.text)
    truth = np.full((len(asked.text), 2), np.nan) if asked.truth is None else asked.truth
    uids, clip = number(asked.clip)
    sources, source = number(asked.annotation or none)
    templates, template = number(asked.template or none)
    objects, slot = number(asked.object or none)
    return {
        "answers": answers,
        "perQuery": runs[0].windows.shape[1],
        "clips": [_clip(uid, clips[uid]) for uid in uids],
        "annotations": sources,
        "templates": templates,
        "objects": objects,
        "queries": {
            "text": asked.text,
            "clip": clip,
            "annotation": source,
            "index": asked.index or [0] * len(asked.text),
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
                "iou": np.where(
                    np.isnan(run.windows).any(axis=2) | np.isnan(truth).any(axis=1)[:, None],
                    np.nan,
                    iou(run.windows, truth[:, None]),
                ).ravel(),
            }
            for run in runs
        ],
    }


def _clip(uid: str, clip: Clip) -> dict[str, Any]:
    return {
        "uid": uid,
        "seconds": round(clip.seconds, 3),
        "narrations": [(round(s, 2), round(e, 2), text) for s, e, text in clip.narrations],
        "video": clip.video,
    }


def number(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """Distinct texts in the order they come, and the number of each text among them."""
    table: dict[str, int] = {}
    numbers = [table.setdefault(text, len(table)) for text in texts]
    return list(table), numbers


def check_page(option: str, file: str) -> None:
    """Refuse a name of a page that could not be written, or that browsers would not show.

    Raises:
        UserError: of which kind it is.
    """
    if Path(file).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{option} {file}: browsers want a name that ends .html")
    check_output(option, file)


def address(file: str | Path, page: str | Path) -> str:
    """How a page names a file: relative to itself, so that both can move together."""
    return quote(os.fsencode(Path(os.path.relpath(file, Path(page).parent)).as_posix()))


def write_page(file: str | Path, names: Iterable[str], data: dict[str, Any]) -> int:
    """Write the page atomically; returns its size in bytes.

    Args:
        names: of what is shown, for the title.
    """
    page = render(names, data).encode()
    with atomic_write(file) as stream:
        stream.write(page)
    return len(page)


def render(names: Iterable[str], data: dict[str, Any]) -> str:
    """The page.

    Texts of the files are nowhere markup: the title is escaped, the data is JSON without any `<`,
    which the script puts in as text; and the page allows no script but its own.
    """
    heading = "Answers" if data["answers"] else "Predictions"
    pages = Environment(
        loader=FileSystemLoader(VIEWER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (VIEWER / "page.css").read_text(encoding="utf-8")
    script = "".join((VIEWER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    content = to_json(data).decode()
    return pages.get_template("page.html").render(
        answers=data["answers"],
        heading=heading,
        title=f"{heading}: {', '.join(names)}",
        style=Markup(style),
        style_hash=_digest(style),
        script=Markup(script),
        script_hash=_digest(script),
        data=Markup(content.replace("<", "\\u003c")),
    )


def _digest(text: str) -> str:
    """As a content security policy names an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
