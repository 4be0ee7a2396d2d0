"""A program that trains a linear map with the shared loop; the tests stop and continue it."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import nn

from utils.distributed import start_processes
from utils.errors import run_program
from utils.options import option, parse_options
from utils.runs import Run
from utils.training import Evaluation, Schedule, fit

ROWS = 64
INPUTS = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS @ torch.randn(5, 3, generator=torch.Generator().manual_seed(2))


@dataclass
class Options:
    rate: float = option(0.1, "learning rate")
    kill_at: int = option(0, "kill this process after so many steps")
    slow: float = option(0.0, "seconds a step")
    restart: bool = option(False, "begin anew")


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
        if self.options.kill_at and step == self.options.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.options.slow)
        mine = torch.from_numpy(self.processes.shard(rows))
        noise = torch.from_numpy(plan.draws[mine.numpy()]).float().sum(1, keepdim=True)
        return {"total": ((network(INPUTS[mine] + 0.01 * noise) - TARGETS[mine]) ** 2).mean()}

    def evaluate(self, epoch, step):
        return Evaluation(step / 100, {"R@1 IoU=0.3": step / 100}, f"table {step}")

    def clips(self, rows):
        return [f"clip{row}" for row in rows]

    def checkpoint(self, epoch, step):
        return f"toy_{step}.t7", self.model.state_dict()


def main():
    folder = Path(sys.argv.pop(1))
    options = parse_options(Options, "toy")
    processes = start_processes()
    recipe = Recipe(options, processes)
    schedule = Schedule(
        epochs=3, batch_size=8, clip_norm=1.0, seed=3, evaluations=2, log_every=4,
        save_every_minutes=0.0,
    )  # fmt: skip
    run = Run(folder, options, "options.json", processes, free=("kill_at", "slow", "restart"))
    fit(recipe, schedule, run, processes, options.restart)
    processes.close()


if __name__ == "__main__":
    run_program(main)
