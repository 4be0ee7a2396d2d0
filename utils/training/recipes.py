"""What a model gives to the training loop, and the plan that it trains by."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from utils.base.errors import UserError
from utils.training.processes import Share


class EpochPlan(NamedTuple):
    """The order and the draws of one epoch: functions of the seed and the epoch alone."""

    epoch: int
    order: np.ndarray  # (R,) permutation of row numbers
    draws: np.ndarray  # (R, columns) uniform in [0, 1), what is random about each query


def plan_epoch(seed: int, epoch: int, rows: int, columns: int) -> EpochPlan:
    """The same plan on every process and after every restart."""
    generator = np.random.default_rng((seed, epoch))
    return EpochPlan(epoch, generator.permutation(rows), generator.random((rows, columns)))


class Evaluation(NamedTuple):
    """What a training keeps of an evaluation."""

    figures: dict[str, float]  # by name; SELECTION picks checkpoints
    table: str
    picture: np.ndarray | None = None  # (H, W, 3) uint8


class Split(Protocol):
    """A split as the loop sees it."""

    records: Any  # with `clip` (R,) numbers and `clip_uids`
    listed: int  # queries in the file, before any were left out


class Recipe(Protocol):
    """What is particular to a model's training, made as `Recipe(options, processes)`."""

    train: Split
    val: Split
    model: nn.Module
    optimizer: torch.optim.Optimizer
    evaluations: int  # an epoch, spread evenly, the last of them at its end
    columns: int  # of draws in the plan of an epoch
    first_epoch: int  # where a new run begins, counted from 0
    live: bool  # gathering a batch draws random numbers, and so belongs to its step
    descriptions: Mapping[str, Any]  # JSON files of the run folder, by name

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of the step, counted from 0."""

    def batch(self, share: Share, plan: EpochPlan) -> Any:
        """The share's tensors on the device."""

    def losses(self, network: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """Losses of a share by name; `total` is what is minimised.

        Those of a process's shares add up to what one share would give; means of what processes
        give are the batch's.
        """

    def evaluate(self, epoch: int, step: int) -> Evaluation:
        """Score the validation split; called by all processes together."""

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """File name and content of a checkpoint."""


def steps_per_epoch(rows: int, batch_size: int, processes: int) -> int:
    """Batches an epoch; a last one smaller than the number of processes is left out."""
    if rows < processes:
        raise UserError(f"{rows} training queries are too few for {processes} processes")
    whole, rest = divmod(rows, batch_size)
    return whole + (rest >= processes)


def evaluates(step: int, steps: int, total: int, evaluations: int, period: int) -> bool:
    """Whether to evaluate after `step` steps of `total`, at `steps` an epoch.

    `evaluations` an epoch, unless `period` gives the steps between them.
    """
    if period:
        return step % period == 0 or step == total
    number, rest = divmod(step % steps, max(1, steps // evaluations))
    return rest == 0 and number < evaluations
