"""How many labels of a prepared split are wrong when made from truncated times, as published.

The published preparation truncates both ends of a window to 16/30 s; a window within one such bin
has no length left and is labelled as the first unit of its clip. A label counts as wrong here if
its interval does not touch the exact window.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
from terminaltables import AsciiTable

from utils.base.errors import run_program
from utils.base.options import ArgumentParser
from utils.data.records import Records, read_records
from utils.data.spans import exact_unit_windows, unit_windows, window_seconds


def wrong_labels(records: Records, units: int, label_times: str) -> np.ndarray:
    """(R,) whether the interval of the label, one of `units` a clip, misses the exact window."""
    count = np.minimum(units, records.num_frames[records.clip])
    if label_times == "exact":
        windows = exact_unit_windows(records.exact, records.duration, count)
    else:
        windows = unit_windows(records.seconds, records.duration, count)
    label = window_seconds(windows, records.duration, count)
    return (label[:, 1] < records.exact[:, 0]) | (label[:, 0] > records.exact[:, 1])


def main(arguments: list[str] | None = None) -> None:
    """Read a prepared split and print the shares."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("split", metavar="FILE", help="data/dataset/<task>/train.json")
    parser.add_argument("--units", type=int, default=128, metavar="N", help="units of a clip")
    options = parser.parse_args(arguments)
    records = read_records(options.split)
    rows = [["", "labels", "wrong, exact times", "wrong, published times"]]
    for name, those in (("narrations", records.is_narration), ("queries", ~records.is_narration)):
        some = records.select(those)
        shares = [
            f"{100 * wrong_labels(some, options.units, times).mean():.2f} %" if len(some) else "-"
            for times in ("exact", "published")
        ]
        rows.append([name, len(some), *shares])
    print(AsciiTable(rows).table)


if __name__ == "__main__":
    run_program(main)
