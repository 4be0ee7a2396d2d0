"""Predictions of a trained run, made with the options it was trained with.

The run's own model makes them, of every query, as `infer.sh` does and in the same place.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path

from utils.base.errors import UserError
from utils.search.models import PACKAGES, package_of_run
from utils.training.checkpoints import find_checkpoint


def predict_run(run: str | Path, split: str, data_root: str | None = None) -> Path:
    """The challenge file of a split, predicted by a run folder's last checkpoint, or by a file.

    Args:
        data_root: where the data lie, if not where they lay in training.

    Raises:
        UserError: no checkpoint there, its options are gone, or the data don't fit it.
    """
    checkpoint = find_checkpoint(run)
    package = package_of_run(checkpoint)
    if package is None:
        names = " or ".join(package.options_file for package in PACKAGES)
        raise UserError(
            f"{checkpoint}: no {names} beside it, which says how it was trained; predict with "
            "infer.sh and give the file that it writes"
        )
    overrides: dict[str, str | None] = {"mode": split}
    if data_root is not None:
        overrides |= {"data_root": data_root, "cache_dir": None}
    with redirect_stdout(io.StringIO()):  # scores of a single run are not what was asked for
        return package.module("infer").infer(checkpoint, **overrides)
