"""How the benchmarks measure time: medians, versions run in turn, training steps."""

import contextlib
import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from utils.base.errors import UserError, run_program
from utils.base.machine import keep_freed_memory
from utils.base.options import ArgumentParser

Work = Callable[..., object]
Loss = Callable[..., torch.Tensor]


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

    def whole() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return float(np.median([spent(whole)[0] for _ in range(times + 1)][1:]))


def alternate(makers: Sequence[Callable[[], Work]], times: int) -> np.ndarray:
    """Seconds of each version, (times, versions, 2): wall time, CPU time.

    Each version is made and run in its own process, forked from this one, which must not have
    computed anything with torch before. It is called with the number of the round. Versions take
    turns, so that all meet the same noise; round -1 warms up and is not counted.
    """
    context = get_context("fork")
    ends = []
    for make in makers:
        end, other = context.Pipe()
        context.Process(target=_serve_rounds, args=(make, other), daemon=True).start()
        other.close()
        ends.append(end)
    try:
        for end in ends:
            end.recv()  # made
        rounds = []
        for number in range(-1, times):
            seconds = []
            for end in ends:
                end.send(number)
                seconds.append(end.recv())
            rounds.append(seconds)
    except EOFError:
        raise UserError("a version failed; it says why above") from None
    finally:
        for end in ends:
            end.close()
    return np.array(rounds[1:])


def _serve_rounds(make: Callable[[], Work], end: Connection) -> None:
    def serve() -> None:
        work = make()
        end.send(None)
        with contextlib.suppress(EOFError):
            while True:
                end.send(spent(work, end.recv()))

    run_program(serve)


def as_our_programs(make: Callable[[], Work]) -> Callable[[], Work]:
    """The version, in a process set up like our programs: freed memory is kept."""

    def set_up() -> Work:
        keep_freed_memory()
        return make()

    return set_up


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
    return parser.parse_args(arguments)


def compare_steps(
    options: Namespace,
    texts: tuple[Callable[[], Work], Callable[[], Work]],
    contest: Callable[[int], Contest],
    *,
    name: str,
    digits: int,
) -> None:
    """Time plain float32 steps and ours, in float32 and bfloat16, at each feature width.

    Args:
        texts: makers of the text part of a step, plain and ours.
        contest: both versions at a feature width.
        name: of the features, a format string for their width.
        digits: after the point in printed seconds.
    """
    print(
        f"batch {options.batch}, {options.units} units, {circumstances()}; seconds of wall time "
        f"(CPU time), medians of {options.steps} steps taken in turn"
    )
    for width in options.widths:
        for dtype in (torch.float32, torch.bfloat16):
            times = alternate(_versions(texts, contest, width, dtype), options.steps)
            plain, ours = np.median(times, 0)
            ratio = np.median(times[:, 0] / times[:, 1], 0)
            print(
                f"{name.format(width)}  plain float32 {plain[0]:.{digits}f} "
                f"({plain[1]:.{digits}f})   ours {str(dtype).removeprefix('torch.'):8} "
                f"{ours[0]:.{digits}f} ({ours[1]:.{digits}f})   ratio {ratio[0]:.2f}x "
                f"({ratio[1]:.2f}x)",
                flush=True,
            )
    plain, ours = np.median(alternate([_any_round(text) for text in texts], options.steps), 0)
    print(f"of these, text: plain {plain[0]:.3f}, ours {ours[0]:.4f}")


def _versions(
    texts: tuple[Callable[[], Work], Callable[[], Work]],
    contest: Callable[[int], Contest],
    width: int,
    dtype: torch.dtype,
) -> list[Callable[[], Work]]:
    def plain() -> Work:
        read, made = texts[0](), contest(width)
        step = training_step(made.plain, made.optimizer, made.clip_norm)
        return lambda number: (read(), step(number))

    def ours() -> Work:
        read, made = texts[1](), contest(width)
        step = training_step(made.ours, made.optimizer, made.clip_norm, dtype)
        return lambda number: (read(), step(number))

    return [plain, as_our_programs(ours)]


def _any_round(make: Callable[[], Work]) -> Callable[[], Work]:
    """A version that ignores the number of the round."""

    def made() -> Work:
        work = make()
        return lambda number: work()

    return made
