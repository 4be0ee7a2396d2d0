"""Draw how runs do along a quantity, mean and spread over those at the same place.

    python utils/plot_curves.py --xlabel "NLQ clips, %" --output few_shot.svg \\
        "with NaQ:10=runs/naq_10" "with NaQ:100=runs/naq_100" "NLQ only:10=runs/nlq_10"
"""

import re
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from utils.errors import UserError, quiet_libraries, run_program
from utils.files import atomic_write
from utils.options import ArgumentParser
from utils.runs import best_evaluation

Points = dict[float, list[float]]  # place -> figures of its runs


def read_curves(texts: list[str], figure: str) -> dict[str, Points]:
    """Curves by name, from `CURVE:PLACE=FOLDER` texts; the figure is of the best evaluation."""
    curves: dict[str, Points] = {}
    for text in texts:
        parts = re.fullmatch(r"(.+):([-+.\deE]+)=(.+)", text)
        try:
            name, place, folder = parts.groups()
            place = float(place)
        except (AttributeError, ValueError):
            raise UserError(f"'{text}' is not CURVE:PLACE=FOLDER with a number as PLACE") from None
        scores = best_evaluation(Path(folder))
        if figure not in scores:
            raise UserError(f"{folder}: has no '{figure}', but {', '.join(map(str, scores))}")
        curves.setdefault(name, {}).setdefault(place, []).append(scores[figure])
    return curves


def main(arguments: list[str] | None = None) -> None:
    """Read the runs, draw the picture."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="CURVE:PLACE=FOLDER", help="runs to draw")
    parser.add_argument("--figure", default="R@1 IoU=0.3", metavar="NAME", help="what is drawn")
    parser.add_argument("--xlabel", default="", metavar="TEXT", help="what PLACE is")
    parser.add_argument("--output", required=True, metavar="FILE", help=".svg, .png or .pdf")
    options = parser.parse_args(arguments)
    curves = read_curves(options.runs, options.figure)
    file = Path(options.output)
    quiet_libraries()
    try:
        import matplotlib
    except ImportError:
        raise UserError("drawing needs the package matplotlib: pip install matplotlib") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    known = picture.canvas.get_supported_filetypes()
    if file.suffix[1:] not in known:
        raise UserError(f"{file}: can't draw this kind of file; give one of {', '.join(known)}")
    for name, points in curves.items():
        places = sorted(points)
        means = np.array([np.mean(points[place]) for place in places])
        spread = np.array([np.std(points[p], ddof=1) if len(points[p]) > 1 else 0 for p in places])
        (line,) = axes.plot(places, means, marker="o", label=name)
        axes.fill_between(places, means - spread, means + spread, color=line.get_color(), alpha=0.2)
    axes.set_xlabel(options.xlabel)
    axes.set_ylabel(f"{options.figure}, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(file) as stream:
        picture.savefig(stream, format=file.suffix[1:])
    print(f"drawn: {file}")


if __name__ == "__main__":
    run_program(main)
