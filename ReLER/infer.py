"""ReLER's predictions: five windows of every query from all scales; processes share the queries."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ReLER.data import ClipData, open_split
from ReLER.model import ReLER
from ReLER.options import IGNORED_OF_MODEL, ModelOptions, Options
from ReLER.text import open_text
from ReLER.weights import build_trained, read_checkpoint
from utils.base.files import check_output
from utils.base.machine import each_on_a_core
from utils.base.options import adopt
from utils.data.spans import window_seconds
from utils.evaluation.predictions import WINDOWS, suppress
from utils.evaluation.scoring import publish
from utils.training.checkpoints import find_checkpoint, step_of
from utils.training.processes import Processes, start_processes

CANDIDATES = 20  # spans each scale offers to temporal NMS
CPU_BATCH = 4  # queries a core predicts at once: more of them outgrow its cache


def predict(
    model: ReLER, data: ClipData, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows of every query, (R, 5, 2) seconds, and their scores (R, 5).

    Every process gets those of all queries.
    """
    return processes.gather_rows(*_predict_share(model, data, options, processes))


def _predict_share(
    model: ReLER, data: ClipData, options: Options, processes: Processes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    device, records = processes.device, data.records
    dtype = torch.float16 if options.amp == "fp16" else torch.bfloat16
    count = WINDOWS if options.nms_threshold is None else CANDIDATES
    mine = np.arange(len(records))[processes.rank :: processes.size]
    at_once = options.eval_bsz if device.type != "cpu" else min(options.eval_bsz, CPU_BATCH)
    chunks = [mine[at : at + at_once] for at in range(0, len(mine), at_once)]
    model.eval()

    @torch.inference_mode()
    def windows_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = data.batch(rows, device=device)
        with torch.autocast(device.type, dtype, enabled=options.amp != "off"):
            spans, scores = model.predict_scales(
                batch.video, batch.video_mask, batch.text, batch.text_mask, top=count
            )
        units = batch.video_mask.sum(1).cpu().numpy()[:, None]
        windows = window_seconds(spans.cpu().numpy(), records.duration[rows, None], units)
        if options.nms_threshold is None:
            return windows, scores.cpu().numpy()
        return suppress(windows, scores.cpu().numpy(), options.nms_threshold, WINDOWS)

    found, scored = np.empty((len(mine), WINDOWS, 2)), np.empty((len(mine), WINDOWS))
    bar = tqdm(total=len(mine), desc="predicting", unit="query", leave=False,
               disable=not processes.main)  # fmt: skip
    done = 0
    with bar:
        for windows, scores in each_on_a_core(windows_of, chunks, device):
            place = slice(done, done + len(windows))
            found[place], scored[place] = windows, scores
            done += len(windows)
            bar.update(len(windows))
    return mine, found, scored


def adopt_architecture(options: Options, opt: dict, file: Path) -> Options:
    """The options with the model's shape and inputs as a checkpoint's `opt` says it was trained."""
    names = {field.name for field in dataclasses.fields(ModelOptions)}
    names.add("no_norm_vfeat")
    adopted = adopt(options, {k: v for k, v in opt.items() if k in names}, file)
    for published in IGNORED_OF_MODEL:
        if published.name in opt:
            published.check(opt[published.name], adopted, f"{file}: ")
    return adopted


def infer(options: Options) -> Path:
    """Predict a split with a checkpoint; print scores if they can be known.

    Returns the challenge file, which the main process writes.
    """
    if options.output is not None:
        check_output("--output", options.output)
    with start_processes() as processes:
        file = find_checkpoint(options.resume or options.run_folder)
        content = read_checkpoint(file)
        options = adopt_architecture(options, content["opt"], file)
        text = open_text(options, file.parent)
        data, listed = open_split(
            options, options.mode, text, processes.device, options.allow_missing
        )
        model = build_trained(options, data.width, text.width, content, file)
        model.to(processes.device)
        windows, scores = predict(model, data, options, processes)
        folder = Path(options.eval_results_dir or file.parent)
        result = folder / "preds" / f"{step_of(file)}_{options.mode}_preds.json"
        if options.output is not None:
            result = Path(options.output)
        if processes.main:
            truth, submitted = options.eval_gt_json, options.is_submission
            publish(result, data.records, windows, scores, listed, truth, submitted)
    return result
