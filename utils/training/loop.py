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
    training: Training | None = None
    with _disk_faults(run.folder), run, StopSignals() as signals:
        try:
            with signals.interrupting():
                state = run.start(options.restart)
            training = Training(recipe, options, run, processes, signals, state)
            training.stepper.cut_batches()
            if state is None:
                training.save()
            training.train()
        except (Stopped, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_lost_peer(error):
                raise
            when = f"before {run.folder} was continued"
            saved = f"no file in {run.folder} was changed"
            if training is not None and processes.device_finishes():
                # Processes don't communicate while weights change: the last step is complete.
                training.save()
                step = f"step {training.step} of {training.total}"
                when = f"after {step}, state saved in {run.folder}: the same command continues"
                saved = f"{run.folder} is saved at {step}" if processes.main else ""
            elif training is not None:
                saved = f"{run.folder} is as it was saved last"
                when = f"in step {training.step}, {saved}: the same command continues"
            if not signals.received:
                raise LostPeer(saved) from error
            if processes.main:
                name = signal.Signals(signals.received).name
                print(f"stopped by {name} {when}", file=sys.stderr, flush=True)
            sys.exit(128 + signals.received)
    if processes.main:
        title = f"best of {len(run.history)} evaluations, checkpoint {run.checkpoints[-1]}"
        print(f"{title}:\n{training.best_table}")


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into a UserError; `run_program` reports a lack of memory."""
    try:
        yield
    except OSError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}; the last saved state is "
            "intact; correct this and give the same command to continue"
        ) from error


class Training:
    """A training in progress: its state and its loop."""

    def __init__(
        self,
        recipe: Recipe,
        options: TrainingOptions,
        run: Run,
        processes: Processes,
        signals: StopSignals,
        state: dict | None,
    ):
        """`state` is what the run folder holds, None to begin with the first epoch."""
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
        self.to_evaluate = False  # the current weights
        if state is not None:
            self.restore(state)

    def restore(self, state: dict) -> None:
        file = self.run.state_file
        fit_state(self.recipe.model, state["model"], file)
        fit_optimizer(self.recipe.optimizer, state["optimizer"], file)
        if state["scaler"]:  # empty in older runs without fp16
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.pieces = state.get("pieces", 1)  # older runs had one
        self.step, self.to_evaluate = state["step"], state["to_evaluate"]
        self.best, self.best_table = state["best"], state["best_table"]
        if self.processes.main:
            verb = "continuing" if self.step < self.total else "complete:"
            print(f"{verb} {self.run.folder} at step {self.step} of {self.total}")

    def check_weights(self) -> None:
        """Raise UserError if a weight is not finite: a finite gradient can make it overflow."""
        if not all_finite(self.recipe.model):
            raise UserError(
                f"weights are not finite after step {self.step}; the state saved before is intact: "
                "start over with a lower learning rate (--restart)"
            )

    def save(self) -> None:
        """Save the state to continue from; raises UserError if a weight is not finite."""
        self.check_weights()
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

    def train(self) -> None:
        """Step, evaluate and save until the last epoch ends; raises Stopped after a signal."""
        options, run, processes = self.options, self.run, self.processes
        recipe, stepper = self.recipe, self.stepper
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
                    self.to_evaluate = evaluates(
                        self.step, self.steps, self.total, recipe.evaluations, options.eval_period
                    )
                    bar.update()
                    note_step()

                    logged = self.step % options.tb_log_freq == 0
                    save_due = run.state_due(options.save_every_minutes)
                    signal_number = self.signals.received
                    # Reading waits for the GPU: only where something else waits for it, too.
                    on_cpu = processes.device.type == "cpu"
                    waits = on_cpu or logged or save_due or self.to_evaluate or signal_number
                    failed_step = stepper.first_nonfinite.step() if waits else -1
                    signal_number, save_due, failed_step = processes.largest(
                        signal_number, save_due, failed_step
                    )
                    if failed_step >= 0:
                        self.fail(failed_step)
                    if logged:
                        total = losses["total"].item()
                        bar.set_postfix(loss=f"{total:.3f}", best=f"{self.best:.2f}")
                        self.log(losses, norm)
                        self.check_scale()
                    if signal_number:  # perhaps of another process
                        self.signals.received = signal_number
                        raise Stopped
                    if self.to_evaluate:
                        self.evaluate()
                    elif save_due:
                        self.save()

    def log(self, losses: dict[str, torch.Tensor], norm: torch.Tensor) -> None:
        """Log losses, gradient norm and learning rate of the last step."""
        scalars = {f"train/{name}": value.item() for name, value in losses.items()}
        rate = self.recipe.learning_rate(self.step, self.steps)
        self.run.log(self.step, {**scalars, "train/norm": norm, "train/lr": rate})

    def evaluate(self) -> None:
        """Score the weights, keep a checkpoint if they are the best, and save the state."""
        recipe, run, step = self.recipe, self.run, self.step
        epoch = (step - 1) // self.steps
        self.check_weights()
        self.processes.tell(f"evaluating after step {step}")
        with self.signals.interrupting():
            figures, table, picture = recipe.evaluate(epoch, step)
        run.record({"epoch": epoch, "step": step, **figures}, table)
        run.log(step, {f"val/{name}": value for name, value in figures.items()})
        run.show("val/windows (green: true)", picture, step)
        if figures[SELECTION] >= self.best:
            self.best, self.best_table = figures[SELECTION], table
            run.keep_checkpoint(*recipe.checkpoint(epoch, step))
        self.to_evaluate = False
        self.save()

    def check_scale(self) -> None:
        """Raise UserError if fp16 gradients overflow at any scale: no step would be taken."""
        if self.options.amp == "fp16" and self.stepper.scaler.get_scale() < SMALLEST_SCALE:
            self.save()
            raise UserError(
                f"gradients overflow in fp16 even unscaled, at step {self.step}; start over "
                "(--restart) with --amp bf16 or off"
            )

    def fail(self, step: int) -> None:
        """Save the state and raise UserError: loss or gradients of `step` were not finite."""
        self.save()
        records = self.recipe.train.records
        rows = self.processes.shard(self.stepper.batch_rows(step))
        clips = [records.clip_uids[clip] for clip in records.clip[rows]]
        reports = self.processes.gather((self.stepper.first_nonfinite.losses(), clips))
        losses, clips = next((r for r in reports if not np.isfinite(r[0]["total"])), reports[0])
        rate = self.recipe.learning_rate(step, self.steps)
        values = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
        raise UserError(
            f"training failed at step {step}, learning rate {rate:.6g}: {values}; clips of "
            f"its batch: {named(dict.fromkeys(clips))}; its gradients were not used, and "
            f"{self.run.folder} is saved at step {self.step}: the same command continues from "
            "there; or start over (--restart) with a lower learning rate or without mixed precision"
        )
