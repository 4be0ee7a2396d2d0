"""Predictions of a trained run, made with the options it was trained with.

The run's own model makes them, of every query, as `infer.sh` does and in the same place.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.options import adopt
from utils.search.models import PACKAGES, package_of_run
from utils.training.checkpoints import find_checkpoint

# What prediction takes of a run's options; the model's shape is read with the checkpoint.
KEPT = (
    "task", "fv", "data_root", "cache_dir", "text_encoder", "nms_threshold", "amp", "predictor",
    "max_pos_len", "max_v_l", "text_agnostic", "video_agnostic",
)  # fmt: skip


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
    file = checkpoint.parent / package.options_file
    trained = read_json(file)
    if not isinstance(trained, dict):
        raise UserError(f"{file}: must be an object of options; copy the run again")
    names = set(KEPT)
    if trained.get("text_agnostic") or trained.get("video_agnostic"):
        names.add("seed")  # of what is random in their place
    options = package.module("options").Options(task="unknown", fv="unknown", mode=split)
    kept = {name: trained[name] for name in names & trained.keys() & vars(options).keys()}
    given = {package.checkpoint_option: str(checkpoint)}
    if data_root is not None:
        given |= {"data_root": data_root, "cache_dir": None}
    options = adopt(options, kept | given, file)
    with redirect_stdout(io.StringIO()):  # scores of a single run are not what was asked for
        return package.module("infer").infer(options)
