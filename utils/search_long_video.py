"""How well runs search hours of simulated video: the quickstart's validation clips and many more.

A question about one clip may fit moments of others. So there are two figures: one where only the
annotated window counts, and one where any moment that fits does. The oracle knows the events and
picks among those that fit; no search can do better without luck.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils import search
from utils.base.errors import run_program
from utils.base.files import read_json
from utils.base.options import ArgumentParser, labelled, within
from utils.base.tables import figure_table
from utils.base.tasks import FEATURES, ROWS_PER_SECOND
from utils.evaluation.metrics import iou
from utils.simulation.long_video import LongVideo, join_clips
from utils.simulation.world import Sizes

IOU = 0.3
RANKS = (1, 5)


def main(arguments: list[str] | None = None) -> None:
    """Search videos of each length with each run; print a table of what they find."""
    options = parse(arguments)
    runs = {}
    for text in options.runs:
        label, folder = labelled(text, "LABEL=RUN")
        runs.setdefault(label, []).append(search.load_run(folder))
    file = Path(options.data_root) / "simulation.json"  # of simulate_dataset.py
    sizes, seed = read_json(file, Sizes), read_json(file)["seed"]
    recall_names = [f"R@{k}" for k in RANKS], [f"R@{k}, any moment" for k in RANKS]
    rows = [["hours", "run", *recall_names[0], *recall_names[1], "chance of the first"]]
    for hours in options.hours:
        video = join_clips(sizes, seed, hours)
        length = f"{video.rows / ROWS_PER_SECOND / 3600:.1f}"
        rows.append([length, "oracle", *percent(oracle(video)), *percent([1.0] * len(RANKS)), ""])
        for label, group in runs.items():
            figures = [recalls(run, video) for run in group]
            rows.append([length, label, *percent(np.mean(figures, 0))])
            print(*rows[-1], sep="  ", flush=True)
    print(f"Per cent, IoU={IOU:g}. Simulated world: says nothing about real video")
    print(figure_table(rows))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__.splitlines()[0], usage="%(prog)s LABEL=RUN ... [options]"
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="LABEL=RUN", help="run folders; of one label the mean is shown")
    add("--data_root", default="data", metavar="DIR", help="the simulated data root of the runs")
    add(
        "--hours", type=within(float, "(0, 1000]"), nargs="+", default=[2.0], metavar="H",
        help="lengths of videos",
    )  # fmt: skip
    return parser.parse_args(arguments)


def oracle(video: LongVideo) -> list[float]:
    """R@k of picks, at random, among the moments that fit."""
    counts = np.array([len(windows) for windows in video.fitting])
    return [float(np.mean(np.minimum(k, counts) / counts)) for k in RANKS]


def recalls(run: "search.TrainedRun", video: LongVideo) -> list[float]:
    """R@k where the annotated window counts, then where any moment that fits does.

    Last, the mean chance that the first window is right, as the run says; NaN without calibration.
    """
    features = [video.features(name, FEATURES[name]) for name in run.model.features]
    ranking = run.encode(features).ask(video.questions, top=max(RANKS))
    annotated = iou(ranking.windows, video.annotated[:, None])
    fitting = [
        iou(windows[:, None], moments).max(1)
        for windows, moments in zip(ranking.windows, video.fitting, strict=True)
    ]
    shares = [
        float((overlaps[:, :k] > IOU).any(1).mean())
        for overlaps in (annotated, np.array(fitting))
        for k in RANKS
    ]
    return [*shares, np.nan if run.calibration is None else float(ranking.scores[:, 0].mean())]


def percent(shares: Sequence[float]) -> list[str]:
    return ["" if np.isnan(share) else f"{100 * share:.1f}" for share in shares]


if __name__ == "__main__":
    run_program(main)
