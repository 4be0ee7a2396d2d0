"""VSLNet's predictions: a clip is encoded once for all its queries; processes share the clips."""

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
CANDIDATES = 50  # spans a query offers to temporal NMS


def predict(
    model: VSLNet, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows of every query, (R, 5, 2) seconds, and their scores (R, 5).

    Every process gets those of all queries.
    """
    return processes.gather_rows(*_predict_share(model, split, options, processes))


@torch.inference_mode()
def _predict_share(
    model: VSLNet, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    device, records = processes.device, split.records
    count = WINDOWS if options.nms_threshold is None else CANDIDATES
    batches = _batches(split, options)[processes.rank :: processes.size]
    rows = np.concatenate([np.empty(0, np.int64), *batches])
    windows, scores = np.empty((len(rows), WINDOWS, 2)), np.empty((len(rows), WINDOWS))
    done = 0
    model.eval()
    bar = tqdm(total=len(rows), desc=f"predicting {split.name}", unit="query", leave=False,
               disable=not processes.main)  # fmt: skip
    with bar, autocast(device, options.amp):
        for batch in batches:
            clips, clip = np.unique(records.clip[batch], return_inverse=True)
            features, mask = split.features.gather(clips, device)
            clip = to_device(clip, device)
            text = split.text(records.sentence[batch], device)
            out = model.fuse(
                model.encode_video(features, mask)[clip],
                mask[clip],
                model.encode_query(text.tokens, text.mask, text.characters),
                text.mask,
            )
            spans, best_scores = (
                x.cpu().numpy() for x in best_spans(out.start_logits, out.end_logits, count)
            )
            best = window_seconds(spans, records.duration[batch, None], split.units[batch, None])
            if options.nms_threshold is not None:
                best, best_scores = suppress(best, best_scores, options.nms_threshold, WINDOWS)
            done += len(batch)
            windows[done - len(batch) : done] = best
            scores[done - len(batch) : done] = best_scores
            bar.update(len(batch))
    return rows, windows, scores


def _batches(split: Split, options: Options) -> list[np.ndarray]:
    """Rows of the queries predicted together, each clip encoded once for all of them.

    With masked padding any will do: those of clips of similar length need little padding. With
    published padding the windows depend on the batch, which is so many queries in the order of the
    file, as published.
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
