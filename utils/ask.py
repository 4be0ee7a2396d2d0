"""Ask a video where something happened: the windows that answer a question, with a trained run.

Without --query questions are read from the terminal, one a line.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils import search
from utils.base.errors import UserError, quiet_libraries, run_program
from utils.base.files import check_output, legible, to_json
from utils.base.options import ArgumentParser
from utils.base.tables import figure_table
from utils.features.video import add_frame_rate, check_video
from utils.search.contact_sheet import check_sheet, write_sheet
from utils.viewer.page import PageClip, PageQueries, PageRun, address, check_page, write_page


class Answer(NamedTuple):
    """The k windows that answer a question, best first."""

    question: str
    windows: np.ndarray  # (k, 2) seconds
    scores: np.ndarray  # (k,)

    def as_json(self) -> dict:
        """As it is printed with --json."""
        rows = zip(self.windows.round(3).tolist(), self.scores.tolist(), strict=True)
        windows = [{"start": start, "end": end, "score": score} for (start, end), score in rows]
        return {"query": self.question, "windows": windows}

    def as_table(self) -> str:
        """The question and a table of its windows."""
        rows = [["", "from", "to", "score"]]
        for rank, (window, score) in enumerate(zip(self.windows, self.scores, strict=True), 1):
            rows.append([rank, *map(clock, window), f"{score:.3g}"])
        return f"{self.question}\n{figure_table(rows)}"

    def captions(self) -> list[tuple[str, np.ndarray | None]]:
        """The rows of a contact sheet: the question, then each window with its times."""
        times = (" to ".join(map(clock, window)) for window in self.windows)
        captions = (f"{rank}.  {words}" for rank, words in enumerate(times, 1))
        return [(self.question, None), *zip(captions, self.windows, strict=True)]


def main(arguments: list[str] | None = None) -> None:
    """Encode the video once, answer each question."""
    options = parse(arguments)
    quiet_libraries()
    check(options)
    run = search.load_run(
        options.checkpoint,
        options.text_encoder,
        options.clip_seconds,
        options.device,
        options.encoder,
    )
    video = run.encode(options.features or options.video, frame_rate=options.frame_rate)
    if not options.query:
        print(f"{clock(video.seconds)} of video; ask, or leave with an empty line", file=sys.stderr)
    answers: list[Answer] = []
    for questions in [options.query] if options.query else typed_questions():
        try:
            windows, scores = video.ask(questions, options.top, options.nms_threshold)
        except UserError as error:
            if options.query:
                raise
            print(f"error: {error}", file=sys.stderr)
            continue
        new_answers = list(map(Answer, questions, windows, scores))
        show(new_answers, options)
        answers += new_answers
        if options.html:
            write_answers(answers, video.seconds, options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(
        description=__doc__.splitlines()[0],
        usage="%(prog)s --checkpoint RUN (--video FILE | --features FILE ...) [options]",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="RUN", help="run folder or checkpoint of any model")
    add("--video", metavar="FILE", help="video file; its features are made if none are given")
    add("--features", nargs="+", metavar="FILE", help=".pt (rows, width); ReLER: the feature, CLIP")
    add(
        "--query", action="append", type=legible, metavar="TEXT",
        help="question; may be given several times",
    )  # fmt: skip
    add("--top", type=int, default=search.TOP, metavar="N", help="windows a question")
    add(
        "--nms_threshold", type=float, default=search.NMS_THRESHOLD, metavar="X",
        help="windows overlap by at most this IoU",
    )  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--html", metavar="FILE", help="write a page to look through them; --video plays in it")
    add("--sheet", metavar="FILE", help="write frames of each window as an image (needs --video)")
    add(
        "--clip_seconds", type=float, metavar="X",
        help="length of the clips a video is cut into (default: as in training)",
    )  # fmt: skip
    add(
        "--text_encoder", metavar="NAME|DIR", help="where the run's text encoder lies, if elsewhere"
    )
    add(
        "--encoder", nargs="+", metavar="NAME",
        help="image encoder (see extract_features.py), or one for each feature the model reads",
    )  # fmt: skip
    add_frame_rate(parser)
    add("--device", default="auto", help="auto: the GPU if there is one")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that can't work, before anything long begins."""
    if not options.video and not options.features:
        raise UserError("nothing to search in: give --video FILE or --features FILE")
    if options.video and not Path(options.video).is_file():
        raise UserError(f"{options.video}: no such video file")
    if options.top < 1:
        raise UserError(f"--top must be at least 1, is {options.top}")
    if not 0 < options.nms_threshold <= 1:
        raise UserError(f"--nms_threshold must be in (0, 1], is {options.nms_threshold:g}")
    if options.html is not None:
        check_page("--html", options.html)
    if options.sheet is not None:
        if not options.video:
            raise UserError("--sheet shows frames: give --video FILE")
        check_sheet(options.sheet)
        check_output("--sheet", options.sheet)
    if options.video and (options.sheet or not options.features):
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
        rows = [row for answer in answers for row in answer.captions()]
        write_sheet(options.sheet, Path(options.video), rows, options.frame_rate)
        print(f"frames: {options.sheet}", file=sys.stderr)


def write_answers(answers: list[Answer], seconds: float, options: argparse.Namespace) -> None:
    """Write the page of all questions so far, about a video of so many seconds."""
    name = legible(Path(options.video or options.features[0]).name)
    questions, windows, scores = zip(*answers, strict=True)
    run = PageRun(
        legible(options.checkpoint), np.stack(windows), np.ones(len(answers), bool),
        np.stack(scores),
    )  # fmt: skip
    video = address(options.video, options.html) if options.video else None
    write_page(
        options.html,
        PageQueries(text=list(questions), clip=[name] * len(questions)),
        [run],
        {name: PageClip(seconds, video=video)},
        answers=True,
    )
    print(f"page: {options.html}", file=sys.stderr)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


if __name__ == "__main__":
    run_program(main)
