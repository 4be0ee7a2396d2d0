"""A program that trains a linear map with the shared loop; the tests stop and continue it."""

import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[3])

import numpy as np
import torch
from torch import nn

from utils.base.errors import UserError, run_program
from utils.base.options import option, parse_options
from utils.training import loop
from utils.training import processes as joining
from utils.training.options import TrainingOptions
from utils.training.processes import restarted
from utils.training.recipes import Evaluation

ROWS = 64
INPUTS = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS @ torch.randn(5, 3, generator=torch.Generator().manual_seed(2))


@dataclass(kw_only=True)
class Options(TrainingOptions):
    OPTIONS_FILE: ClassVar[str] = "options.json"
    LOG_FILE: ClassVar[str | None] = "log.txt"

    task: str = option("toy", "not read")
    fv: str = option("toy", "not read")
    epochs: int = option(3, "as in every test")
    batch_size: int = option(8, "as in every test")
    seed: int = option(3, "as in every test")
    save_every_minutes: float = option(0.0, "after every step", free=True)
    tb_log_freq: int = option(4, "steps between logged losses", free=True)

    folder: str = option(explanation="run folder")
    spoil: int = option(-1, "row with a value of NaN", within="[-1, 64]", free=True)
    huge: int = option(-1, "step with gradients that overflow", within="[-1, 64]", free=True)
    amp: str = option("off", "mixed precision", free=True)
    fused: bool = option(False, "the optimizer's other implementation", free=True)
    rate: float = option(0.1, "learning rate")
    kill_at: int = option(0, "kill this process after so many steps", free=True)
    rank: int = option(-1, "kill only this one", within="[-1, 64]", free=True)
    signal: int = option(9, "in this way", free=True)
    hoard_at: int = option(-1, "take all memory then", within="[-1, 64]", free=True)
    fate: str = option("none", "of `rank` at the start: killed, error or late", free=True)
    patience: float = option(0.0, "seconds that processes wait for each other", free=True)
    slow: float = option(0.0, "seconds a step", free=True)
    last_words: float = option(0.0, "seconds that the main process takes to end", free=True)

    @property
    def run_folder(self):
        return Path(self.folder)

    @property
    def log_dir(self):
        return None


class Records:
    clip = np.arange(ROWS)
    clip_uids = tuple(f"clip{row}" for row in range(ROWS))

    def __len__(self):
        return ROWS


class Recipe:
    evaluations = 2
    columns = 2
    first_epoch = 0
    live = False
    train = val = SimpleNamespace(records=Records(), listed=ROWS)

    def __init__(self, options, processes):
        torch.manual_seed(0)
        self.options = options
        self.processes = processes
        self.descriptions = {"rate.json": options.rate}
        self.model = nn.Linear(5, 3)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=options.fused)
        self.step = 0
        if options.rank == processes.rank:
            start_badly(options)

    def learning_rate(self, step, steps_per_epoch):
        self.step = step  # the loop asks before each step
        return self.options.rate

    def batch(self, share, plan):
        rows = share.rows[share.positions]
        noise = torch.from_numpy(plan.draws[rows]).float().sum(1, keepdim=True)
        return rows, noise, share.weight

    def losses(self, network, batch):
        rows, noise, weight = batch
        step = self.step
        me = self.options.rank in (-1, self.processes.rank)
        if step == self.options.kill_at > 0 and me and not restarted():
            os.kill(os.getpid(), self.options.signal)
        if step == self.options.hoard_at:
            torch.empty(1 << 44)
        time.sleep(self.options.slow)
        inputs = INPUTS[rows]
        inputs[rows == self.options.spoil] = torch.nan
        loss = weight * ((network(inputs + 0.01 * noise) - TARGETS[rows]) ** 2).mean()
        return {
            "total": loss * (1e36 if step == self.options.huge else 1.0),
            "other": loss.detach(),
        }

    def evaluate(self, epoch, step):
        return Evaluation({"R@1 IoU=0.3": step / 100}, f"table {step}")

    def checkpoint(self, epoch, step):
        return f"toy_{step}.t7", self.model.state_dict()


def run(folder, **options):
    """Train in a folder, or continue what is there."""
    train(Options(folder=str(folder), **options))


def train(options):
    if options.patience:
        joining.START_PATIENCE = timedelta(seconds=options.patience)
        joining.STEP_PATIENCE = timedelta(seconds=options.patience)
    try:
        loop.train(options, Recipe)
    finally:
        time.sleep(options.last_words if os.environ.get("RANK", "0") == "0" else 0.0)


def start_badly(options):
    """What befalls the process `rank` before the state is read."""
    if options.fate == "killed":
        os.kill(os.getpid(), options.signal)
    if options.fate == "error":
        raise UserError("clip7.pt: damaged; fetch it again")
    if options.fate == "late":
        time.sleep(12)


def main():
    train(parse_options(Options, "toy"))


if __name__ == "__main__":
    run_program(main)
