"""Predict a split with a trained run and its options, into the same file as `infer.sh`."""

import io
from contextlib import redirect_stdout
from pathlib import Path

from utils.base.errors import UserError
from utils.search.models import PACKAGES, package_of_run
from utils.training.checkpoints import find_checkpoint


def predict_run(run: str | Path, split: str, data_root: str | None = None) -> Path:
    """Predict a split with a checkpoint, or a run folder's last one; returns the challenge file.

    Args:
        data_root: the data root, if it has been moved after training.

    Raises:
        UserError: no checkpoint, no options beside it, or the data don't fit it.
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
    with redirect_stdout(io.StringIO()):  # without the scores of the single run
        return package.module("infer").infer(checkpoint, **overrides)
