"""Speed beside other programs: what busy processes cost a training step, inference and extraction.

On each row so many processes compute without end while the work runs in a process of its own: with
one thread; with a thread a core that spins while it waits, as OpenMP does by default; and as our
programs start, whose waiting threads sleep (utils/base/cores.py). Rates are medians of rounds in
which the ways take turns.

    python benchmarks/loaded.py                        # about twenty minutes
    python benchmarks/loaded.py --work vslnet --busy 0 2 --seconds 3 --rounds 1
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
import torch
from terminaltables import AsciiTable

from benchmarks import inference, reler_step, vslnet_step
from benchmarks.gpu import clip_encoder
from benchmarks.timing import Work, training_step
from ReLER.model import ReLER
from ReLER.options import ModelOptions
from utils.base.cores import SPINS, usable_cores
from utils.base.errors import UserError, run_program
from utils.base.machine import keep_freed_memory
from utils.base.options import ArgumentParser
from VSLNet.model import VSLNet, parameter_groups

SPINNING = 300_000  # rounds, libgomp's default
WAYS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "spinning": {"GOMP_SPINCOUNT": str(SPINNING)},
    "as started": {"GOMP_SPINCOUNT": str(SPINS)},
}


def vslnet() -> Work:
    """A step on 32 queries, 256 dims."""
    model = VSLNet(256, vslnet_step.TEXT_WIDTH, max_pos_len=128).train()
    batch = vslnet_step.random_batch(32, 128, 256)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-6, fused=True)
    return training_step(lambda: vslnet_step.our_loss(model, batch), optimizer, 1.0)


def reler() -> Work:
    """A step on 2 queries, 256 dims and CLIP's."""
    width = 256 + reler_step.FURTHER_DIMS
    model = ReLER(ModelOptions(), width).train()
    batch = reler_step.random_batch(2, 600, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    return training_step(lambda: reler_step.our_loss(model, batch, 4), optimizer, 1.0)


def predict() -> Work:
    """VSLNet's predictions for a clip of 8 queries, 256 dims."""
    return torch.inference_mode()(inference.vslnet_versions(256, 128, 1)[1])


def extract() -> Work:
    """Two feature rows by CLIP's image encoder."""
    return clip_encoder("cpu", 2)


WORK: dict[str, Callable[[], Work]] = {
    "vslnet": vslnet, "reler": reler, "inference": predict, "extraction": extract,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Print a table: times a second, a row for each work and number of busy processes."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK), help="what")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2, 5], help="processes")
    parser.add_argument("--seconds", type=float, default=8, help="that a rate is measured in")
    parser.add_argument("--rounds", type=int, default=3, help="in which the ways take turns")
    parser.add_argument("--alone", choices=list(WORK), help="print the rate of one work, and end")
    options = parser.parse_args(arguments)
    if options.alone:
        print(rate(WORK[options.alone](), options.seconds))
        return
    print(f"{usable_cores()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    rows = []
    for work in options.work:
        for busy in options.busy:
            with busy_processes(busy):
                rounds = [
                    [measure(work, way, options.seconds) for way in WAYS.values()]
                    for _ in range(options.rounds)
                ]
            rows.append([work, str(busy), *(f"{x:.3g}" for x in np.median(rounds, 0))])
            print(*rows[-1], flush=True)
    print(AsciiTable([["times a second", "busy processes", *WAYS], *rows]).table)


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Within, so many processes compute without end."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(work: str, settings: dict[str, str], seconds: float) -> float:
    """The rate of a work in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--alone", work, "--seconds", str(seconds)]
    done = subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{work} failed: {done.stderr}")
    return float(done.stdout)


def rate(work: Work, seconds: float) -> float:
    """Times a second, after a warm-up."""
    keep_freed_memory()
    work()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    run_program(main)
