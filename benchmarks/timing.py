"""How the benchmarks measure time: versions run in turn, each in a process of its own."""

import math
import os
import resource
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from utils.base.errors import UserError, run_program
from utils.base.machine import keep_freed_memory
from utils.base.options import ArgumentParser
from utils.base.tables import show_size

Work = Callable[..., object]
Loss = Callable[..., torch.Tensor]
AGREEMENT = 1e-4  # relative difference of losses, and of gradients to the largest entry


def circumstances() -> str:
    """Threads, load and torch version, for the first line of a table."""
    load = os.getloadavg()[0]
    return f"{torch.get_num_threads()} threads, load {load:.1f}, torch {torch.__version__}"


def spent(work: Work, *inputs: object) -> tuple[float, float]:
    """Seconds that the work takes: wall time and CPU time."""
    clock, processor = time.perf_counter(), time.process_time()
    work(*inputs)
    return time.perf_counter() - clock, time.process_time() - processor


def median_time(work: Work, times: int = 5, device: str = "cpu") -> float:
    """Median wall time in seconds after one warm-up, including the device's work."""

    def work_to_its_end() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return float(np.median([spent(work_to_its_end)[0] for _ in range(times + 1)][1:]))


def compare(name: str, versions: Mapping[str, Callable[[], Work]], rounds: int) -> None:
    """Time versions in turn; print medians, ratios to the first and peak memory, a line each.

    Each is made and run in its own process, forked from this one, which must not have computed
    anything with torch before; those after the first keep freed memory, as our programs do. A
    version is called with the number of the round. Versions take turns, so that all meet the same
    noise; round -1 warms up and is not counted.
    """
    context = get_context("fork")
    ends = []
    for number, make in enumerate(versions.values()):
        end, other = context.Pipe()
        serve = partial(_serve_rounds, make, other, number > 0)
        context.Process(target=run_program, args=(serve,), daemon=True).start()
        other.close()
        ends.append(end)
    spendings = np.empty((rounds + 1, len(ends), 3))  # wall time, CPU time, peak memory so far
    try:
        for number in range(-1, rounds):
            for version, end in enumerate(ends):
                end.send(number)
                spendings[number, version] = end.recv()  # the warm-up's are last
    except (EOFError, ConnectionError):
        raise UserError("a version failed; it says why above") from None
    for end in ends:
        end.send(None)
    medians = np.median(spendings[:-1], 0)
    ratios = np.median(spendings[:-1, :1] / spendings[:-1], 0)
    memory = map(show_size, spendings[:-1, :, 2].max(0))
    for version, (wall, cpu, _), (ratio, cpu_ratio, _), peak in zip(
        versions, medians, ratios, memory, strict=True
    ):
        figures = f"{wall:.3g} s ({cpu:.3g})   {ratio:.2f}x ({cpu_ratio:.2f}x)"
        print(f"{name}, {version}: {figures}   {peak}", flush=True)


def _serve_rounds(make: Callable[[], Work], end: Connection, keeps_memory: bool) -> None:
    if keeps_memory:
        keep_freed_memory()
    work = make()
    while (number := end.recv()) is not None:
        times = spent(work, number)
        end.send((*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def training_step(
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Work:
    """Loss (computed in `dtype`), gradients, clipping, optimizer; its arguments go to the loss."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(*inputs: object) -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            total = loss(*inputs)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


class Contest(NamedTuple):
    """Two versions of a training step, on the same weights and batch."""

    check: Callable[[], None]  # raises UserError if they differ without dropout
    plain: Loss  # of the number of the step
    ours: Loss
    optimizer: torch.optim.Optimizer
    clip_norm: float


def step_options(
    description: str, arguments: list[str] | None, *, batch: int, units: int, steps: int
) -> Namespace:
    """The command line of a benchmark of training steps, with its model's defaults."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--batch", type=int, default=batch, help="queries a step")
    parser.add_argument("--units", type=int, default=units, help="units a clip")
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 2304], help="feature widths")
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of each kind")
    options = parser.parse_args(arguments)
    print(
        f"batch {options.batch}, {options.units} units, {circumstances()}; seconds of wall time "
        f"(CPU time), medians of {options.steps} steps taken in turn, ratios to plain; peak memory"
    )
    return options


def compare_steps(
    options: Namespace,
    contest: Callable[[int], Contest],
    plain_text: Callable[[], Work],
    our_text: Callable[[], Work],
) -> None:
    """Time plain float32 steps and ours, in float32 and bfloat16, at each feature width.

    Args:
        contest: both versions at a feature width.
        plain_text, our_text: make the text part of a step.
    """

    def step(width: int, is_plain: bool, dtype: torch.dtype) -> Work:
        read = plain_text() if is_plain else our_text()
        check, plain, ours, optimizer, clip_norm = contest(width)
        if is_plain:
            check()
        work = training_step(plain if is_plain else ours, optimizer, clip_norm, dtype)
        return lambda number: (read(), work(number))

    for width in options.widths:
        versions = {
            "plain float32": partial(step, width, True, torch.float32),
            "ours float32": partial(step, width, False, torch.float32),
            "ours bfloat16": partial(step, width, False, torch.bfloat16),
        }
        compare(f"{width} dims", versions, options.steps)


def check_agreement(model: nn.Module, plain: torch.Tensor, ours: torch.Tensor) -> None:
    """Raises UserError if two versions of a loss, or the gradients of the model, differ."""
    if not math.isclose(ours.item(), plain.item(), rel_tol=AGREEMENT):
        raise UserError(f"our loss is {ours.item()}, the plain version's {plain.item()}")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients, plain_gradients = (
        torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
        for loss in (ours, plain)
    )
    largest = max(float(gradient.abs().max()) for gradient in plain_gradients)
    for name, gradient, expected in zip(trained, gradients, plain_gradients, strict=True):
        if (gradient - expected).abs().max() > AGREEMENT * largest:
            raise UserError(f"gradients of {name} differ from the plain version's")
