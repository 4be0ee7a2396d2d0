"""Profile training steps: a trace for Perfetto or TensorBoard, and a table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import profiler

SKIPPED_STEPS = 3  # before the profiled ones: the first steps allocate and compile
ROWS = 15  # of the table


@contextmanager
def profiled(steps: int, folder: Path) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each training step; profiles `steps` of them.

    Writes `folder/*.pt.trace.json` and prints the operators that take most time. Does nothing for 0
    steps.
    """
    if not steps:
        yield lambda: None
        return

    def report(profile: profiler.profile) -> None:
        profiler.tensorboard_trace_handler(str(folder))(profile)
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=key, row_limit=ROWS, max_name_column_width=40))
        print(f"trace of {steps} steps: {folder} (open it in ui.perfetto.dev)")

    schedule = profiler.schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=steps, repeat=1)
    with profiler.profile(schedule=schedule, on_trace_ready=report) as profile:
        yield profile.step
