"""GroundNLQ's predictions: a clip is encoded once for its queries; processes share the queries."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from GroundNLQ.data import Split, open_split
from GroundNLQ.model import Grounding, GroundNLQ
from GroundNLQ.options import Options
from GroundNLQ.points import candidates, soft_nms
from GroundNLQ.weights import load_trained
from utils.base.errors import UserError
from utils.base.tasks import FRAME_RATE
from utils.evaluation.predictions import WINDOWS
from utils.features.tensors import to_device
from utils.training import inference
from utils.training.processes import Processes

CANDIDATES = 20  # windows of a query for temporal NMS


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

    def predict_batch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        clips, clip = np.unique(split.records.clip[rows], return_inverse=True)
        padded = int(split.padded(clips, split.clip_rows[clips]).max())
        video, mask = split.video(clips, padded, device)
        text = split.text(rows)
        encoded = model.encode_video(video, mask)
        query = model.encode_query(text.tokens, text.mask)
        clip = to_device(clip, device)
        grounding = model.ground(encoded[clip], mask[clip], query, text.mask)
        return candidate_windows(grounding, padded, split.durations[rows], options)

    model.eval()
    if "text_padding" in options.quirks:  # predictions depend on the batch
        order = np.arange(len(split.records))
    else:  # clips of similar length need little padding
        order = np.lexsort((split.records.clip, split.clip_rows[split.records.clip]))
    size = options.eval_batch_size
    return inference.predict_queries(predict_batch, order, size, options, processes)


def candidate_windows(
    grounding: Grounding, padded: int, durations: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Windows (B, n, 2) in seconds and scores (B, n), best first, of clips of `padded` rows.

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
    return seconds, scores.cpu().numpy()


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
