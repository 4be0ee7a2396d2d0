"""VSLNet's predictions: a clip is encoded once for all its queries; processes share the clips."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.checkpoints import find_checkpoint
from utils.distributed import Processes, start_processes
from utils.predictions import WINDOWS, best_spans, suppress
from utils.scoring import publish
from utils.spans import window_seconds
from VSLNet.data import Split, open_split
from VSLNet.model import VSLNet
from VSLNet.options import Options, adopt_architecture
from VSLNet.text import Text, open_text
from VSLNet.weights import build_model, load_weights

CLIPS_AT_ONCE = 16
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
    dtype = torch.float16 if options.amp == "fp16" else torch.bfloat16
    count = WINDOWS if options.nms_threshold is None else CANDIDATES
    clips = np.unique(records.clip)[processes.rank :: processes.size]
    model.eval()
    taken, found = [np.empty(0, np.int64)], [np.empty((0, WINDOWS, 2))]
    scored = [np.empty((0, WINDOWS))]
    bar = tqdm(total=int(np.isin(records.clip, clips).sum()), desc=f"predicting {split.name}",
               unit="query", leave=False, disable=not processes.main)  # fmt: skip
    with bar, torch.autocast(device.type, dtype, enabled=options.amp != "off"):
        for some in _chunks(clips, split.features.lengths):
            features, mask = split.features.gather(some, device)
            video = model.encode_video(features, mask)
            asked = np.flatnonzero(np.isin(records.clip, some))
            for at in range(0, len(asked), QUERIES_AT_ONCE):
                rows = asked[at : at + QUERIES_AT_ONCE]
                clip = torch.from_numpy(np.argmax(records.clip[rows, None] == some, axis=1)).to(
                    device
                )
                text = split.text(records.sentence[rows], device)
                query = _encode_queries(model, text)
                out = model.fuse(video[clip], mask[clip], query, text.mask)
                spans, scores = best_spans(out.start_logits, out.end_logits, count)
                scores = scores.cpu().numpy()
                windows = window_seconds(
                    spans.cpu().numpy(),
                    records.duration[rows, None],
                    split.units[rows, None],
                )
                if options.nms_threshold is not None:
                    windows, scores = suppress(windows, scores, options.nms_threshold, WINDOWS)
                taken.append(rows)
                found.append(windows)
                scored.append(scores)
                bar.update(len(rows))
    return np.concatenate(taken), np.concatenate(found), np.concatenate(scored)


# Convolutions reach into padding, as published: what is padded together would change predictions.
# Nothing is padded here, so they depend on the clip and the query alone.


def _chunks(clips: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Clips of the same number of units, a few at a time."""
    clips = clips[np.argsort(lengths[clips], kind="stable")]
    for same in np.split(clips, np.flatnonzero(np.diff(lengths[clips])) + 1):
        for at in range(0, len(same), CLIPS_AT_ONCE):
            yield same[at : at + CLIPS_AT_ONCE]


def _encode_queries(model: VSLNet, text: Text) -> torch.Tensor:
    """(B, Q, D) encoded queries, those of the same length together."""
    lengths = text.mask.sum(1).long()
    encoded = None
    for length in lengths.unique().tolist():
        rows = lengths == length
        letters = None if text.characters is None else text.characters[rows, :length]
        some = model.encode_query(text.tokens[rows, :length], text.mask[rows, :length], letters)
        if encoded is None:
            encoded = some.new_zeros(*text.mask.shape, some.shape[-1])
        encoded[rows, :length] = some
    return encoded


def infer(options: Options) -> Path:
    """Predict a split with the named checkpoint or the last of the run; print scores if known.

    Returns the challenge file, which the main process writes.
    """
    processes = start_processes()
    checkpoint = find_checkpoint(options.init_from or options.run_folder)
    options = adopt_architecture(options)
    text = open_text(options)
    split = open_split(options, options.mode, text, processes.device, options.allow_missing)
    model = build_model(options, split.features.width, text)
    load_weights(model, checkpoint)
    model.to(processes.device)
    windows, scores = predict(model, split, options, processes)
    result = checkpoint.with_name(f"{checkpoint.stem}_{options.mode}_result.json")
    if processes.main:
        publish(result, split.records, windows, scores, split.listed, options.eval_gt_json)
    processes.close()
    return result
