"""The training loop, one for both models, on any number of processes.

A recipe says what is particular to a model: its losses, learning rate and evaluation. The loop
draws batches, steps, evaluates, keeps checkpoints and saves what is needed to continue. Every
random draw is a function of the seed and the step, so a run that was killed and continued ends
with the same weights as one that never stopped (docs/survival.md).
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from utils.base.errors import UserError, is_out_of_memory
from utils.training.checkpoints import fit_optimizer, fit_state
from utils.training.guard import SMALLEST_SCALE, FirstWrong, all_finite, make_scaler
from utils.training.processes import LostPeer, Processes, Stopped, StopSignals, is_lost_peer
from utils.training.profiling import profiled
from utils.training.runs import Run
from utils.training.timelines import Example

NAMED = 5  # clips in a message
SHAPES = 64  # of batches: lengths of queries, numbers of parts, the last batch of an epoch


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
    examples: Sequence[Example] = ()  # a few queries, for a picture


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

    def clips(self, rows: np.ndarray) -> list[str]:
        """The clips of training queries."""


@dataclass(frozen=True)
class Schedule:
    """How long and how a model is trained; the batch is over all processes together."""

    epochs: int
    batch_size: int
    clip_norm: float
    seed: int
    evaluations: int  # evaluations an epoch, spread evenly, the last of them at its end
    eval_period: int = 0  # steps between evaluations instead, if positive
    amp: str = "off"
    compile: bool = False
    log_every: int = 10
    save_every_minutes: float = 10.0
    profile: int = 0  # steps to profile

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
        number, rest = divmod(step % steps, max(1, steps // self.evaluations))
        return rest == 0 and number < self.evaluations


def fit(
    recipe: Recipe,
    schedule: Schedule,
    run: Run,
    processes: Processes,
    restart: bool,
    first_epoch: int = 0,
) -> None:
    """Train to the end of the schedule, continuing the run in the folder if there is one.

    A new run begins at `first_epoch`, counted from 0. A signal to stop saves the state and ends the
    program with 128 + its number.
    """
    with _named_fault(run.folder), run, StopSignals() as signals:
        state = _begin(run, restart, signals)
        # Only now is there anything that could be saved.
        training = Training(recipe, schedule, run, processes, signals, state, first_epoch)
        try:
            if state is None:
                training.save()
            training.go_on()
        except Stopped:
            training.leave(signals.received)
        except RuntimeError as error:
            if not is_lost_peer(error):
                raise
            # Nothing is sent while weights change: they are those of the last whole step.
            training.save()
            if signals.received:
                sys.exit(128 + signals.received)
            where = f"{run.folder} is saved at step {training.step} of {training.total}"
            raise LostPeer(where if processes.main else "") from error
    if processes.main:
        best = f"best of {len(run.history)} evaluations, checkpoint {run.kept[-1]}"
        print(f"{best}:\n{training.best_table}")


def _begin(run: Run, restart: bool, signals: StopSignals) -> dict | None:
    """The state to continue from; whatever comes between, no file is changed before it is read."""
    try:
        with signals.at_once():
            return run.start(restart)
    except Stopped:
        if run.processes.main:
            name = signal.Signals(signals.received).name
            print(f"stopped by {name} before {run.folder} was continued", file=sys.stderr)
        sys.exit(128 + signals.received)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise LostPeer(f"no file in {run.folder} was changed") from error


@contextmanager
def _named_fault(folder: Path) -> Iterator[None]:
    """Within, a disk that is full or away is a `UserError`; used up memory is told elsewhere."""
    try:
        yield
    except OSError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}; the last saved state is "
            "intact, mend this and give the same command to continue"
        ) from error


class Training:
    """A training on its way: what has to be saved, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        schedule: Schedule,
        run: Run,
        processes: Processes,
        signals: StopSignals,
        state: dict | None,
        first_epoch: int,
    ):
        """Takes up the `state` that the run's folder holds, or begins at `first_epoch`."""
        self.recipe = recipe
        self.schedule = schedule
        self.run = run
        self.processes = processes
        self.signals = signals
        self.steps = schedule.steps_per_epoch(recipe.rows, processes.size)
        self.total = self.steps * schedule.epochs
        device = processes.device
        self.fp16 = schedule.amp == "fp16"
        self.scaler = make_scaler(device, schedule.amp)
        self.first_wrong = FirstWrong(device)
        self.step = self.steps * first_epoch
        self.best = -1.0
        self.best_table = ""
        self.to_evaluate = False  # what has been trained so far
        if state is not None:
            self.take_up(state)

    def take_up(self, state: dict) -> None:
        """Go on where a state was saved."""
        file = self.run.state_file
        fit_state(self.recipe.model, state["model"], file)
        fit_optimizer(self.recipe.optimizer, state["optimizer"], file)
        if state["scaler"]:  # empty in older runs without fp16
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.to_evaluate = state["step"], state["to_evaluate"]
        self.best, self.best_table = state["best"], state["best_table"]
        if self.processes.main:
            print(f"continuing {self.run.folder} at step {self.step} of {self.total}")

    def refuse_weights(self) -> None:
        """A finite gradient may still throw weights out of what a number can hold."""
        if not all_finite(self.recipe.model):
            raise UserError(
                f"weights are not finite after step {self.step}; the state saved before is intact: "
                "begin anew with a lower learning rate (--restart)"
            )

    def save(self) -> None:
        """Save all that is needed to continue, if it is sound."""
        self.refuse_weights()
        self.run.save_state(
            {
                "model": self.recipe.model.state_dict(),
                "optimizer": self.recipe.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "step": self.step,
                "to_evaluate": self.to_evaluate,
                "best": self.best,
                "best_table": self.best_table,
            }
        )

    def leave(self, number: int) -> None:
        """Save, say how to continue, and end the program."""
        self.save()
        if self.processes.main:
            print(
                f"stopped by {signal.Signals(number).name} after step {self.step} of {self.total}, "
                f"state saved in {self.run.folder}: the same command continues",
                file=sys.stderr,
                flush=True,
            )
        sys.exit(128 + number)

    def go_on(self) -> None:
        """Step, evaluate and save until the schedule ends, or a signal comes."""
        schedule, recipe, run, processes = self.schedule, self.recipe, self.run, self.processes
        network: nn.Module = recipe.model
        if schedule.compile:
            # Batches come in few shapes, so each can have code of its own.
            torch._dynamo.config.recompile_limit = SHAPES
            network = torch.compile(network, dynamic=False)
        if processes.size > 1:
            processes.expect_soon()
            network = DistributedDataParallel(network, process_group=processes.group)
        if self.to_evaluate:
            self.evaluate()

        bar = tqdm(total=self.total, initial=self.step, unit="step", disable=not processes.main)
        looking = profiled(schedule.profile if processes.main else 0, run.folder / "profile")
        with bar, looking as look:
            while self.step < self.total:
                plan = plan_epoch(schedule.seed, self.step // self.steps, recipe.rows)
                bar.set_description(f"training, epoch {plan.epoch + 1}/{schedule.epochs}")
                for step in range(self.step, (plan.epoch + 1) * self.steps):
                    processes.tell(f"step {step}")
                    losses, norm = self.train_step(network, plan, step)
                    self.step = step + 1
                    self.to_evaluate = schedule.evaluates(self.step, self.steps, self.total)
                    bar.update()
                    look()

                    logs = self.step % schedule.log_every == 0
                    due = run.state_due(schedule.save_every_minutes)
                    stop, due = processes.largest(self.signals.received, due)
                    if processes.device.type == "cpu" or logs or self.to_evaluate or due or stop:
                        self.stop_if_wrong()
                    if logs:
                        scalars = {f"train/{name}": value.item() for name, value in losses.items()}
                        best = f"{self.best:.2f}"
                        bar.set_postfix(loss=f"{scalars['train/total']:.3f}", best=best)
                        rate = recipe.learning_rate(self.step)
                        run.log(self.step, {**scalars, "train/norm": norm, "train/lr": rate})
                    if stop:
                        bar.close()
                        self.leave(stop)
                    if self.to_evaluate:
                        self.evaluate()
                    elif due:
                        self.save()

    def train_step(
        self, network: nn.Module, plan: EpochPlan, step: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Losses of a batch and norm of their gradients; if they are finite, the weights change."""
        optimizer = self.recipe.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(step)
        network.train()
        losses = self.losses(network, self.rows(plan, step), plan, step)
        self.scaler.scale(losses["total"]).backward()
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.recipe.model.parameters(), self.schedule.clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update(None if self.fp16 else 1.0)
        optimizer.zero_grad(set_to_none=True)
        # In fp16 gradients overflow now and then, until the scaler has lowered its scale.
        self.first_wrong.note(step, losses, losses["total"] if self.fp16 else norm)
        return losses, norm

    def rows(self, plan: EpochPlan, step: int) -> np.ndarray:
        """Row numbers of a step's batch."""
        size = self.schedule.batch_size
        return plan.order[step % self.steps * size :][:size]

    def losses(
        self, network: nn.Module, rows: np.ndarray, plan: EpochPlan, step: int
    ) -> dict[str, torch.Tensor]:
        """This process's losses, with the step's own randomness."""
        seed = (self.schedule.seed * self.total + step) * self.processes.size + self.processes.rank
        torch.manual_seed(seed)
        dtype = torch.float16 if self.schedule.amp == "fp16" else torch.bfloat16
        mixed = self.schedule.amp != "off"
        with torch.autocast(self.processes.device.type, dtype, enabled=mixed):
            return self.recipe.losses(network, rows, plan, step)

    def evaluate(self) -> None:
        """Score the weights as they are, keep them if they are the best, and save the state."""
        recipe, run, step = self.recipe, self.run, self.step
        epoch = (step - 1) // self.steps
        self.refuse_weights()
        self.processes.tell(f"evaluating after step {step}")
        with self.signals.at_once():
            found = recipe.evaluate(epoch, step)
        run.record({"epoch": epoch, "step": step, **found.scores}, found.table)
        run.log(step, {f"val/{k}": v for k, v in found.scores.items()})
        run.show("val/windows (green: true)", found.examples, step)
        if found.selection >= self.best:
            self.best, self.best_table = found.selection, found.table
            run.keep_checkpoint(*recipe.checkpoint(epoch, step))
        self.to_evaluate = False
        self.save()

    def stop_if_wrong(self) -> None:
        """End the program if the loss or the gradients of a step were not finite."""
        if self.fp16 and self.scaler.get_scale() < SMALLEST_SCALE:
            self.save()
            raise UserError(
                f"gradients overflow in fp16 even unscaled, at step {self.step}; begin anew "
                "(--restart) with --amp bf16 or off"
            )
        (wrong,) = self.processes.largest(self.first_wrong.step())
        if wrong < 0:
            return
        self.save()
        plan = plan_epoch(self.schedule.seed, wrong // self.steps, self.recipe.rows)
        clips = self.recipe.clips(self.processes.shard(self.rows(plan, wrong)))
        seen = self.processes.gather((self.first_wrong.losses(), clips))
        losses, clips = next((s for s in seen if not np.isfinite(s[0]["total"])), seen[0])
        clips = list(dict.fromkeys(clips))
        named = ", ".join(clips[:NAMED])
        named += f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
        raise UserError(
            f"training went wrong at step {wrong}, learning rate "
            f"{self.recipe.learning_rate(wrong):.6g}: "
            + ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
            + f"; clips of its batch: {named}; its gradients were not used, and {self.run.folder} "
            f"is saved at step {self.step}: the same command goes on from there; or begin anew "
            "(--restart) with a lower learning rate or without mixed precision"
        )
