"""Read narrations in all supported formats as the same columns.

Ego4D's and Ego-Exo4D's narrations have one time each and get windows as in EgoVLP. Tables
(EPIC-KITCHENS, csv) and subtitles hold windows.
"""

from __future__ import annotations

import csv
import html
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Raw, Struct

from utils.base.errors import UserError
from utils.base.files import open_text, parse_json
from utils.base.lazy import polars as pl
from utils.data.annotations import Seconds
from utils.data.egoclip import read_narrations
from utils.data.narrations import Narrations, join_blocks, sort_out
from utils.data.records import NARRATION_MARK

BLOCK_ROWS = 1 << 16  # narrations of a block of columns
LONGEST_LINE = 1 << 17  # characters, of a table
LARGEST_SUBTITLES = 1 << 26  # bytes of a file
TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # <i>, <v Anna>, {\an8}: markup of subtitles
CUE_TIMES = re.compile(r"([\d:.,]+)\s*-->\s*([\d:.,]+).*\n?")

Row = tuple[str, float, float, str]  # video, start, end (s; NaN if invalid), text


class Ego4dNarration(Struct, rename={"time": "timestamp_sec", "text": "narration_text"}):
    """A narration in Ego4D's narration.json."""

    time: Seconds | None = None
    text: str | None = None


class Ego4dPass(Struct):
    """One annotator's narrations of a video."""

    narrations: list[Ego4dNarration] = []


class Ego4dVideo(Struct):
    """Both annotators' narrations of a video, None if they wrote none."""

    narration_pass_1: Ego4dPass | None = None
    narration_pass_2: Ego4dPass | None = None


class AtomicDescription(Struct, rename={"time": "timestamp"}):
    """A narration in Ego-Exo4D's atomic_descriptions_{train,val}.json."""

    time: Seconds | None = None
    text: str | None = None


class AtomicAnnotation(Struct):
    """One annotator's narrations of a take."""

    descriptions: list[AtomicDescription] = []
    rejected: bool = False


class AtomicDescriptions(Struct):
    """The file: annotations of each take, by its uid."""

    annotations: dict[str, Raw]


class Pass(NamedTuple):
    """One annotator's N narrations of a video."""

    video: str
    times: np.ndarray  # (N,) seconds, NaN where one is missing
    texts: list[str | None]  # N

    @property
    def distance(self) -> float:
        """Mean seconds between neighbouring narrations, NaN if there are fewer than two."""
        times = self.times[np.isfinite(self.times)]
        return float(np.ptp(times)) / (len(times) - 1) if len(times) > 1 else math.nan


def read_any_narrations(paths: Sequence[Path], form: str, video_uids: Sequence[str]) -> Narrations:
    """Read the narrations of `video_uids` (distinct) from files of the format `form`.

    Malformed narrations are skipped and counted. Texts that do not begin with `NARRATION_MARK` get
    it.

    Raises:
        UserError: a file is missing or of another format, or no narration is well-formed.
    """
    if form == "egoclip":
        if len(paths) > 1:
            raise UserError(f"{paths[1]}: egoclip is one file; give --format for others")
        return read_narrations(paths[0], video_uids)
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such file, or a folder; name files")
    rows, videos = FORMATS[form](paths, set(video_uids)), pl.Enum(list(video_uids))
    source = f"{paths[0]} (--format {form}, clips of videos: {len(video_uids)})"
    columns = {"video": pl.String, "start": pl.Float64, "end": pl.Float64, "text": pl.String}
    chunks = iter(lambda: list(islice(rows, BLOCK_ROWS)), [])
    tables = (pl.DataFrame(chunk, schema=columns, orient="row") for chunk in chunks)
    blocks = (sort_out(table, videos, {}) for table in tables)
    return join_blocks(blocks, video_uids, source, 1, "narration")


def _map_json(path: Path, schema: Any) -> Any:
    """The content of a large JSON file; its `Raw` parts stay on the disk until they are parsed."""
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    with path.open("rb") as file:
        return parse_json(mmap(file.fileno(), 0, access=ACCESS_READ), schema, path)


def ego4d_passes(path: Path) -> Iterator[Pass]:
    """The passes in Ego4D's narration.json."""
    for uid, content in _map_json(path, dict[str, Raw]).items():
        video = parse_json(content, Ego4dVideo, f"{path}: video {uid}")
        for annotator in (video.narration_pass_1, video.narration_pass_2):
            if annotator:
                yield _pass(uid, annotator.narrations)


def egoexo4d_passes(path: Path) -> Iterator[Pass]:
    """The passes in Ego-Exo4D's atomic descriptions; rejected ones are left out."""
    for uid, content in _map_json(path, AtomicDescriptions).annotations.items():
        for annotation in parse_json(content, list[AtomicAnnotation], f"{path}: take {uid}"):
            if not annotation.rejected:
                yield _pass(uid, annotation.descriptions)


def _pass(uid: str, narrations: Sequence[Ego4dNarration | AtomicDescription]) -> Pass:
    times = np.array([narration.time for narration in narrations], np.float64)  # None: NaN
    return Pass(uid, times, [narration.text for narration in narrations])


def point_rows(
    read_passes: Callable[[Path], Iterator[Pass]], paths: Sequence[Path], video_uids: set[str]
) -> Iterator[Row]:
    """Narrations of the videos, with windows as in EgoVLP (Lin et al. 2022, arXiv:2206.01670).

    A window is time +- beta / (2 alpha) s: beta is the mean distance between neighbouring
    narrations of the pass, alpha the mean of beta over all passes of the files (4.9 s in EgoClip).
    A pass with a single narration gets a window of 1 s. Windows are cut at the start of the video.
    """
    distances, passes = [], []
    for path in paths:
        for narrations in read_passes(path):
            distances.append(narrations.distance)
            if narrations.video in video_uids:
                passes.append(narrations)
    betas = [distance for distance in distances if distance > 0]
    alpha = sum(betas) / len(betas) if betas else 1.0
    for narrations in passes:
        beta = narrations.distance
        half = (alpha if math.isnan(beta) else beta) / (2 * alpha)
        starts, ends = np.maximum(narrations.times - half, 0.0), narrations.times + half
        for start, end, text in zip(starts, ends, narrations.texts, strict=True):
            yield narrations.video, start, end, as_narration(text or "")


def table_rows(columns: Sequence[str], paths: Sequence[Path], _: set[str]) -> Iterator[Row]:
    """Rows of csv tables; `columns` are the names of video, start, end and text in the header."""
    for path in paths:
        with open_text(path) as file:
            table = csv.reader(iter(partial(file.readline, LONGEST_LINE), ""), strict=True)
            try:
                header = next(table, [])
                if missing := [name for name in columns if name not in header]:
                    names = ", ".join(missing)
                    raise UserError(f"{path}: column {names} is missing from its header")
                for fields in filter(None, table):  # blank lines have no fields
                    if len(fields) != len(header):
                        raise UserError(
                            f"{path}: line {table.line_num} has {len(fields)} fields, the header "
                            f"{len(header)}; put texts that hold commas in double quotes"
                        )
                    line = dict(zip(header, fields, strict=True))
                    video, start, end, text = (line[name] for name in columns)
                    yield video, seconds(start), seconds(end), as_narration(text)
            except csv.Error as error:
                fault = f"line {table.line_num}: {error}; is a quote not closed?"
                raise UserError(f"{path}: {fault}") from None


def cue_rows(paths: Sequence[Path], video_uids: set[str]) -> Iterator[Row]:
    """Cues of subtitles, one file per video: `<video>.srt` or `<video>.<language>.srt`, or .vtt."""
    for path in paths:
        if path.stat().st_size > LARGEST_SUBTITLES:
            raise UserError(f"{path}: larger than {LARGEST_SUBTITLES >> 20} MiB, not subtitles")
        with open_text(path) as file:
            content = "\n".join(file.read().splitlines())
        video = path.stem if path.stem in video_uids else Path(path.stem).stem
        for block in re.split(r"\n\s*\n", content):
            if times := CUE_TIMES.search(block):
                text = html.unescape(TAG.sub("", block[times.end() :]))
                yield video, seconds(times[1]), seconds(times[2]), as_narration(text)


def as_narration(text: str) -> str:
    """The text on one line and with `NARRATION_MARK`; an empty text stays empty."""
    text = " ".join(text.split())
    return text if not text or text.startswith(NARRATION_MARK) else f"{NARRATION_MARK} {text}"


def seconds(text: str) -> float:
    """Parse a time such as 75.5, 1:15.5 or 00:01:15,500 into seconds; NaN if it is invalid."""
    try:
        return sum(
            float(part) * 60**power
            for power, part in enumerate(reversed(text.replace(",", ".").split(":")))
        )
    except (ValueError, OverflowError):
        return math.nan


FORMATS: dict[str, Callable[[Sequence[Path], set[str]], Iterator[Row]]] = {
    "ego4d": partial(point_rows, ego4d_passes),
    "egoexo4d": partial(point_rows, egoexo4d_passes),
    "epic": partial(table_rows, ("video_id", "start_timestamp", "stop_timestamp", "narration")),
    "csv": partial(table_rows, ("video", "start", "end", "text")),
    "srt": cue_rows,
    "vtt": cue_rows,
}
