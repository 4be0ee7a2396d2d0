"""A program that trains a linear map with the shared loop; the tests stop and continue it."""

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[3])

import torch
from torch import nn

from utils.base.errors import UserError, run_program
from utils.base.options import option, parse_options
from utils.training import processes as joining
from utils.training.loop import Evaluation, Schedule, fit
from utils.training.processes import restarted, start_processes
from utils.training.runs import Run

ROWS = 64
INPUTS = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS @ torch.randn(5, 3, generator=torch.Generator().manual_seed(2))


@dataclass
class Options:
    folder: str = option(explanation="run folder")
    spoil: int = option(-1, "row with a value of NaN")
    huge: int = option(-1, "step with a loss whose gradients overflow")
    amp: str = option("off", "mixed precision")
    fused: bool = option(False, "the optimizer's other implementation")
    rate: float = option(0.1, "learning rate")
    kill_at: int = option(0, "kill this process after so many steps")
    rank: int = option(-1, "kill only this one")
    signal: int = option(9, "in this way")
    hoard_at: int = option(-1, "take all memory after so many steps")
    fate: str = option("none", "what befalls `rank` at the start: killed, error or late")
    patience: float = option(0.0, "seconds that processes wait for each other")
    slow: float = option(0.0, "seconds a step")
    restart: bool = option(False, "begin anew")
    last_words: float = option(0.0, "seconds that the main process takes to end")


class Recipe:
    def __init__(self, options, processes):
        torch.manual_seed(0)
        self.options = options
        self.processes = processes
        self.rows = ROWS
        self.model = nn.Linear(5, 3)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=options.fused)

    def learning_rate(self, step):
        return self.options.rate

    def losses(self, network, rows, plan, step):
        me = self.options.rank in (-1, self.processes.rank)
        if step == self.options.kill_at > 0 and me and not restarted():
            os.kill(os.getpid(), self.options.signal)
        if step == self.options.hoard_at:
            torch.empty(1 << 44)
        time.sleep(self.options.slow)
        mine = torch.from_numpy(self.processes.shard(rows))
        inputs = INPUTS[mine]
        inputs[mine == self.options.spoil] = torch.nan
        noise = torch.from_numpy(plan.draws[mine.numpy()]).float().sum(1, keepdim=True)
        loss = ((network(inputs + 0.01 * noise) - TARGETS[mine]) ** 2).mean()
        return {
            "total": loss * (1e36 if step == self.options.huge else 1.0),
            "other": loss.detach(),
        }

    def evaluate(self, epoch, step):
        return Evaluation(step / 100, {"R@1 IoU=0.3": step / 100}, f"table {step}")

    def clips(self, rows):
        return [f"clip{row}" for row in rows]

    def checkpoint(self, epoch, step):
        return f"toy_{step}.t7", self.model.state_dict()


def train(options):
    if options.patience:
        joining.START_PATIENCE = timedelta(seconds=options.patience)
        joining.STEP_PATIENCE = timedelta(seconds=options.patience)
    with start_processes() as processes:
        recipe = Recipe(options, processes)
        schedule = Schedule(
            epochs=3, batch_size=8, clip_norm=1.0, seed=3, evaluations=2, log_every=4,
            save_every_minutes=0.0, amp=options.amp,
        )  # fmt: skip
        if options.rank == processes.rank:
            start_badly(options)
        free = {field.name for field in dataclasses.fields(options)} - {"folder", "rate"}
        described = {"rate.json": options.rate}
        run = Run(
            Path(options.folder), options, "options.json", processes, free, None, "log.txt", (),
            described,
        )  # fmt: skip
        try:
            fit(recipe, schedule, run, processes, options.restart)
        finally:
            time.sleep(options.last_words if processes.main else 0.0)


def start_badly(options):
    """What befalls the process `rank` before the state is read."""
    if options.fate == "killed":
        os.kill(os.getpid(), options.signal)
    if options.fate == "error":
        raise UserError("clip7.pt: damaged; fetch it again")
    if options.fate == "late":
        time.sleep(30)


def main():
    train(parse_options(Options, "toy"))


if __name__ == "__main__":
    run_program(main)
