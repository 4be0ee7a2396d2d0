"""The training loop, one for both models, on any number of processes.

A recipe says what is particular to a model: its losses, learning rate and evaluation. The loop
draws batches, steps, evaluates, keeps checkpoints and saves what is needed to continue. Every
random draw is a function of the seed and the step, so a run that was killed and continued ends
with the same weights as one that never stopped (docs/survival.md).
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from utils.base.errors import LAUNCHED, UserError, in_brief, is_out_of_memory, warn
from utils.training.checkpoints import fit_optimizer, fit_state
from utils.training.guard import Guard, all_finite, first_few, look_at
from utils.training.processes import Processes, Stopped, StopSignals, lost_peer
from utils.training.profiling import profiled
from utils.training.runs import Run
from utils.training.timelines import Example

SHAPES = 64  # of batches: lengths of queries, numbers of parts, the last batch of an epoch
PEER_LOST = 75  # exit code: another process has gone, and says why


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
    skip_nonfinite: int = 0  # steps with a loss or gradient that is not finite to leave out
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
    """Train to the end of the schedule, continuing the run in the folder if there is one; close it.

    A new run begins at `first_epoch`, counted from 0. A signal to stop saves the state and ends the
    program with 128 + its number.
    """
    with StopSignals() as signals:
        training = Training(recipe, schedule, run, processes, signals)
        try:
            training.start(restart, first_epoch)
            training.go_on()
        except Stopped:
            training.leave(signals.received)
        except RuntimeError as error:
            if not lost_peer(error):
                raise
            if training.started:
                # Nothing is sent while weights change: they are those of the last whole step.
                training.save()
            elif processes.main and LAUNCHED not in os.environ:
                print(
                    f"error: lost a process before the state in {run.folder} was read "
                    f"({in_brief(error)}); nothing was changed",
                    file=sys.stderr,
                )
            sys.exit(128 + signals.received if signals.received else PEER_LOST)
        except OSError as error:
            if is_out_of_memory(error):
                raise
            where = error.filename or run.folder
            raise UserError(
                f"{where}: {error.strerror or error}; the last saved state is intact, mend this "
                "and give the same command to continue"
            ) from error
        finally:
            run.close()
    if processes.main:
        best = f"best of {len(run.history)} evaluations, checkpoint {run.kept[-1]}"
        print(f"{best}:\n{training.best_table}")


class Training:
    """A training on its way: what has to be saved, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        schedule: Schedule,
        run: Run,
        processes: Processes,
        signals: StopSignals,
    ):
        self.recipe = recipe
        self.schedule = schedule
        self.run = run
        self.processes = processes
        self.signals = signals
        self.steps = schedule.steps_per_epoch(recipe.rows, processes.size)
        self.total = self.steps * schedule.epochs
        device = processes.device
        self.scaler = torch.amp.GradScaler(device.type, enabled=schedule.amp == "fp16")
        self.guard = Guard(device, schedule.skip_nonfinite, self.scaler)
        self.started = False  # a state was read or there is none: only now may one be written
        self.step = 0
        self.best = -1.0
        self.best_table = ""
        self.to_evaluate = False  # what has been trained so far
        self.told = 0  # steps left out that the user knows of

    def start(self, restart: bool, first_epoch: int) -> None:
        """Take up the state in the run's folder, or save a first one."""
        state = self.run.start(restart)
        if state is None:
            self.step = self.steps * first_epoch
            self.started = True
            self.save()
            return
        file = self.run.state_file
        fit_state(self.recipe.model, state.get("model"), file)
        fit_optimizer(self.recipe.optimizer, state.get("optimizer"), file)
        kinds = {"skipped": int, "to_evaluate": bool, "best": (float, int), "best_table": str}
        odd = [name for name, kind in kinds.items() if not isinstance(state.get(name), kind)]
        if not odd and not state["best_table"].isascii():
            odd.append("best_table")
        if not odd and bool(self.run.kept) != (state["best"] >= 0):
            odd.append("list of kept checkpoints")
        try:
            self.scaler.load_state_dict(state.get("scaler"))
        except (RuntimeError, KeyError, TypeError, AttributeError):
            odd.append("scaler")
        if odd or not 0 <= state["step"] <= self.total:
            raise UserError(
                f"{file}: its {odd[0] if odd else 'step'} is not one of this run; copy the file "
                "again, or begin anew with --restart"
            )
        self.guard.skipped = self.told = state["skipped"]
        self.step, self.to_evaluate = state["step"], state["to_evaluate"]
        self.best, self.best_table = state["best"], state["best_table"]
        self.started = True
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
                "skipped": self.guard.skipped,
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
            network = DistributedDataParallel(network)
        if self.to_evaluate:
            self.evaluate()

        bar = tqdm(total=self.total, initial=self.step, unit="step", disable=not processes.main)
        looking = profiled(schedule.profile if processes.main else 0, run.folder / "profile")
        with bar, looking as look:
            while self.step < self.total:
                plan = plan_epoch(schedule.seed, self.step // self.steps, recipe.rows)
                bar.set_description(f"training, epoch {plan.epoch + 1}/{schedule.epochs}")
                for step in range(self.step, (plan.epoch + 1) * self.steps):
                    for group in recipe.optimizer.param_groups:
                        group["lr"] = recipe.learning_rate(step)
                    network.train()
                    losses = self.losses(network, self.rows(plan, step), plan, step)
                    self.guard.scale(losses["total"]).backward()
                    self.scaler.unscale_(recipe.optimizer)
                    norm = nn.utils.clip_grad_norm_(recipe.model.parameters(), schedule.clip_norm)
                    total = losses["total"]
                    self.guard.step(recipe.optimizer, total, norm, step, processes.share_largest)
                    recipe.optimizer.zero_grad(set_to_none=True)
                    self.step = step + 1
                    self.to_evaluate = schedule.evaluates(self.step, self.steps, self.total)
                    bar.update()
                    look()

                    logs = self.step % schedule.log_every == 0
                    due = run.state_due(schedule.save_every_minutes)
                    stop, due = processes.largest(self.signals.received, due)
                    if processes.device.type == "cpu" or logs or self.to_evaluate or due or stop:
                        self.refuse_nonfinite()
                    if logs:
                        scalars = {f"train/{name}": value.item() for name, value in losses.items()}
                        best = f"{self.best:.2f}"
                        bar.set_postfix(loss=f"{scalars['train/total']:.3f}", best=best)
                        rate = recipe.learning_rate(self.step)
                        run.log(self.step, {**scalars, "train/norm": norm, "train/lr": rate})
                        self.tell_skipped()
                    if stop:
                        bar.close()
                        self.leave(stop)
                    if self.to_evaluate:
                        self.evaluate()
                    elif due:
                        self.save()

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

    def tell_skipped(self) -> None:
        """Warn of steps left out since the last time."""
        skipped = self.guard.skipped if self.guard.tolerated else 0
        if skipped > self.told and self.processes.main:
            warn(
                f"{skipped} of {self.guard.tolerated} tolerated steps had a loss or gradient that "
                f"is not finite, the last within {self.schedule.log_every} steps before {self.step}"
            )
        self.told = skipped

    def refuse_nonfinite(self) -> None:
        """End the program if more steps went wrong than are tolerated, with all that is known."""
        step = self.guard.first_wrong(self.step - 1)
        if step is None:
            return
        # The weights are those from before that step: it can be repeated.
        self.step, self.to_evaluate = step, False
        recipe, processes = self.recipe, self.processes
        plan = plan_epoch(self.schedule.seed, step // self.steps, recipe.rows)
        wrong = look_at(
            recipe.model,
            lambda some: self.losses(recipe.model, some, plan, step),
            self.rows(plan, step),
            processes,
        )
        seen = processes.gather((recipe.clips(np.array(wrong.rows, dtype=int)), wrong.parameters))
        self.save()
        if not processes.main:
            # Whoever ends first has the others stopped: the main process must have spoken by then.
            processes.largest(0)  # fails when it has gone (`fit`)
        raise UserError(
            f"training went wrong at step {step}, learning rate {recipe.learning_rate(step):.6g}: "
            + ", ".join(f"{name} {value:.6g}" for name, value in wrong.losses.items())
            + f"; clips that go wrong by themselves: {first_few(c for s in seen for c in s[0])}"
            + f"; gradients not finite: {first_few(p for s in seen for p in s[1])}"
            + f"; the state before it is saved in {self.run.folder}: go on with --skip_nonfinite "
            "N, or begin anew (--restart) with a lower learning rate or without mixed precision"
        )
