"""How many cores a program may use, and how its threads wait for each other.

Threads that share a computation wait for each other after each part of it. By default a waiting
thread spins for milliseconds; if another program keeps a core busy, it takes time from the thread
that it waits for. OpenMP reads its settings when torch is loaded: set them before.
"""

import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
USER_SETS_THREADS = "OMP_NUM_THREADS" in os.environ
SPINS = 1_000  # rounds that a waiting thread spins before it sleeps: benchmarks/loaded.py


def usable_cores() -> int:
    """Cores that this process may use: limited by its affinity and its control group's quota."""
    membership = Path("/proc/self/cgroup").read_text()
    return max(1, int(min(len(os.sched_getaffinity(0)), quota(CONTROL_GROUPS, membership))))


def quota(root: Path, membership: str) -> float:
    """Cores that control groups allow a process whose /proc/self/cgroup is `membership`.

    The smallest limit of its group and the groups above it; infinite if there is none.
    """
    limits = []
    for line in membership.splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            names, folder = ("cpu.max",), root
        elif "cpu" in controllers.split(","):
            names, folder = ("cpu.cfs_quota_us", "cpu.cfs_period_us"), root / "cpu"
        else:
            continue
        inner = folder / group.lstrip("/")
        for level in (inner, *inner.parents):
            if level.is_relative_to(folder) and all((level / name).is_file() for name in names):
                values = " ".join((level / name).read_text() for name in names).split()
                if values[0] not in ("max", "-1"):
                    limits.append(int(values[0]) / int(values[1]))
    return min(limits, default=float("inf"))


def set_threads(programs: int = 1) -> None:
    """Use this program's share of the cores if `programs` run, unless the user set the threads."""
    if not USER_SETS_THREADS:
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // programs))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
