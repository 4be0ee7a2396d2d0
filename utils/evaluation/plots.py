"""Plots of an analysis, and of runs along a quantity. Only this module needs matplotlib."""

from pathlib import Path

import numpy as np

from utils.base.errors import UserError
from utils.base.files import atomic_write
from utils.evaluation.calibration import Bin

try:
    from matplotlib.figure import Figure
except ImportError:
    raise UserError("plots need matplotlib: pip install matplotlib") from None

BAR = 0.8  # share of a group's height that its bars fill

Points = dict[float, list[float]]  # position -> figures


def plot_analysis(folder: Path, analysis: dict[str, dict], figure: str) -> list[Path]:
    """Draw the results of `analyse_predictions.analyse`; returns the files.

    A file for each grouping, with a panel for each protocol, and for several challenge files
    `differences.png` with all figures.
    """
    protocols = list(analysis)
    titles = [title for title, groups in analysis[protocols[0]]["groups"].items() if groups]
    files = []
    for title in titles:
        name = "".join(letter if letter.isalnum() else "_" for letter in title.split(" (")[0])
        panels = {protocol: analysis[protocol]["groups"][title] for protocol in protocols}
        files.append(_save(_bars(panels, title, figure), folder / f"{name}.png"))
    if analysis[protocols[0]]["all"]["differences"]:
        panels = {protocol: analysis[protocol]["all"] for protocol in protocols}
        files.append(_save(_intervals(panels), folder / "differences.png"))
    return files


def _bars(panels: dict[str, dict], title: str, figure: str) -> Figure:
    """A panel for each protocol: for each group of queries, a bar for each file."""
    group_count = max(map(len, panels.values()))
    canvas = Figure(figsize=(6 * len(panels), 1.2 + 0.5 * group_count), layout="constrained")
    axes = canvas.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for axis, (protocol, groups) in zip(axes, panels.items(), strict=True):
        files = list(next(iter(groups.values()))["figures"])
        positions = np.arange(len(groups))
        for number, name in enumerate(files):
            values = [group["figures"][name][figure] for group in groups.values()]
            shift = ((number + 0.5) / len(files) - 0.5) * BAR
            axis.barh(positions + shift, values, BAR / len(files), label=name)
        labels = [f"{name}\n{group['queries']} queries" for name, group in groups.items()]
        axis.set_yticks(positions, labels, fontsize="small")
        axis.invert_yaxis()
        axis.set_xlabel(f"{figure} (%)")
        axis.set_title(protocol, loc="right", fontsize="medium")
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    canvas.suptitle(title)
    return canvas


def _intervals(panels: dict[str, dict]) -> Figure:
    """A panel for each protocol: differences to the first file and their intervals."""
    canvas = Figure(figsize=(6 * len(panels), 3.5), layout="constrained")
    axes = canvas.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for axis, (protocol, result) in zip(axes, panels.items(), strict=True):
        baseline = next(iter(result["figures"]))
        files = result["differences"]
        for number, (name, figures) in enumerate(files.items()):
            mean, low, high = (
                np.array([interval[key] for interval in figures.values()])
                for key in ("mean", "low", "high")
            )
            positions = np.arange(len(figures)) + ((number + 0.5) / len(files) - 0.5) * BAR / 2
            bars = np.maximum([mean - low, high - mean], 0)
            label = f"{name} - {baseline}"
            axis.errorbar(mean, positions, xerr=bars, fmt="o", capsize=3, label=label)
        axis.axvline(0, color="grey", linewidth=1)
        axis.set_yticks(np.arange(len(figures)), list(figures), fontsize="small")
        axis.invert_yaxis()
        axis.set(xlabel="difference (points), 95 % interval",
                 title=f"{protocol}: {result['queries']} queries")  # fmt: skip
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return canvas


def plot_curves(file: Path, curves: dict[str, Points], xlabel: str, ylabel: str) -> None:
    """Draw mean and spread of the figures at each position, in the format of the file's suffix."""
    canvas = Figure(figsize=(6, 4), layout="constrained")
    endings = canvas.canvas.get_supported_filetypes()
    if file.suffix[1:] not in endings:
        raise UserError(f"{file}: can't draw this kind of file; give one of {', '.join(endings)}")
    axes = canvas.subplots()
    for name, points in curves.items():
        positions = sorted(points)
        seeds = [points[position] for position in positions]
        mean = np.array([np.mean(values) for values in seeds])
        spread = np.array([np.std(values, ddof=1) if len(values) > 1 else 0 for values in seeds])
        (line,) = axes.plot(positions, mean, marker="o", label=name)
        low, high = mean - spread, mean + spread
        axes.fill_between(positions, low, high, color=line.get_color(), alpha=0.2)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(canvas, file)


def plot_reliability(file: Path, bins: list[Bin]) -> None:
    """Draw the share of right windows over their chance, with one standard error."""
    canvas = Figure(figsize=(4, 4), layout="constrained")
    axes = canvas.subplots()
    chance, right, windows = (np.array(column) for column in zip(*bins, strict=True))
    error = np.sqrt(right * (1 - right) / windows)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.errorbar(chance, right, yerr=error, fmt="o", capsize=3)
    axes.set(xlabel="chance", ylabel="share of right windows", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    _save(canvas, file)


def _save(canvas: Figure, file: Path) -> Path:
    with atomic_write(file) as content:
        canvas.savefig(content, format=file.suffix[1:], dpi=120)
    return file
