"""How many cores a program may use, and how its threads wait for each other.

Threads that share a computation meet after each part of it. By default a waiting thread spins for
milliseconds; where another program keeps a core busy it spins on the core that the thread it
waits for needs. OpenMP reads its settings when torch is loaded: they have to be made before.
"""

import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
GIVEN = "OMP_NUM_THREADS" in os.environ  # by whoever started this program
SPINS = 1_000  # rounds that a waiting thread spins before it sleeps: benchmarks/loaded.py


def usable_cores() -> int:
    """Cores that this process may use at once: by its affinity and its control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:
        membership = ""
    return max(1, int(min(cores, quota(CONTROL_GROUPS, membership))))


def quota(root: Path, membership: str) -> float:
    """Cores that control groups leave to a process whose /proc/self/cgroup is `membership`.

    The group's own limit and those of the groups around it count; infinite if there is none.
    """
    shares = []
    for line in membership.splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            limits, folder = ("cpu.max",), root
        elif "cpu" in controllers.split(","):
            limits, folder = ("cpu.cfs_quota_us", "cpu.cfs_period_us"), root / "cpu"
        else:
            continue
        inner = folder / group.lstrip("/")
        for level in (inner, *inner.parents):
            if level.is_relative_to(folder) and all((level / name).is_file() for name in limits):
                values = " ".join((level / name).read_text() for name in limits).split()
                if values[0] not in ("max", "-1"):
                    shares.append(int(values[0]) / int(values[1]))
    return min(shares, default=float("inf"))


def set_threads(programs: int = 1) -> None:
    """Give each of so many programs its share of the cores; what the user has set stays."""
    if not GIVEN:
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // programs))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
