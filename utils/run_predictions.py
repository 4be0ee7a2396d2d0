"""Predictions of a trained run, made with the options it was trained with.

The run's own model makes them, of every query, as `infer.sh` does and in the same place.
"""

import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path

from utils.checkpoints import find_checkpoint
from utils.errors import UserError
from utils.files import read_json
from utils.options import adopt
from utils.search import PACKAGES

# What prediction takes of a run's options; the model's shape is read with the checkpoint.
KEPT = (
    "task", "fv", "data_root", "cache_dir", "text_encoder", "nms_threshold", "amp", "predictor",
    "max_pos_len", "max_v_l", "text_agnostic", "video_agnostic",
)  # fmt: skip
CHECKPOINT = {"VSLNet": "init_from", "ReLER": "resume"}  # the option that names it


def predict_run(run: str | Path, split: str, data_root: str | None = None) -> Path:
    """The challenge file of a split, predicted by a run folder's last checkpoint, or by a file.

    Args:
        data_root: where the data lie, if not where they lay in training.

    Raises:
        UserError: no checkpoint there, its options are gone, or the data don't fit it.
    """
    checkpoint = find_checkpoint(run)
    beside = {package: checkpoint.parent / file for package, (file, _) in PACKAGES.items()}
    package = next((name for name, file in beside.items() if file.is_file()), None)
    if package is None:
        names = " or ".join(file.name for file in beside.values())
        raise UserError(
            f"{checkpoint}: no {names} beside it, which says how it was trained; predict with "
            "infer.sh and give the file that it writes"
        )
    trained = read_json(beside[package])
    if not isinstance(trained, dict):
        raise UserError(f"{beside[package]}: must be an object of options; copy the run again")
    names = set(KEPT)
    if trained.get("text_agnostic") or trained.get("video_agnostic"):
        names.add("seed")  # of what is random in their place
    options_class = importlib.import_module(f"{package}.options").Options
    options = options_class(task="unknown", fv="unknown", mode=split)
    kept = {name: trained[name] for name in names & trained.keys() & vars(options).keys()}
    given = {CHECKPOINT[package]: str(checkpoint)}
    if data_root is not None:
        given |= {"data_root": data_root, "cache_dir": None}
    options = adopt(options, kept | given, beside[package])
    with redirect_stdout(io.StringIO()):  # scores of a single run are not what was asked for
        return importlib.import_module(f"{package}.infer").infer(options)
