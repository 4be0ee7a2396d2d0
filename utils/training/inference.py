"""Predict a split with a trained run, in the same way for all models."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from utils.base.files import check_output
from utils.evaluation.metrics import evaluate
from utils.evaluation.predictions import write_results
from utils.evaluation.scoring import ground_truth, report
from utils.evaluation.submissions import accept, read_challenge_split
from utils.training.checkpoints import find_checkpoint
from utils.training.processes import start_processes


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
