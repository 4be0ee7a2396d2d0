"""What a model implements for the training loop, and the plan of an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from utils.base.errors import UserError
from utils.evaluation.metrics import evaluate
from utils.evaluation.predictions import write_results
from utils.evaluation.scoring import ground_truth, report
from utils.evaluation.timelines import draw_examples
from utils.training.options import TEXT_FILE, TrainingOptions
from utils.training.processes import Processes, Share


class EpochPlan(NamedTuple):
    """The order and the random draws of one epoch, which depend on the seed and the epoch only."""

    epoch: int
    order: np.ndarray  # (R,) permutation of row numbers
    draws: np.ndarray  # (R, columns) uniform in [0, 1), for each query


def plan_epoch(seed: int, epoch: int, rows: int, columns: int) -> EpochPlan:
    """Draw the plan of an epoch: the same on every process and after every restart."""
    generator = np.random.default_rng((seed, epoch))
    return EpochPlan(epoch, generator.permutation(rows), generator.random((rows, columns)))


class Evaluation(NamedTuple):
    figures: dict[str, float]  # by name; checkpoints are chosen by SELECTION
    table: str
    picture: np.ndarray | None = None  # (H, W, 3) uint8


class Recipe(ABC):
    """The model-specific part of training, made as `Recipe(options, processes)`.

    A model makes `model` and `optimizer` in its constructor, and implements the methods below.
    """

    evaluations = 1  # per epoch, evenly spaced, the last one at its end
    columns = 2  # of draws in the plan of an epoch
    first_epoch = 0  # of a new run, counted from 0
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(
        self, options: TrainingOptions, processes: Processes, open_split: Callable, text: Any
    ):
        """Open both splits; `text` encodes the queries, and is described in the run folder.

        A split has `records` and `listed`, the number of queries before any were left out. Raises
        UserError if the validation split has no times.
        """
        self.options = options
        self.processes = processes
        self.train: Any = open_split(options, "train", text, processes.device, tolerant=True)
        self.val: Any = open_split(options, "val", text, processes.device, tolerant=True)
        # Live text encoding draws random numbers: it must run within its step.
        self.live = getattr(text, "live", False)
        self.descriptions = {} if text is None else {TEXT_FILE: text.describe()}
        annotations = options.eval_gt_json
        truth = ground_truth(self.val.records, self.val.listed, annotations)
        if truth is None:
            raise UserError(
                f"{annotations or 'val.json'}: holds no times; training chooses checkpoints on a "
                "split with times: give --eval_gt_json"
            )
        self.truth = truth

    @abstractmethod
    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step; steps are counted from 0."""

    @abstractmethod
    def batch(self, share: Share, plan: EpochPlan) -> Any:
        """The share's tensors on the device."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """Losses of a share by name; `total` is minimised.

        The losses of a batch are the sum over a process's shares, averaged over the processes.
        """

    @abstractmethod
    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows (R, K, 2) of the validation split in seconds, best first, and scores (R, K)."""

    @abstractmethod
    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """File name and content of a checkpoint."""

    def predictions_name(self, epoch: int, step: int) -> str:
        """File name of an evaluation's predictions in the run folder."""
        return f"{epoch}_preds.json"

    def evaluate(self, epoch: int, step: int) -> Evaluation:
        """Score the validation split and write its predictions; all processes must call this."""
        windows, scores = self.predict()
        split_scores = evaluate(self.truth.seconds, windows, listed=self.truth.listed)
        picture = None
        if self.processes.main:
            file = self.options.run_folder / self.predictions_name(epoch, step)
            write_results(file, self.val.records.keys, windows, scores)
            picture = draw_examples(self.val.records, self.truth.seconds, windows)
        table = report(split_scores, f"Epoch {epoch}, Step {step}")
        return Evaluation(split_scores.percentages(), table, picture)


def steps_per_epoch(rows: int, batch_size: int, processes: int) -> int:
    """Batches per epoch; a last batch smaller than the number of processes is left out."""
    if rows < processes:
        raise UserError(f"{rows} training queries are too few for {processes} processes")
    whole, rest = divmod(rows, batch_size)
    return whole + (rest >= processes)


def evaluates(step: int, steps: int, total: int, evaluations: int, period: int) -> bool:
    """Whether to evaluate after `step` of `total` steps, with `steps` per epoch.

    There are `evaluations` per epoch, or one every `period` steps if that is not 0.
    """
    if period:
        return step % period == 0 or step == total
    number, rest = divmod(step % steps, max(1, steps // evaluations))
    return rest == 0 and number < evaluations
