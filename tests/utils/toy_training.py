"""A program that trains a linear map with the shared loop; the tests stop and continue it."""

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import nn

from utils.base.errors import run_program
from utils.base.options import option, parse_options
from utils.training.loop import Evaluation, Schedule, fit
from utils.training.processes import restarted, start_processes
from utils.training.runs import Run

ROWS = 64
INPUTS = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS @ torch.randn(5, 3, generator=torch.Generator().manual_seed(2))


@dataclass
class Options:
    folder: str = option(explanation="run folder")
    skip_nonfinite: int = option(0, "steps to leave out")
    spoil: int = option(-1, "row with a value of NaN")
    rate: float = option(0.1, "learning rate")
    kill_at: int = option(0, "kill this process after so many steps")
    rank: int = option(-1, "kill only this one")
    signal: int = option(9, "in this way")
    kill_start: int = option(-1, "kill this one before it reads the state")
    hoard_at: int = option(-1, "take all memory after so many steps")
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
        self.optimizer = torch.optim.AdamW(self.model.parameters())

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
        return {"total": ((network(inputs + 0.01 * noise) - TARGETS[mine]) ** 2).mean()}

    def evaluate(self, epoch, step):
        return Evaluation(step / 100, {"R@1 IoU=0.3": step / 100}, f"table {step}")

    def clips(self, rows):
        return [f"clip{row}" for row in rows]

    def checkpoint(self, epoch, step):
        return f"toy_{step}.t7", self.model.state_dict()


def train(options):
    processes = start_processes()
    recipe = Recipe(options, processes)
    schedule = Schedule(
        epochs=3, batch_size=8, clip_norm=1.0, seed=3, evaluations=2, log_every=4,
        save_every_minutes=0.0, skip_nonfinite=options.skip_nonfinite,
    )  # fmt: skip
    if options.kill_start == processes.rank:
        os.kill(os.getpid(), options.signal)
    free = {field.name for field in dataclasses.fields(options)} - {"folder", "rate"}
    run = Run(Path(options.folder), options, "options.json", processes, free, None, "log.txt")
    try:
        fit(recipe, schedule, run, processes, options.restart)
    finally:
        time.sleep(options.last_words if processes.main else 0.0)
    processes.close()


def main():
    train(parse_options(Options, "toy"))


if __name__ == "__main__":
    run_program(main)
