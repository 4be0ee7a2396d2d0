"""An index of hours of video: its size, time to build and to open it, time a question, memory.

    python benchmarks/search_index.py --checkpoint RUN                # random rows
    python benchmarks/search_index.py --checkpoint RUN --features data/features/egovlp \\
        --questions data/dataset/nlq_official_v1/val.json

With a prepared split its questions are asked twice: as always, and with the whole model at every
clip. Printed is how often both find the same window first, and R@k IoU=0.3 of both, if `.pt` files
are named like the clips. A question's clip is one among all.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
import torch

from benchmarks.timing import circumstances, spent
from utils.base.errors import run_program
from utils.base.options import ArgumentParser
from utils.base.tables import clock, show_size
from utils.base.tasks import ROWS_PER_SECOND
from utils.data.records import read_records
from utils.evaluation.metrics import iou
from utils.search import load_index, load_run
from utils.search.index import VideoIndex
from utils.search.ranking import Ranking

PROGRAM = Path(__file__).resolve().parents[1] / "utils/index_videos.py"
QUESTIONS = ["Where did I put the keys?", "Who did I talk to at the door?", "What did I cut?"] * 4


def main(arguments: list[str] | None = None) -> None:
    """Index, ask, print."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="the run")
    parser.add_argument("--features", nargs="+", help="folders of .pt files (default: random rows)")
    parser.add_argument("--questions", help="prepared split (default: a few)")
    parser.add_argument("--hours", type=float, default=24.0, help="of random rows")
    parser.add_argument("--minutes", type=float, default=4.0, help="a video of random rows")
    parser.add_argument("--folder", help="where files are made for a while")
    options = parser.parse_args(arguments)
    print(circumstances())
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        features = options.features or random_features(
            options.checkpoint, options.hours, options.minutes, folder
        )
        command = [sys.executable, PROGRAM, "--index", folder / "index", "--features", *features]
        command += ["--checkpoint", options.checkpoint]
        seconds, _ = spent(lambda: subprocess.run(command, check=True))
        size = sum(file.stat().st_size for file in (folder / "index").iterdir())
        memory = show_size(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
        print(f"built in {seconds:.0f} s, {show_size(size)}, peak memory {memory}")

        began, _ = spent(lambda: load_index(folder / "index").ask(QUESTIONS[:1]))
        index = load_index(folder / "index")
        index.ask(QUESTIONS[:1])  # averages units
        times = np.median([spent(index.ask, [question]) for question in QUESTIONS], 0)
        memory = show_size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        clips = sum(len(video.starts) for video in index.videos)
        print(f"{len(index.videos)} videos, {clock(index.seconds)}, {clips} clips")
        print(f"opened, with a first question, in {began:.1f} s; peak memory {memory}")
        print(f"a question in {times[0]:.2f} s, processor time {times[1]:.2f} s")
        if options.questions:
            compare(index, options.questions)


def random_features(checkpoint: str, hours: float, minutes: float, folder: Path) -> list[Path]:
    """Folders of random rows, one for each feature the run reads; all their widths add up."""
    model = load_run(checkpoint).model
    count, random = len(model.features), np.random.default_rng(0)
    widths = np.diff(np.linspace(0, model.width, count + 1).astype(int))
    folders = [folder / name for name in model.features]
    for part, width in zip(folders, widths.tolist(), strict=True):
        part.mkdir()
        for number in range(round(hours * 60 / minutes)):
            rows = random.normal(size=(round(minutes * 60 * ROWS_PER_SECOND), width))
            torch.save(torch.from_numpy(rows).half(), part / f"{number}.pt")
    return folders


def compare(index: VideoIndex, split: str) -> None:
    """The split's questions, also with the whole model at every clip."""
    records = read_records(split)
    questions = [records.sentences[number] for number in records.sentence]
    numbers = {path.stem: number for number, path in enumerate(index.paths)}
    videos = np.array([numbers.get(uid, -1) for uid in records.clip_uids])[records.clip]

    def recall(answers: Ranking, k: int) -> str:
        overlap = iou(answers.windows, records.exact[:, None]) > 0.3
        hits = overlap & (answers.videos == videos[:, None])
        return f"R@{k} {100 * hits[:, :k].any(1).mean():.2f}"

    answers = index.ask(questions)
    model = index.videos[0].model
    model.promising = (sys.maxsize, *model.promising[1:])
    whole = index.ask(questions)
    same = iou(answers.windows[:, 0], whole.windows[:, 0]) > 0.5
    same &= answers.videos[:, 0] == whole.videos[:, 0]
    print(f"{len(questions)} questions: the same window first for {100 * same.mean():.1f} %")
    for name, ranking in (("as always", answers), ("every clip whole", whole)):
        print(f"{name}: {recall(ranking, 1)} {recall(ranking, 5)}")


if __name__ == "__main__":
    run_program(main)
