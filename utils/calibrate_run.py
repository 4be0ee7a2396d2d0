"""Chances instead of scores: how often a run's windows are right, fitted on its validation split.

    python utils/calibrate_run.py runs/tuned

Writes calibration.json and a picture of its reliability, calibration.png, beside the checkpoint.
From then on ask.py, indexes and pages show the chance that a window is right (IoU above 0.3).
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
from tqdm import tqdm

from utils import search
from utils.base.errors import UserError, run_program
from utils.base.files import check_output, write_json
from utils.base.options import ArgumentParser
from utils.base.tables import figure_table
from utils.data.records import read_split
from utils.data.spans import EMPTY_SECONDS
from utils.evaluation.calibration import CALIBRATION_FILE, RIGHT, fit_calibration, reliability
from utils.evaluation.metrics import iou
from utils.training.checkpoints import checkpoint_hash, find_checkpoint


def main(arguments: list[str] | None = None) -> None:
    """Ask the split, fit, write and print how chances compare with shares."""
    options = parse(arguments)
    from utils.evaluation.plots import plot_reliability  # slow to import

    checkpoint = find_checkpoint(options.run)
    file = checkpoint.with_name(CALIBRATION_FILE)
    check_output("RUN", file)
    run = search.load_run(checkpoint, options.text_encoder, device=options.device)
    support, right = ask_split(run, Path(options.data_root or run.model.options.data_root))
    calibration = fit_calibration(support.ravel(), right.ravel(), checkpoint_hash(checkpoint))
    bins = reliability(calibration.chances(support).ravel(), right.ravel())
    write_json(file, calibration, indent=True)
    plot_reliability(file.with_suffix(".png"), bins)
    rows = [[f"{100 * b.chance:.1f}", f"{100 * b.right:.1f}", b.windows] for b in bins]
    print(figure_table([["chance, %", "right, %", "windows"], *rows]))
    print(f"{len(right)} queries of val, each asked of its own clip: {file}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder or checkpoint of any model")
    add("--data_root", metavar="DIR", help="where its data lie (default: as in training)")
    search.add_run_options(parser)
    return parser.parse_args(arguments)


def ask_split(run: "search.TrainedRun", data_root: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the validation queries find in their own clips: support (R, k), and what is right.

    Queries whose window is empty are left out. Raises UserError if none is left.
    """
    from utils.features.mapped import find_features  # brings PyTorch
    from utils.search.ranking import rank

    records, _ = read_split(data_root, run.model.options.task, "val")
    files = [find_features(data_root, name, records.clip_uids) for name in run.model.features]
    features = [dict(of_kind.each("reading features")) for of_kind in files]
    timed = records.exact[:, 1] - records.exact[:, 0] > EMPTY_SECONDS
    clips = set(records.clip[timed].tolist()).intersection(*features)
    if not clips:
        raise UserError(f"{data_root}: no query of val has a window and features to search in")
    parts = []
    for clip in tqdm(sorted(clips), "asking clips", unit="clip", leave=False):
        rows = np.flatnonzero(timed & (records.clip == clip))
        video = run.encode([of_kind[clip] for of_kind in features], files[0].rate)
        answers = rank([video], [records.sentences[n] for n in records.sentence[rows]])
        right = iou(answers.windows, records.exact[rows, None]) > RIGHT
        parts.append((answers.support, right))
    support, right = map(np.concatenate, zip(*parts, strict=True))
    return support, right


if __name__ == "__main__":
    run_program(main)
