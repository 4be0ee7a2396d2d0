"""The training loop, one for all models, on any number of processes.

A recipe says what is particular to a model: its losses, learning rate and evaluation. The loop
draws batches, steps, evaluates, keeps checkpoints and saves what is needed to continue. Every
random draw is a function of the seed and the step, so a run that was killed and continued ends
with the same weights as one that never stopped (docs/survival.md).
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.base.errors import UserError, is_out_of_memory, named
from utils.training.checkpoints import fit_optimizer, fit_state
from utils.training.evaluations import SELECTION
from utils.training.guard import SMALLEST_SCALE, all_finite
from utils.training.options import TrainingOptions
from utils.training.processes import (
    LostPeer,
    Processes,
    Stopped,
    StopSignals,
    is_lost_peer,
    start_processes,
)
from utils.training.profiling import profiled
from utils.training.recipes import Recipe, evaluates
from utils.training.runs import Run
from utils.training.slurm import submit
from utils.training.steps import Stepper

SHAPES = 64  # of batches: lengths of queries, numbers of parts, the last batch of an epoch


def train(
    options: TrainingOptions, recipe_of: Callable[[TrainingOptions, Processes], Recipe]
) -> None:
    """Train, or continue training, the run that the options name; on SLURM if they say so."""
    if options.slurm:
        submit(partial(train, recipe_of=recipe_of), options, options.run_folder / "slurm")
        return
    with start_processes() as processes:
        recipe = recipe_of(options, processes)
        if processes.main:
            parameters = sum(p.numel() for p in recipe.model.parameters() if p.requires_grad)
            print(
                f"training on {len(recipe.train.records)} of {recipe.train.listed} queries, "
                f"validating on {len(recipe.val.records)} of {recipe.val.listed}; "
                f"{parameters:,} parameters; run folder {options.run_folder}"
            )
        fit(recipe, options, processes)


def fit(recipe: Recipe, options: TrainingOptions, processes: Processes) -> None:
    """Train to the last epoch, continuing the run in the folder if there is one.

    A signal to stop saves the state and ends the program with 128 + its number.
    """
    run = Run(options, processes, recipe.descriptions)
    with _named_fault(run.folder), run, StopSignals() as signals:
        state = _begin(run, options.restart, signals)
        # Only now is there anything that could be saved.
        training = Training(recipe, options, run, processes, signals, state)
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
            kept = f"{run.folder} is saved at step {training.step} of {training.total}"
            raise LostPeer(kept if processes.main else "") from error
    if processes.main:
        best = f"best of {len(run.history)} evaluations, checkpoint {run.kept[-1]}"
        print(f"{best}:\n{training.best_table}")


def _begin(run: Run, restart: bool, signals: StopSignals) -> dict | None:
    """The state to continue from; no file is changed before it has been read."""
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
    """Within, a full or missing disk is a UserError; out of memory is reported by `run_program`."""
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
        options: TrainingOptions,
        run: Run,
        processes: Processes,
        signals: StopSignals,
        state: dict | None,
    ):
        """Takes up the `state` that the run's folder holds, or begins with the first epoch."""
        self.recipe = recipe
        self.options = options
        self.run = run
        self.processes = processes
        self.signals = signals
        self.stepper = Stepper(recipe, options, processes)
        self.steps, self.total = self.stepper.steps, self.stepper.total
        self.step = self.steps * recipe.first_epoch
        self.best = -1.0
        self.best_table = ""
        self.to_evaluate = False  # what has been trained so far
        if state is not None:
            self.take_up(state)
        self.stepper.cut_batches()

    def take_up(self, state: dict) -> None:
        """Go on where a state was saved."""
        file = self.run.state_file
        fit_state(self.recipe.model, state["model"], file)
        fit_optimizer(self.recipe.optimizer, state["optimizer"], file)
        if state["scaler"]:  # empty in older runs without fp16
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.pieces = state.get("pieces", 1)  # older runs had one
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
                "scaler": self.stepper.scaler.state_dict(),
                "pieces": self.stepper.pieces,
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
        """Step, evaluate and save until the last epoch ends, or a signal comes."""
        options, run, processes = self.options, self.run, self.processes
        stepper = self.stepper
        network = stepper.network()
        if self.to_evaluate:
            self.evaluate()
        bar = tqdm(total=self.total, initial=self.step, unit="step", disable=not processes.main)
        profiler = profiled(options.profile if processes.main else 0, run.folder / "profile")
        with bar, profiler as note_step:
            while self.step < self.total:
                epoch = self.step // self.steps + 1
                bar.set_description(f"training, epoch {epoch}/{options.epochs}")
                for step, batch in stepper.batches(self.step):
                    processes.tell(f"step {step}")
                    losses, norm = stepper.take(network, batch, step)
                    self.step = step + 1
                    self.to_evaluate = self.is_evaluated(self.step)
                    bar.update()
                    note_step()

                    logged = self.step % options.tb_log_freq == 0
                    due = run.state_due(options.save_every_minutes)
                    # Reading waits for a GPU, so it is done where something is read anyway.
                    on_cpu = processes.device.type == "cpu"
                    reads = on_cpu or logged or due or self.to_evaluate or self.signals.received
                    wrong = stepper.first_wrong.step() if reads else -1
                    stop, due, wrong = processes.largest(self.signals.received, due, wrong)
                    if wrong >= 0:
                        self.end_at(wrong)
                    if logged:
                        total = losses["total"].item()
                        bar.set_postfix(loss=f"{total:.3f}", best=f"{self.best:.2f}")
                        self.log(losses, norm)
                        self.refuse_overflow()
                    if stop:
                        bar.close()
                        self.leave(stop)
                    if self.to_evaluate:
                        self.evaluate()
                    elif due:
                        self.save()

    def is_evaluated(self, step: int) -> bool:
        """Whether an evaluation follows so many steps."""
        period = self.options.eval_period
        return evaluates(step, self.steps, self.total, self.recipe.evaluations, period)

    def log(self, losses: dict[str, torch.Tensor], norm: torch.Tensor) -> None:
        """Losses, gradient norm and learning rate of the last step."""
        scalars = {f"train/{name}": value.item() for name, value in losses.items()}
        rate = self.recipe.learning_rate(self.step, self.steps)
        self.run.log(self.step, {**scalars, "train/norm": norm, "train/lr": rate})

    def evaluate(self) -> None:
        """Score the weights as they are, keep them if they are the best, and save the state."""
        recipe, run, step = self.recipe, self.run, self.step
        epoch = (step - 1) // self.steps
        self.refuse_weights()
        self.processes.tell(f"evaluating after step {step}")
        with self.signals.at_once():
            figures, table, picture = recipe.evaluate(epoch, step)
        run.record({"epoch": epoch, "step": step, **figures}, table)
        run.log(step, {f"val/{name}": value for name, value in figures.items()})
        run.show("val/windows (green: true)", picture, step)
        if figures[SELECTION] >= self.best:
            self.best, self.best_table = figures[SELECTION], table
            run.keep_checkpoint(*recipe.checkpoint(epoch, step))
        self.to_evaluate = False
        self.save()

    def refuse_overflow(self) -> None:
        """In fp16 steps are left out while the scale falls; below 1 that would go on for ever."""
        if self.options.amp == "fp16" and self.stepper.scaler.get_scale() < SMALLEST_SCALE:
            self.save()
            raise UserError(
                f"gradients overflow in fp16 even unscaled, at step {self.step}; begin anew "
                "(--restart) with --amp bf16 or off"
            )

    def end_at(self, wrong: int) -> None:
        """End the program: the loss or the gradients of step `wrong` were not finite."""
        self.save()
        records = self.recipe.train.records
        rows = self.processes.shard(self.stepper.batch_rows(wrong))
        clips = [records.clip_uids[clip] for clip in records.clip[rows]]
        reports = self.processes.gather((self.stepper.first_wrong.losses(), clips))
        losses, clips = next((r for r in reports if not np.isfinite(r[0]["total"])), reports[0])
        rate = self.recipe.learning_rate(wrong, self.steps)
        values = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
        raise UserError(
            f"training went wrong at step {wrong}, learning rate {rate:.6g}: {values}; clips of "
            f"its batch: {named(dict.fromkeys(clips))}; its gradients were not used, and "
            f"{self.run.folder} is saved at step {self.step}: the same command goes on from there; "
            "or begin anew (--restart) with a lower learning rate or without mixed precision"
        )
