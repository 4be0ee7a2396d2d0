"""Print training runs side by side: their best evaluation, and mean and spread over seeds.

    python utils/compare_runs.py "NLQ only=runs/scratch" "NaQ + fine-tuning=runs/tuned"

A run is a folder (or a folder above it) with a metrics.jsonl. Runs with the same label are seeds of
one experiment: their mean is shown, then each run.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import run_program
from utils.base.options import ArgumentParser, labelled
from utils.base.tables import figure_table
from utils.training.evaluations import FIGURES, best_evaluation


def comparison(runs: list[tuple[str, dict]]) -> str:
    """A table of labelled evaluations; those with the same label are averaged."""
    rows = [["", *FIGURES, "step", "queries evaluated"]]
    for label in dict.fromkeys(label for label, _ in runs):
        group = [scores for other, scores in runs if other == label]
        values = np.array([[scores[name] for name in FIGURES] for scores in group])
        if len(group) > 1:
            mean, spread = values.mean(0), values.std(0, ddof=1)
            cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, spread, strict=True)]
            rows.append([f"{label} (mean of {len(group)})", *cells, "", ""])
        for number, (scores, line) in enumerate(zip(group, values, strict=True), 1):
            name = f"  seed {number}" if len(group) > 1 else label
            evaluated = f"{scores['evaluated']} of {scores['listed']}"
            rows.append([name, *(f"{value:.2f}" for value in line), scores["step"], evaluated])
    return figure_table(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="LABEL=FOLDER", help="runs to compare")
    options = parser.parse_args(arguments)
    runs = []
    for text in options.runs:
        label, folder = labelled(text, "LABEL=FOLDER")
        runs.append((label, best_evaluation(Path(folder))))
    print(comparison(runs))


if __name__ == "__main__":
    run_program(main)
