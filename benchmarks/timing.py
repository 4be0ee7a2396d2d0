"""How the benchmarks take time: medians, versions of one thing taken in turn, training steps."""

import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from utils.options import ArgumentParser

Work = Callable[..., object]
Loss = Callable[..., torch.Tensor]


def circumstances() -> str:
    """What the figures depend on, for the first line of a table."""
    load = os.getloadavg()[0]
    return f"{torch.get_num_threads()} threads, load {load:.1f}, torch {torch.__version__}"


def spent(work: Work, *inputs: object) -> tuple[float, float]:
    """Seconds that the work takes: by the clock, and of CPU time."""
    clock, processor = time.perf_counter(), time.process_time()
    work(*inputs)
    return time.perf_counter() - clock, time.process_time() - processor


def median_time(work: Work, times: int = 5, device: str = "cpu") -> float:
    """Median seconds by the clock, once warm, until the device is done."""

    def whole() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return float(np.median([spent(whole)[0] for _ in range(times + 1)][1:]))


def alternate(versions: Sequence[Work], times: int) -> np.ndarray:
    """What each version spends, (times, versions, 2): by the clock, CPU time.

    Each is called with the number of the round. They take turns, so that all meet the same noise;
    the first round, -1, warms up and is not counted.
    """
    rounds = [[spent(work, number) for work in versions] for number in range(-1, times)]
    return np.array(rounds[1:])


def training_step(
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Work:
    """Loss (computed in `dtype`), gradients, clipping and the optimizer; what it is called with
    goes to the loss."""
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
    """Two versions of a model's training step, on the same weights and batch."""

    name: str
    plain: Loss  # of the number of the step
    ours: Loss
    optimizer: torch.optim.Optimizer
    clip_norm: float
    digits: int  # of the printed seconds


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
    options: Namespace, texts: tuple[Work, Work], contest: Callable[[int], Contest]
) -> None:
    """Time plain float32 steps and ours, in float32 and bfloat16, at each feature width.

    `texts`: how the plain version and ours come by the text of a batch, a part of their steps.
    """
    print(
        f"batch {options.batch}, {options.units} units, {circumstances()}; seconds by the clock "
        f"(CPU time), medians of {options.steps} steps taken in turn"
    )
    for width in options.widths:
        name, *losses, optimizer, clip_norm, digits = contest(width)
        for dtype in (torch.float32, torch.bfloat16):
            versions = [
                _with_text(read, training_step(loss, optimizer, clip_norm, precision))
                for read, loss, precision in zip(texts, losses, (torch.float32, dtype), strict=True)
            ]
            times = alternate(versions, options.steps)
            plain, ours = np.median(times, 0)
            ratio = np.median(times[:, 0] / times[:, 1], 0)
            print(
                f"{name}  plain float32 {plain[0]:.{digits}f} ({plain[1]:.{digits}f})   ours "
                f"{str(dtype).removeprefix('torch.'):8} {ours[0]:.{digits}f} "
                f"({ours[1]:.{digits}f})   ratio {ratio[0]:.2f}x ({ratio[1]:.2f}x)",
                flush=True,
            )
    plain, ours = map(median_time, texts)
    print(f"of these, text: plain {plain:.3f}, ours {ours:.4f}")


def _with_text(read: Work, step: Work) -> Work:
    return lambda number: (read(), step(number))
