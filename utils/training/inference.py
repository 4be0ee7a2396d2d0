"""Predict a split with a trained run, in the same way for all models."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils.base.files import check_output
from utils.base.machine import each_on_a_core
from utils.evaluation.metrics import evaluate
from utils.evaluation.predictions import WINDOWS, suppress, write_results
from utils.evaluation.scoring import ground_truth, report
from utils.evaluation.submissions import accept, read_challenge_split
from utils.training.checkpoints import find_checkpoint
from utils.training.options import TrainingOptions
from utils.training.precision import autocast
from utils.training.processes import Processes, start_processes


def infer(
    run: str | Path,
    overrides: Mapping[str, Any],
    load_trained: Callable,
    open_split: Callable,
    predict: Callable,
    result_file: Callable[[Any, Path], Path],
) -> Path:
    """Predict a split; prints scores if the true windows are known.

    Raises UserError if `--check_submission` is given and the challenge server would reject it.

    Args:
        run: a checkpoint or a run folder.
        overrides: options that replace those of the run; `mode` is the split.
        load_trained, open_split, predict: functions of the model package.
        result_file: (options, checkpoint) -> the challenge file if there is no `--output`.

    Returns:
        The challenge file, written by the main process.
    """
    if overrides.get("output") is not None:
        check_output("--output", overrides["output"])
    with start_processes() as processes:
        checkpoint = find_checkpoint(run)
        options, model, text = load_trained(checkpoint, processes.device, **overrides)
        split = open_split(options, options.mode, text, processes.device, options.allow_missing)
        windows, scores = predict(model, split, options, processes)
        file = Path(options.output or result_file(options, checkpoint))
        if processes.main:
            write_results(file, split.records.keys, windows, scores)
            annotations = options.eval_gt_json
            truth = ground_truth(split.records, split.listed, annotations)
            if truth is None:
                source = annotations or "the split"
                print(f"{source} holds no times: predictions only, nothing to score")
            else:
                print(report(evaluate(truth.seconds, windows, listed=truth.listed), file.stem))
            print(f"{len(windows)} of {split.listed} queries predicted, written to {file}")
            if options.is_submission:
                accept(file, read_challenge_split(annotations))
    return file


def predict_queries(
    predict_batch: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    order: np.ndarray,
    batch_size: int,
    options: TrainingOptions,
    processes: Processes,
) -> tuple[np.ndarray, np.ndarray]:
    """The five best windows (R, 5, 2) of all queries in seconds, and their scores (R, 5).

    Processes share the batches, and so do the cores of a process: the cores of a CPU would wait for
    each other in the small products of one batch.

    Args:
        predict_batch: gives windows (B, n, 2) and scores (B, n) of row numbers (B,), for temporal
            NMS more than five.
        order: (R,) row numbers, neighbours in a batch.
    """
    device = processes.device

    @torch.inference_mode()
    def predict(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with autocast(device, options.amp):
            windows, scores = predict_batch(rows)
        if options.nms_threshold is not None:
            windows, scores = suppress(windows, scores, options.nms_threshold, WINDOWS)
        return rows, windows, scores

    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    share = batches[processes.rank :: processes.size]
    parts = [(np.empty(0, np.int64), np.empty((0, WINDOWS, 2)), np.empty((0, WINDOWS)))]
    predictions = each_on_a_core(predict, share, device)
    parts += tqdm(predictions, "predicting", len(share), leave=False, disable=not processes.main)
    return processes.gather_rows(*map(np.concatenate, zip(*parts, strict=True)))
