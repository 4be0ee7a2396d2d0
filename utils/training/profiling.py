"""Where the time of training steps goes: a trace for Perfetto or TensorBoard, and a table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import profiler

BEFORE = 3  # steps that are not looked at: the first ones allocate and compile
ROWS = 15  # of the table


@contextmanager
def profiled(steps: int, folder: Path) -> Iterator[Callable[[], None]]:
    """A function to call after each training step; `steps` of them are looked at, once.

    Writes `folder/*.pt.trace.json` and prints the operators that take most time. With 0 steps
    nothing is done.
    """
    if not steps:
        yield lambda: None
        return

    def ready(run: profiler.profile) -> None:
        profiler.tensorboard_trace_handler(str(folder))(run)
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(run.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=40))
        print(f"trace of {steps} steps: {folder} (open it in ui.perfetto.dev)")

    when = profiler.schedule(wait=BEFORE - 1, warmup=1, active=steps, repeat=1)
    with profiler.profile(schedule=when, on_trace_ready=ready) as run:
        yield run.step
