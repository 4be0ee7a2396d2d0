"""VSLNet's predictions: a clip is encoded once for all its queries; processes share the batches."""

from pathlib import Path
from typing import Any

import numpy as np

from utils.data.spans import window_seconds
from utils.evaluation.decoding import best_spans
from utils.evaluation.predictions import WINDOWS
from utils.features.tensors import to_device
from utils.training import inference
from utils.training.processes import Processes
from VSLNet.data import Split, open_split
from VSLNet.model import VSLNet
from VSLNet.options import Options
from VSLNet.weights import load_trained

QUERIES_AT_ONCE = 64
CANDIDATES = 50  # spans of a query for temporal NMS


def predict(
    model: VSLNet, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows (R, 5, 2) of all queries in seconds, and their scores (R, 5)."""
    device, records = processes.device, split.records
    count = WINDOWS if options.nms_threshold is None else CANDIDATES

    def predict_batch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        clips, clip = np.unique(records.clip[rows], return_inverse=True)
        features, mask = split.features.gather(clips, device)
        clip = to_device(clip, device)
        text = split.text(records.sentence[rows])
        out = model.fuse(
            model.encode_video(features, mask)[clip],
            mask[clip],
            model.encode_query(text.tokens, text.mask, text.characters),
            text.mask,
        )
        spans, scores = best_spans(out.start_logits, out.end_logits, count)
        seconds, units = records.duration[rows, None], split.units[rows, None]
        return window_seconds(spans.cpu().numpy(), seconds, units), scores.cpu().numpy()

    model.eval()
    if options.padding == "published":  # predictions depend on the batch
        order, size = np.arange(len(records)), options.eval_batch_size or options.batch_size
    else:  # clips of similar length need little padding
        order, size = np.lexsort((records.clip, split.units)), QUERIES_AT_ONCE
    return inference.predict_queries(predict_batch, order, size, options, processes)


def infer(run: str | Path, **overrides: Any) -> Path:
    """Predict a split with a run, see `utils.training.inference`."""
    return inference.infer(run, overrides, load_trained, open_split, predict, _result_file)


def _result_file(options: Options, checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}_{options.mode}_result.json")
