"""Read the evaluations of a run from its `metrics.jsonl`."""

from operator import itemgetter
from pathlib import Path

import msgspec

from utils.base.errors import UserError

SELECTION = "R@1 IoU=0.3"  # the figure that checkpoints are chosen by
FIGURES = (SELECTION, "R@1 IoU=0.5", "R@5 IoU=0.3", "R@5 IoU=0.5", "mIoU")  # of a table


def best_evaluation(run: Path) -> dict:
    """The evaluation with the highest R@1 IoU=0.3, the latest of equal ones, as for checkpoints.

    `run` is a run folder or one above it. Raises `UserError` if there is no run or no evaluation.
    """
    files = [run] if run.is_file() else sorted(run.rglob("metrics.jsonl"))
    if len(files) != 1:
        raise UserError(f"{run}: {len(files)} files metrics.jsonl under it; name one run folder")
    try:
        lines = msgspec.json.Decoder(dict[str, int | float]).decode_lines(files[0].read_bytes())
        best = max(reversed(lines), key=itemgetter(SELECTION), default=None)
    except (ValueError, KeyError):
        raise UserError(
            f"{files[0]}: not a training run's evaluations: JSON lines with '{SELECTION}'"
        ) from None
    if best is None:
        raise UserError(f"{files[0]}: no evaluation in it yet")
    return best
