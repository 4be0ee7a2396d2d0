"""GroundNLQ's predictions: a clip is encoded once for its queries; processes share the queries."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from GroundNLQ.data import Split, open_split
from GroundNLQ.model import Grounding, GroundNLQ
from GroundNLQ.options import Options
from GroundNLQ.points import candidates, soft_nms
from GroundNLQ.weights import load_trained
from utils.base.errors import UserError
from utils.base.tasks import FRAME_RATE
from utils.evaluation.predictions import WINDOWS, suppress
from utils.features.tensors import to_device
from utils.training import inference
from utils.training.precision import autocast
from utils.training.processes import Processes

CANDIDATES = 20  # windows of a query for temporal NMS


@torch.inference_mode()
def predict(
    model: GroundNLQ, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows (R, 5, 2) of all queries in seconds, and their scores (R, 5).

    Raises UserError if the model was trained on features or tokens of another width.
    """
    widths, trained = (split.width, split.text_width), (model.video_dim, model.text_dim)
    if widths != trained:
        raise UserError(
            f"features and tokens are {widths} wide, but the model was trained on {trained}"
        )
    device = processes.device
    batches = _batches(split, options)[processes.rank :: processes.size]
    parts = [(np.empty(0, np.int64), np.empty((0, WINDOWS, 2)), np.empty((0, WINDOWS)))]
    model.eval()
    bar = tqdm(batches, f"predicting {split.name}", leave=False, disable=not processes.main)
    with autocast(device, options.amp):
        for rows in bar:
            clips, clip = np.unique(split.records.clip[rows], return_inverse=True)
            padded = int(split.padded(clips, split.clip_rows[clips]).max())
            video, mask = split.video(clips, padded, device)
            text = split.text(rows, device)
            encoded = model.encode_video(video, mask)
            query = model.encode_query(text.tokens, text.mask)
            clip = to_device(clip, device)
            grounding = model.ground(encoded[clip], mask[clip], query, text.mask)
            parts.append((rows, *best_windows(grounding, padded, split.durations[rows], options)))
    return processes.gather_rows(*map(np.concatenate, zip(*parts, strict=True)))


def _batches(split: Split, options: Options) -> list[np.ndarray]:
    """Row numbers of the queries that are predicted together.

    Queries of clips of similar length, which need little padding. With published text padding,
    where predictions depend on the batch, queries in the order of the file.
    """
    order = np.arange(len(split.records))
    if "text_padding" not in options.quirks:
        clip = split.records.clip
        order = np.lexsort((clip, split.clip_rows[clip]))
    size = options.eval_batch_size
    return [order[at : at + size] for at in range(0, len(order), size)]


def best_windows(
    grounding: Grounding, padded: int, durations: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Five windows (B, 5, 2) in seconds and their scores (B, 5), of clips of `padded` rows.

    If a query has fewer windows, the best one is repeated with score 0.
    """
    count = WINDOWS if options.nms_threshold is None else CANDIDATES
    windows, scores = ranked_windows(grounding, padded, options.levels, count)
    windows = torch.where(scores[..., None] > 0, windows, windows[:, :1])
    windows = windows * options.row_frames
    if "half_row" in options.quirks:
        windows = windows + options.row_frames / 2
    seconds = (windows / FRAME_RATE).cpu().numpy()
    seconds = np.minimum(np.maximum(seconds, 0.0), durations[:, None, None])
    scores = scores.cpu().numpy()
    if options.nms_threshold is None:
        return seconds, scores
    return suppress(seconds, scores, options.nms_threshold, WINDOWS)


def ranked_windows(
    grounding: Grounding, padded: int, levels: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best windows (B, count, 2) in rows after soft-NMS and their scores, 0 for none."""
    probability = grounding.logits.sigmoid() * grounding.mask
    return soft_nms(*candidates(probability, grounding.offsets, padded, levels), count)


def infer(run: str | Path, **overrides: Any) -> Path:
    """Predict a split with a run, see `utils.training.inference`."""
    return inference.infer(run, overrides, load_trained, open_split, predict, _result_file)


def _result_file(options: Options, checkpoint: Path) -> Path:
    name = checkpoint.name.partition(".")[0]
    return checkpoint.with_name(f"{name}_{options.mode}_result.json")
