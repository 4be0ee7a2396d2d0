"""Draw the scores of runs along a quantity, with mean and spread of runs at the same place.

    python utils/plot_curves.py --xlabel "NLQ clips, %" --output few_shot.svg \\
        "with NaQ:10=runs/naq_10" "with NaQ:100=runs/naq_100" "NLQ only:10=runs/nlq_10"
"""

import re
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.training.evaluations import best_evaluation


def read_curves(texts: list[str], figure: str) -> dict[str, dict[float, list[float]]]:
    """Curves by name, position -> figures of best evaluations, from `CURVE:PLACE=FOLDER` texts."""
    curves: dict[str, dict[float, list[float]]] = {}
    for text in texts:
        match = re.fullmatch(r"(.+):([-+.\deE]+)=(.+)", text)
        try:
            name, position, folder = match.groups()
            position = float(position)
        except (AttributeError, ValueError):
            raise UserError(f"'{text}' is not CURVE:PLACE=FOLDER with a number as PLACE") from None
        scores = best_evaluation(Path(folder))
        if figure not in scores:
            raise UserError(f"{folder}: has no '{figure}', but {', '.join(map(str, scores))}")
        curves.setdefault(name, {}).setdefault(position, []).append(scores[figure])
    return curves


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="CURVE:PLACE=FOLDER", help="runs to draw")
    add("--figure", default="R@1 IoU=0.3", metavar="NAME", help="what is drawn")
    add("--xlabel", default="", metavar="TEXT", help="what PLACE is")
    add("--output", required=True, metavar="FILE", help=".svg, .png or .pdf")
    options = parser.parse_args(arguments)
    curves = read_curves(options.runs, options.figure)
    file = Path(options.output)
    from utils.evaluation.plots import plot_curves  # slow to import

    plot_curves(file, curves, options.xlabel, f"{options.figure}, %")
    print(f"drawn: {file}")


if __name__ == "__main__":
    run_program(main)
