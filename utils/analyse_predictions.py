"""Where predictions are good or bad, and whether one challenge file is better than another.

    python utils/analyse_predictions.py --ground_truth_json data/nlq_val.json \\
        --predictions scratch=a.json NaQ=b.json --train_annotations data/nlq_train.json

Figures of files with the same name, such as training seeds, are averaged.

Prints figures of all queries and of groups of queries, with and without windows of at most 1/30 s,
which published figures leave out. Differences to the first name have a confidence interval (paired
bootstrap), and a star if it does not contain 0.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, run_program
from utils.base.files import write_json
from utils.base.options import SEEDS, ArgumentParser, labelled, within
from utils.base.tables import figure_table
from utils.data.annotations import iter_clips
from utils.data.spans import EMPTY_SECONDS
from utils.evaluation.analysis import (
    Grouping,
    by_length,
    by_object,
    by_position,
    by_template,
    paired_bootstrap,
)
from utils.evaluation.metrics import query_figures
from utils.evaluation.scoring import read_truth, read_windows

THRESHOLDS, TOP_K = (0.3, 0.5), (1, 3, 5)
FIGURES = (*(f"R@{k} IoU={t:g}" for k in TOP_K for t in THRESHOLDS), "mean R@1", "mIoU")
ALL_WINDOWS, NONEMPTY_WINDOWS = "all windows", "without windows of at most 1/30 s"


class Answers(NamedTuple):
    """The queries that all files answer: their groups, and their figures in each file."""

    truth: np.ndarray  # (R, 2) seconds
    clip: np.ndarray  # (R,) number of each query's clip
    groupings: list[Grouping]
    figures: dict[str, np.ndarray]  # name -> (R, M) per cent
    listed: int  # all queries
    untimed: int  # queries without times
    unanswered: dict[str, int]  # name -> queries without prediction, sum over its files


def read_answers(options: argparse.Namespace) -> Answers:
    """Read all files; a UserError names one that doesn't fit the ground truth."""
    annotations, queries, truth = read_truth(options.ground_truth_json)
    timed = ~np.isnan(truth).any(axis=1)
    rows = timed
    seeds: dict[str, list[np.ndarray]] = {name: [] for name, _ in options.predictions}
    unanswered = dict.fromkeys(seeds, 0)
    for name, path in options.predictions:
        windows, answered, _ = read_windows(path, queries, max(TOP_K))
        figures = query_figures(truth, windows, THRESHOLDS, TOP_K)
        seeds[name].append(np.stack(list(figures.values()), 1))  # (all queries, M)
        unanswered[name] += int(np.count_nonzero(~answered))
        rows = rows & answered
    if not rows.any():
        raise UserError("no query is answered by all files: are they of different splits?")
    compared = [queries[row] for row in np.flatnonzero(rows)]
    truth = truth[rows]
    duration = {clip.clip_uid: clip.duration for _, clip in iter_clips(annotations)}
    return Answers(
        truth=truth,
        clip=np.unique([query.clip_uid for query in compared], return_inverse=True)[1],
        groupings=[
            by_template(compared),
            by_object(compared, options.ground_truth_json, options.train_annotations),
            by_length(truth),
            by_position(truth, np.array([duration[query.clip_uid] for query in compared])),
        ],
        figures={name: 100 * np.mean(tables, axis=0)[rows] for name, tables in seeds.items()},
        listed=len(queries),
        untimed=int(np.count_nonzero(~timed)),
        unanswered=unanswered,
    )


def results(answers: Answers, rows: np.ndarray, options: argparse.Namespace) -> dict:
    """Figures of some queries (R,) bool for each file, and differences to the first file.

    {"queries": number, "figures": {name: {figure: per cent}},
    "differences": {name: {figure: {"mean", "low", "high"}}}}
    """
    parts = {name: figures[rows] for name, figures in answers.figures.items()}
    baseline, *names = parts
    clips = answers.clip[rows] if options.resample == "clips" else None
    differences = {}
    for name in names:
        interval = paired_bootstrap(
            parts[name] - parts[baseline], clips, options.samples, options.seed
        )
        differences[name] = {
            figure: dict(zip(interval._fields, values, strict=True))
            for figure, values in zip(FIGURES, np.transpose(interval).tolist(), strict=True)
        }
    return {
        "queries": int(np.count_nonzero(rows)),
        "figures": {
            name: dict(zip(FIGURES, part.mean(axis=0).tolist(), strict=True))
            for name, part in parts.items()
        },
        "differences": differences,
    }


def protocols(answers: Answers) -> dict[str, np.ndarray]:
    """The queries (R,) bool of each protocol; only the first one if both are the same."""
    nonempty = answers.truth[:, 1] - answers.truth[:, 0] > EMPTY_SECONDS
    rows = {ALL_WINDOWS: np.ones(len(nonempty), dtype=bool)}
    if nonempty.any() and not nonempty.all():
        rows[NONEMPTY_WINDOWS] = nonempty
    return rows


def analyse(answers: Answers, rows: np.ndarray, options: argparse.Namespace) -> dict:
    """`results` of the queries (R,) bool of a protocol, and of each of its groups."""
    groups = {
        grouping.title: {
            name: results(answers, mask, options) for name, mask in grouping.groups(rows).items()
        }
        for grouping in answers.groupings
    }
    return {"all": results(answers, rows, options), "groups": groups}


def overall_table(title: str, result: dict) -> str:
    """A table with a line for each figure: its values, and differences to the first file."""
    rows = [["", *_columns(result)]]
    rows += [[figure, *_cells(result, figure)] for figure in FIGURES]
    return f"{title}\n{figure_table(rows)}"


def group_table(title: str, groups: dict[str, dict], figure: str) -> str:
    """A table with a line for each group: its queries, values of a figure, differences."""
    rows = [["", "queries", *_columns(next(iter(groups.values())))]]
    rows += [[name, result["queries"], *_cells(result, figure)] for name, result in groups.items()]
    return f"{figure} by {title}\n{figure_table(rows)}"


def _columns(result: dict) -> list[str]:
    baseline, *names = result["figures"]
    return [baseline, *names, *(f"{name} - {baseline}" for name in names)]


def _cells(result: dict, figure: str) -> list[str]:
    cells = [f"{figures[figure]:.2f}" for figures in result["figures"].values()]
    return cells + [_difference(figures[figure]) for figures in result["differences"].values()]


def _difference(interval: dict[str, float]) -> str:
    """Mean, interval, and a star if the interval does not contain 0."""
    star = "*" if interval["low"] > 0 or interval["high"] < 0 else " "
    return f"{interval['mean']:+.2f} [{interval['low']:+.2f}, {interval['high']:+.2f}]{star}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ground_truth_json", required=True, metavar="FILE", help="annotations")
    add(
        "--predictions", required=True, nargs="+", metavar="NAME=FILE",
        help="challenge files; of one name: seeds, averaged",
    )  # fmt: skip
    add("--train_annotations", metavar="FILE", help="annotations to count objects in")
    add(
        "--figure", choices=FIGURES, default="R@1 IoU=0.3", metavar="NAME",
        help=f"shown for groups, one of: {', '.join(FIGURES)}",
    )  # fmt: skip
    add(
        "--resample", choices=("queries", "clips"), default="queries",
        help="what the bootstrap draws; clips: all queries of one together",
    )  # fmt: skip
    add(
        "--samples", type=within(int, "[1, 1e6]"), default=2000, metavar="N",
        help="of the bootstrap",
    )  # fmt: skip
    add("--seed", type=within(int, SEEDS), default=1, metavar="N", help="of the bootstrap")
    add("--plots", metavar="DIR", help="also draw them (needs matplotlib)")
    add("--json", metavar="FILE", help="also write all figures of all groups")
    options = parser.parse_args(arguments)
    options.predictions = [labelled(text, "NAME=FILE") for text in options.predictions]
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.plots:  # now, so that a missing matplotlib is known before anything else
        from utils.evaluation.plots import plot_analysis
    answers = read_answers(options)
    unanswered = ", ".join(f"{name} {count}" for name, count in answers.unanswered.items())
    print(
        f"{len(answers.truth)} of {answers.listed} queries are compared; without times: "
        f"{answers.untimed}; without prediction: {unanswered}"
    )
    rows_of = protocols(answers)
    if len(rows_of) == 1:
        print("none of their windows is empty (at most 1/30 s): both protocols are the same")
    analysis = {}
    for protocol, rows in rows_of.items():
        analysis[protocol] = analyse(answers, rows, options)
        title = f"{protocol}: {np.count_nonzero(rows)} queries"
        print(f"\n{overall_table(title, analysis[protocol]['all'])}")
        for grouping in answers.groupings:
            if groups := analysis[protocol]["groups"][grouping.title]:
                print(f"\n{group_table(f'{grouping.title}, {protocol}', groups, options.figure)}")
            if remark := grouping.ungrouped(rows):
                print(remark)
    if options.json:
        write_json(options.json, analysis, indent=True)
    if options.plots:
        for file in plot_analysis(Path(options.plots), analysis, options.figure):
            print(f"drawn: {file}")


if __name__ == "__main__":
    run_program(main)
