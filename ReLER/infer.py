"""ReLER's predictions: five windows of every query from all scales; processes share the queries."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ReLER.data import Split, open_split
from ReLER.model import ReLER
from ReLER.options import Options
from ReLER.weights import load_trained
from utils.base.errors import UserError
from utils.base.machine import each_on_a_core
from utils.data.spans import window_seconds
from utils.evaluation.predictions import WINDOWS, suppress
from utils.training import inference
from utils.training.checkpoints import step_of
from utils.training.precision import autocast
from utils.training.processes import Processes

CANDIDATES = 20  # spans of each scale for temporal NMS
CPU_BATCH = 4  # queries that a core predicts together: more do not fit its cache


def predict(
    model: ReLER, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows (R, 5, 2) of all queries in seconds, and their scores (R, 5).

    Raises UserError if the model was trained on features of another width.
    """
    if split.width != model.video_dim:
        raise UserError(
            f"{' and '.join(options.features)} are {split.width - 2} wide together, but the model "
            f"was trained on {model.video_dim - 2}; give --fv as in training"
        )
    return processes.gather_rows(*_predict_share(model, split, options, processes))


def _predict_share(
    model: ReLER, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    device, records = processes.device, split.records
    count = WINDOWS if options.nms_threshold is None else CANDIDATES
    rows = np.arange(len(records))[processes.rank :: processes.size]
    size = options.eval_bsz if device.type != "cpu" else min(options.eval_bsz, CPU_BATCH)
    batches = [rows[at : at + size] for at in range(0, len(rows), size)]
    model.eval()

    @torch.inference_mode()
    def predict_batch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs, units = split.inputs(rows, device), split.units(rows)
        with autocast(device, options.amp):
            spans, scores = model.predict_scales(*inputs, longest=int(units.max()), top=count)
        seconds = records.duration[rows, None]
        windows = window_seconds(spans.cpu().numpy(), seconds, units[:, None])
        if options.nms_threshold is None:
            return windows, scores.cpu().numpy()
        return suppress(windows, scores.cpu().numpy(), options.nms_threshold, WINDOWS)

    parts = [(np.empty((0, WINDOWS, 2)), np.empty((0, WINDOWS)))]
    predictions = each_on_a_core(predict_batch, batches, device)
    parts += tqdm(predictions, "predicting", len(batches), leave=False, disable=not processes.main)
    return rows, *map(np.concatenate, zip(*parts, strict=True))


def infer(run: str | Path, **overrides: Any) -> Path:
    """Predict a split with a run, see `utils.training.inference`."""
    return inference.infer(run, overrides, load_trained, open_split, predict, _result_file)


def _result_file(options: Options, checkpoint: Path) -> Path:
    folder = Path(options.eval_results_dir or checkpoint.parent)
    return folder / "preds" / f"{step_of(checkpoint)}_{options.mode}_preds.json"
