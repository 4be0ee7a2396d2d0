"""Serve a page that answers questions about an index of videos, with pictures and playback.

It is served to this machine's browser only.
"""

import argparse
import sys
import threading
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from utils import search
from utils.base.errors import run_program
from utils.base.options import ArgumentParser, within
from utils.base.tables import clock
from utils.features.excerpts import picture_at
from utils.viewer.server import AskPage, Moment, serve_page


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    index = search.load_index(
        options.index, options.checkpoint, options.text_encoder, options.device
    )
    one_at_a_time = threading.Lock()  # a question takes all cores

    def ask(question: str) -> list[Moment]:
        with one_at_a_time:
            answers = index.ask([question], options.top)
        columns = answers.videos[0], *answers.windows[0].T, answers.scores[0]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Moment(*row) for row in rows]

    ask("Where is it?")  # the first question takes longer
    print(f"{len(index.paths)} videos, {clock(index.seconds)}")
    serve_page(AskPage(index.paths, ask, picture_at, index.score_name), options.port)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--index", required=True, metavar="DIR", help="folder of the index (index_videos.py)")
    add(
        "--port", type=within(int, "[0, 65535]"), default=8642, metavar="N",
        help="of the address; 0: any that is free",
    )  # fmt: skip
    add("--top", type=within(int, search.TOPS), default=12, metavar="N", help="moments a question")
    add("--checkpoint", metavar="RUN", help="where the index's run lies, if it has been moved")
    search.add_run_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_program(main)
