"""The training loop, one for both models, on any number of processes.

A recipe says what is particular to a model: its losses, learning rate and evaluation. The loop
draws batches, steps, evaluates, keeps checkpoints and saves what is needed to continue. Every
random draw is a function of the seed and the step, so a run that was killed and continued ends
with the same weights as one that never stopped.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from utils.distributed import Processes
from utils.errors import UserError
from utils.runs import Run


class EpochPlan(NamedTuple):
    """The order and the draws of one epoch: functions of the seed and the epoch alone."""

    epoch: int
    order: np.ndarray  # (R,) permutation of row numbers
    draws: np.ndarray  # (R, 2) uniform in [0, 1), for the narration jitter


def plan_epoch(seed: int, epoch: int, rows: int) -> EpochPlan:
    """The same plan on every process and after every restart."""
    generator = np.random.default_rng((seed, epoch))
    return EpochPlan(epoch, generator.permutation(rows), generator.random((rows, 2)))


class Evaluation(NamedTuple):
    """What an evaluation found: the figure that picks checkpoints, all figures, a table."""

    selection: float  # R@1 IoU=0.3
    scores: dict  # JSON-able
    table: str


class Recipe(Protocol):
    """What is particular to a model's training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rows: int  # training queries

    def learning_rate(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""

    def losses(
        self, network: nn.Module, rows: np.ndarray, plan: EpochPlan, step: int
    ) -> dict[str, torch.Tensor]:
        """Losses by name over this process's share of `rows`; `total` is what is minimised."""

    def evaluate(self, epoch: int, step: int) -> Evaluation:
        """Score the validation split; called by all processes together."""

    def checkpoint(self, epoch: int, step: int) -> tuple[str, dict]:
        """File name and content of a checkpoint."""


@dataclass(frozen=True)
class Schedule:
    """How long and how a model is trained; the batch is over all processes together."""

    epochs: int
    batch_size: int
    clip_norm: float
    seed: int
    evaluations: int  # evaluations an epoch, spread evenly, besides the one at its end
    eval_period: int = 0  # steps between evaluations instead, if positive
    amp: str = "off"
    compile: bool = False
    log_every: int = 10
    save_every_minutes: float = 10.0

    def steps_per_epoch(self, rows: int, processes: int) -> int:
        """Batches an epoch; a last one smaller than the number of processes is left out."""
        if rows < processes:
            raise UserError(f"{rows} training queries are too few for {processes} processes")
        whole, rest = divmod(rows, self.batch_size)
        return whole + (rest >= processes)

    def evaluates(self, step: int, steps: int, total: int) -> bool:
        """Whether to evaluate after `step` steps of `total`, at `steps` an epoch."""
        if self.eval_period:
            return step % self.eval_period == 0 or step == total
        done = step % steps
        return done == 0 or done % max(1, steps // self.evaluations) == 0


def fit(
    recipe: Recipe,
    schedule: Schedule,
    run: Run,
    processes: Processes,
    restart: bool,
    first_epoch: int = 0,
) -> None:
    """Train to the end of the schedule, continuing the run in the folder if there is one.

    A new run begins at `first_epoch`, counted from 0.
    """
    device = processes.device
    steps = schedule.steps_per_epoch(recipe.rows, processes.size)
    total = steps * schedule.epochs
    dtype = torch.float16 if schedule.amp == "fp16" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.amp == "fp16")
    step, best, best_table = steps * first_epoch, -1.0, ""

    state = run.start(restart)
    if state is not None:
        recipe.model.load_state_dict(state["model"])
        recipe.optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        step, best, best_table = state["step"], state["best"], state["best_table"]
        if processes.main:
            print(f"continuing {run.folder} at step {step} of {total}")

    def save() -> None:
        run.save_state(
            {
                "model": recipe.model.state_dict(),
                "optimizer": recipe.optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "step": step,
                "best": best,
                "best_table": best_table,
            }
        )

    network: nn.Module = recipe.model
    if schedule.compile:
        network = torch.compile(network)
    if processes.size > 1:
        network = DistributedDataParallel(network)

    bar = tqdm(total=total, initial=step, unit="step", disable=not processes.main)
    while step < total:
        epoch, first = divmod(step, steps)
        plan = plan_epoch(schedule.seed, epoch, recipe.rows)
        bar.set_description(f"training, epoch {epoch + 1}/{schedule.epochs}")
        for batch in range(first, steps):
            rows = plan.order[batch * schedule.batch_size :][: schedule.batch_size]
            for group in recipe.optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step)
            torch.manual_seed((schedule.seed * total + step) * processes.size + processes.rank)
            network.train()
            with torch.autocast(device.type, dtype, enabled=schedule.amp != "off"):
                losses = recipe.losses(network, rows, plan, step)
            scaler.scale(losses["total"]).backward()
            scaler.unscale_(recipe.optimizer)
            norm = nn.utils.clip_grad_norm_(recipe.model.parameters(), schedule.clip_norm)
            scaler.step(recipe.optimizer)
            scaler.update()
            recipe.optimizer.zero_grad(set_to_none=True)
            step += 1
            bar.update()
            if step % schedule.log_every == 0:
                scalars = {f"train/{name}": value.item() for name, value in losses.items()}
                _refuse_nonfinite(scalars, step)
                bar.set_postfix(loss=f"{scalars['train/total']:.3f}", best=f"{best:.2f}")
                run.log(
                    step, {**scalars, "train/norm": norm, "train/lr": recipe.learning_rate(step)}
                )
            if schedule.evaluates(step, steps, total):
                evaluation = recipe.evaluate(epoch, step)
                run.record({"epoch": epoch, "step": step, **evaluation.scores}, evaluation.table)
                run.log(step, {f"val/{k}": v for k, v in evaluation.scores.items()})
                if evaluation.selection >= best:
                    best, best_table = evaluation.selection, evaluation.table
                    run.keep_checkpoint(*recipe.checkpoint(epoch, step))
                save()
            elif run.state_due(schedule.save_every_minutes):
                save()
    bar.close()
    if processes.main:
        print(f"best of {len(run.history)} evaluations, checkpoint {run.kept[-1]}:\n{best_table}")


def _refuse_nonfinite(scalars: dict[str, float], step: int) -> None:
    if not np.isfinite(list(scalars.values())).all():
        wrong = ", ".join(f"{name} = {value}" for name, value in scalars.items())
        raise UserError(
            f"training went wrong at step {step}: {wrong}; the last saved state is intact, "
            "continue with a lower learning rate (--restart) or without mixed precision"
        )
