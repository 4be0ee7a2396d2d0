"""VSLNet's predictions: a clip is encoded once for all its queries; processes share the clips."""

import numpy as np
import torch
from tqdm import tqdm

from utils.checkpoints import find_checkpoint
from utils.distributed import Processes, start_processes
from utils.predictions import best_spans, suppress
from utils.scoring import publish
from utils.spans import window_seconds
from VSLNet.data import Split, open_split
from VSLNet.model import VSLNet
from VSLNet.options import Options, adopt_architecture
from VSLNet.text import open_text
from VSLNet.weights import build_model, load_weights

CLIPS_AT_ONCE = 16
QUERIES_AT_ONCE = 64
PREDICTIONS = 5
CANDIDATES = 50  # spans a query offers to temporal NMS


def predict(model: VSLNet, split: Split, options: Options, processes: Processes) -> np.ndarray:
    """The five best windows of every query, (R, 5, 2) seconds, on every process."""
    return processes.gather_rows(*_predict_share(model, split, options, processes))


@torch.inference_mode()
def _predict_share(
    model: VSLNet, split: Split, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    device, records = processes.device, split.records
    dtype = torch.float16 if options.amp == "fp16" else torch.bfloat16
    count = PREDICTIONS if options.nms_threshold is None else CANDIDATES
    clips = np.unique(records.clip)[processes.rank :: processes.size]
    mine = np.flatnonzero(np.isin(records.clip, clips))
    mine = mine[np.argsort(records.clip[mine], kind="stable")]
    model.eval()
    found = np.empty((len(mine), PREDICTIONS, 2))
    bar = tqdm(total=len(mine), desc=f"predicting {split.name}", unit="query", leave=False,
               disable=not processes.main)  # fmt: skip
    with bar, torch.autocast(device.type, dtype, enabled=options.amp != "off"):
        for at in range(0, len(clips), CLIPS_AT_ONCE):
            some = clips[at : at + CLIPS_AT_ONCE]
            features, mask = split.features.gather(some, device)
            video = model.encode_video(features, mask)
            first, last = np.searchsorted(records.clip[mine], (some[0], some[-1] + 1))
            for begin in range(first, last, QUERIES_AT_ONCE):
                place = slice(begin, min(begin + QUERIES_AT_ONCE, last))
                rows = mine[place]
                clip = torch.from_numpy(np.searchsorted(some, records.clip[rows])).to(device)
                text = split.text(records.sentence[rows], device)
                query = model.encode_query(text.tokens, text.mask, text.characters)
                out = model.fuse(video[clip], mask[clip], query, text.mask)
                spans, scores = best_spans(out.start_logits, out.end_logits, count)
                windows = window_seconds(
                    spans.cpu().numpy(),
                    records.duration[rows, None],
                    split.units[rows, None],
                )
                if options.nms_threshold is not None:
                    windows, _ = suppress(
                        windows, scores.cpu().numpy(), options.nms_threshold, PREDICTIONS
                    )
                found[place] = windows
                bar.update(len(rows))
    return mine, found


def infer(options: Options) -> None:
    """Predict a split with the last checkpoint of the run: challenge file, and scores if known."""
    processes = start_processes()
    checkpoint = find_checkpoint(options.run_folder)
    options = adopt_architecture(options)
    text = open_text(options)
    split = open_split(options, options.mode, text, processes.device, options.allow_missing)
    model = build_model(options, split.features.width, text)
    load_weights(model, checkpoint)
    model.to(processes.device)
    windows = predict(model, split, options, processes)
    if processes.main:
        result = checkpoint.with_name(f"{checkpoint.stem}_{options.mode}_result.json")
        publish(result, split.records, windows, split.listed, options.eval_gt_json)
    processes.close()
