"""ReLER's predictions: five windows of every query from all scales; processes share the queries."""

from pathlib import Path
from typing import Any

import numpy as np

from ReLER.data import Split, open_split
from ReLER.model import ReLER
from ReLER.options import Options
from ReLER.weights import load_trained
from utils.base.errors import UserError
from utils.data.spans import window_seconds
from utils.evaluation.predictions import WINDOWS
from utils.training import inference
from utils.training.checkpoints import step_of
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
    device, records = processes.device, split.records
    count = WINDOWS if options.nms_threshold is None else CANDIDATES

    def predict_batch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs, units = split.inputs(rows, device), split.units(rows)
        spans, scores = model.predict_scales(*inputs, longest=int(units.max()), top=count)
        seconds = records.duration[rows, None]
        return window_seconds(spans.cpu().numpy(), seconds, units[:, None]), scores.cpu().numpy()

    model.eval()
    size = options.eval_bsz if device.type != "cpu" else min(options.eval_bsz, CPU_BATCH)
    order = np.arange(len(records))
    return inference.predict_queries(predict_batch, order, size, options, processes)


def infer(run: str | Path, **overrides: Any) -> Path:
    """Predict a split with a run, see `utils.training.inference`."""
    return inference.infer(run, overrides, load_trained, open_split, predict, _result_file)


def _result_file(options: Options, checkpoint: Path) -> Path:
    folder = Path(options.eval_results_dir or checkpoint.parent)
    return folder / "preds" / f"{step_of(checkpoint)}_{options.mode}_preds.json"
