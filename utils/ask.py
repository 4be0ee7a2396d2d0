"""Ask a video where something happened: the windows that answer a question, with a trained run.

Without --query questions are read from the terminal, one a line.
"""

import argparse
import io
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils import search
from utils.base.errors import UserError, run_program, warn
from utils.base.files import check_output, check_output_folder, has_video, legible, to_json
from utils.base.options import ArgumentParser, within
from utils.base.tables import clock, figure_table
from utils.features.excerpts import write_excerpt
from utils.features.video import add_frame_rate, check_video
from utils.search.contact_sheet import check_sheet, write_sheet
from utils.viewer.page import PageClip, PageQueries, PageRun, address, check_page, write_page

if TYPE_CHECKING:
    from utils.search.index import VideoIndex

# How players are told where a window starts and ends.
PLAYERS = {
    "mpv": ("--start={0:.1f}", "--end={1:.1f}"),
    "vlc": ("--start-time={0:.1f}", "--stop-time={1:.1f}"),
}


class Answer(NamedTuple):
    """The k windows that answer a question, best first."""

    question: str
    windows: np.ndarray  # (k, 2) seconds
    scores: np.ndarray  # (k,)
    files: list[Path]  # (k) video, or features, of each
    of_index: bool  # the windows may lie in several videos
    score_name: str

    def as_json(self) -> dict:
        rows = zip(self.windows.round(3).tolist(), self.scores.tolist(), self.files, strict=True)
        windows = [
            {"start": start, "end": end, self.score_name: score}
            | ({"video": legible(str(file))} if self.of_index else {})
            for (start, end), score, file in rows
        ]
        return {"query": self.question, "windows": windows}

    def as_table(self) -> str:
        """The question and a table of its windows."""
        rows = [["", "from", "to", self.score_name, *["video"] * self.of_index]]
        columns = zip(self.windows, self.scores, self.files, strict=True)
        for rank, (window, score, file) in enumerate(columns, 1):
            name = [legible(file.name)] if self.of_index else []
            rows.append([rank, *map(clock, window), f"{score:#.3g}", *name])
        return f"{self.question}\n{figure_table(rows)}"

    def sheet_rows(self) -> list[tuple[str, tuple[Path, float, float] | None]]:
        """The rows of a contact sheet: the question, then each window with its times."""
        moments = {rank: moment for rank, *moment in self.moments()}
        rows = [(self.question, None)]
        for rank, (window, file) in enumerate(zip(self.windows, self.files, strict=True), 1):
            name = f", {legible(file.name)}" if self.of_index else ""
            rows.append((f"{rank}.  {' to '.join(map(clock, window))}{name}", moments.get(rank)))
        return rows

    def moments(self) -> Iterator[tuple[int, Path, float, float]]:
        """Rank, video, start and end of those windows that have a video."""
        for rank, (file, window) in enumerate(zip(self.files, self.windows, strict=True), 1):
            if has_video(file):
                yield rank, file, *window.tolist()

    def by_file(self) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Each video with its windows (k, 2) and their scores (k,), NaN where it has fewer."""
        for file in dict.fromkeys(self.files):
            ranks = [rank for rank, other in enumerate(self.files) if other == file]
            windows, scores = np.full_like(self.windows, np.nan), np.full_like(self.scores, np.nan)
            windows[: len(ranks)], scores[: len(ranks)] = self.windows[ranks], self.scores[ranks]
            yield file, windows, scores


def main(arguments: list[str] | None = None) -> None:
    """Open the index or encode the video once, answer each question."""
    options = parse(arguments)
    check(options)
    index = open_index(options)
    if not options.query:
        print(f"{clock(index.seconds)} of video; ask, or leave with an empty line", file=sys.stderr)
    answers: list[Answer] = []
    for questions in [options.query] if options.query else typed_questions():
        try:
            ranking = index.ask(questions, options.top, options.nms_threshold)
        except UserError as error:
            if options.query:
                raise
            print(f"error: {error}", file=sys.stderr)
            continue
        files = [[index.paths[number] for number in row] for row in ranking.videos]
        columns = zip(questions, ranking.windows, ranking.scores, files, strict=True)
        kind = bool(options.index), index.score_name
        new_answers = [Answer(*row, *kind) for row in columns]
        wants_videos = options.sheet or options.cut or options.open
        if wants_videos and not any(map(has_video, chain.from_iterable(files))):
            warn("the index has only features of these videos: nothing to draw, cut or play")
        show(new_answers, options)
        if options.cut:
            cut(new_answers, len(answers), options)
        answers += new_answers
        if options.html:
            write_answers(answers, index, options)


def open_index(options: argparse.Namespace) -> "VideoIndex":
    """The index, or that of the one video, which is encoded."""
    if options.index:
        where = options.text_encoder, options.device
        return search.load_index(options.index, options.checkpoint, *where)
    run = search.load_run(
        options.checkpoint,
        options.text_encoder,
        options.clip_seconds,
        options.device,
        options.encoder,
    )
    video = run.encode(options.features or options.video, frame_rate=options.frame_rate)
    return search.VideoIndex([Path(options.video or options.features[0])], [video])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__.splitlines()[0],
        usage="%(prog)s (--checkpoint RUN (--video FILE | --features FILE ...) | --index DIR) "
        "[options]",
    )
    add = parser.add_argument
    add("--index", metavar="DIR", help="ask all videos of an index (index_videos.py)")
    add("--checkpoint", metavar="RUN", help="run folder or checkpoint of any model")
    add("--video", metavar="FILE", help="video file; its features are made if none are given")
    add("--features", nargs="+", metavar="FILE", help=".pt (rows, width); ReLER: the feature, CLIP")
    add(
        "--query", action="append", type=legible, metavar="TEXT",
        help="question; may be given several times",
    )  # fmt: skip
    add(
        "--top", type=within(int, search.TOPS), default=search.TOP, metavar="N",
        help="windows a question",
    )  # fmt: skip
    add(
        "--nms_threshold", type=within(float, "(0, 1]"), default=search.NMS_THRESHOLD, metavar="X",
        help="windows overlap by at most this IoU",
    )  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--html", metavar="FILE", help="write a page to look through them; videos play in it")
    add("--sheet", metavar="FILE", help="write frames of each window as an image (needs the video)")
    add("--cut", metavar="DIR", help="write each window as a small video file")
    add("--open", action="store_true", help="print commands that play the windows")
    add(
        "--clip_seconds", type=within(float, "(0, inf)"), metavar="X",
        help="length of the clips a video is cut into (default: as in training)",
    )  # fmt: skip
    add(
        "--encoder", nargs="+", metavar="NAME",
        help="image encoder (see extract_features.py), or one for each feature the model reads",
    )  # fmt: skip
    add_frame_rate(parser)
    search.add_run_options(parser)
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that can't work, before anything long begins."""
    if not (options.video or options.features or options.index):
        raise UserError("nothing to search in: give --video FILE, --features FILE or --index DIR")
    if options.index and (options.video or options.features):
        raise UserError("--index has videos of its own: give no --video or --features")
    if not (options.index or options.checkpoint):
        raise UserError("name the run that is asked: --checkpoint RUN")
    for name in ("encoder", "clip_seconds"):
        if options.index and getattr(options, name) is not None:
            raise UserError(f"--{name} is for one video, not for an --index")
    if options.video and not Path(options.video).is_file():
        raise UserError(f"{options.video}: no such video file")
    if options.html is not None:
        check_page("--html", options.html)
    if options.sheet is not None:
        check_sheet(options.sheet)
        check_output("--sheet", options.sheet)
    if (options.sheet or options.cut or options.open) and not (options.video or options.index):
        raise UserError("--sheet, --cut and --open need the video: give --video FILE")
    if options.cut is not None:
        check_output_folder("--cut", options.cut)
    if options.video and (options.sheet or options.cut or not options.features):
        check_video(Path(options.video), options.frame_rate)


def typed_questions() -> Iterator[list[str]]:
    """Lines from the terminal, or a pipe, until an empty one."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield [line]


def show(answers: list[Answer], options: argparse.Namespace) -> None:
    """Print the answers, and draw a sheet of their frames if wanted."""
    if options.json:
        print(to_json([answer.as_json() for answer in answers], indent=True).decode(), flush=True)
    else:
        print(*(answer.as_table() for answer in answers), sep="\n", flush=True)
    if options.sheet:
        rows = [row for answer in answers for row in answer.sheet_rows()]
        write_sheet(options.sheet, rows, options.frame_rate)
        print(f"frames: {options.sheet}", file=sys.stderr)
    if options.open:
        player = next(filter(shutil.which, PLAYERS), "mpv")
        for answer in answers:
            for _, file, start, end in answer.moments():
                times = [time.format(start, end) for time in PLAYERS[player]]
                print(shlex.join([player, *times, str(file)]), file=sys.stderr)


def cut(answers: list[Answer], before: int, options: argparse.Namespace) -> None:
    """Write each window as a file `<question>-<rank> <video> <start>.mp4`."""
    for number, answer in enumerate(answers, before + 1):
        for rank, file, start, end in answer.moments():
            name = f"{number}-{rank} {legible(file.stem)} {clock(start).replace(':', '.')}.mp4"
            try:
                write_excerpt(file, start, end, Path(options.cut) / name, options.frame_rate)
                print(f"cut: {Path(options.cut) / name}", file=sys.stderr)
            except UserError as fault:
                warn(str(fault))


def write_answers(answers: list[Answer], index: "VideoIndex", options: argparse.Namespace) -> None:
    """Write the page of all questions so far: a row for each video that answers one."""
    times = Counter(legible(path.name) for path in index.paths)
    names = {p: legible(p.name if times[legible(p.name)] == 1 else str(p)) for p in index.paths}
    clips = {
        names[path]: PageClip(
            video.seconds, video=address(path, options.html) if has_video(path) else None
        )
        for path, video in zip(index.paths, index.videos, strict=True)
    }
    rows = [(answer, *of_file) for answer in answers for of_file in answer.by_file()]
    texts = [f"{a.question} ({names[file]})" if a.of_index else a.question for a, file, *_ in rows]
    _, files, windows, scores = zip(*rows, strict=True)
    name = legible(options.index or options.checkpoint)
    answered = np.ones(len(rows), bool)
    run = PageRun(name, np.stack(windows), answered, np.stack(scores), index.score_name)
    queries = PageQueries(texts, [names[file] for file in files])
    write_page(options.html, queries, [run], clips, answers=True)
    print(f"page: {options.html}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
