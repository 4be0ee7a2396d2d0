"""VSLNet's predictions: a clip is encoded once for all its queries; processes share the batches."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils.data.spans import window_seconds
from utils.evaluation.decoding import best_spans
from utils.evaluation.predictions import WINDOWS, suppress
from utils.features.tensors import to_device
from utils.training import inference
from utils.training.precision import autocast
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
    return processes.gather_rows(*_predict_share(model, split, options, processes))


@torch.inference_mode()
def _predict_share(
    model: VSLNet, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    device, records = processes.device, split.records
    count = WINDOWS if options.nms_threshold is None else CANDIDATES
    batches = _batches(split, options)[processes.rank :: processes.size]
    parts = [(np.empty(0, np.int64), np.empty((0, WINDOWS, 2)), np.empty((0, WINDOWS)))]
    model.eval()
    bar = tqdm(batches, f"predicting {split.name}", leave=False, disable=not processes.main)
    with autocast(device, options.amp):
        for rows in bar:
            clips, clip = np.unique(records.clip[rows], return_inverse=True)
            features, mask = split.features.gather(clips, device)
            clip = to_device(clip, device)
            text = split.text(records.sentence[rows], device)
            out = model.fuse(
                model.encode_video(features, mask)[clip],
                mask[clip],
                model.encode_query(text.tokens, text.mask, text.characters),
                text.mask,
            )
            spans, scores = best_spans(out.start_logits, out.end_logits, count)
            spans, scores = spans.cpu().numpy(), scores.cpu().numpy()
            seconds, units = records.duration[rows, None], split.units[rows, None]
            windows = window_seconds(spans, seconds, units)
            if options.nms_threshold is not None:
                windows, scores = suppress(windows, scores, options.nms_threshold, WINDOWS)
            parts.append((rows, windows, scores))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def _batches(split: Split, options: Options) -> list[np.ndarray]:
    """Row numbers of the queries that are predicted together.

    With masked padding, queries of clips of similar length, which need little padding. With
    published padding, where predictions depend on the batch, queries in the order of the file.
    """
    if options.padding == "published":
        order, size = np.arange(len(split.records)), options.eval_batch_size or options.batch_size
    else:
        order, size = np.lexsort((split.records.clip, split.units)), QUERIES_AT_ONCE
    return [order[at : at + size] for at in range(0, len(order), size)]


def infer(run: str | Path, **overrides: Any) -> Path:
    """Predict a split with a run, see `utils.training.inference`."""
    return inference.infer(run, overrides, load_trained, open_split, predict, _result_file)


def _result_file(options: Options, checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}_{options.mode}_result.json")
