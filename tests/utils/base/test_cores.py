"""Programs take the cores they may use, and their waiting threads sleep."""

import os
import subprocess
import sys

import pytest

from utils.base.cores import SPINS, quota, usable_cores

CHECKOUT = __file__.rsplit("/tests/", 1)[0]


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.", 1)).write_text(text)


def test_the_narrowest_group_counts(tmp_path):
    write(tmp_path, cpu_max="max 100000\n")
    write(tmp_path / "slice", cpu_max="150000 100000\n")
    write(tmp_path / "slice/job", cpu_max="400000 100000\n")
    assert quota(tmp_path, "0::/slice/job\n") == 1.5
    assert quota(tmp_path, "0::/slice\n") == 1.5
    assert quota(tmp_path, "0::/\n") == float("inf")


def test_groups_of_version_one_count(tmp_path):
    write(tmp_path / "cpu", **{"cpu_cfs_quota_us": "300000", "cpu_cfs_period_us": "100000"})
    # In a container the group's path is the host's, and its own limit lies at the root.
    assert quota(tmp_path, "3:memory:/a\n4:cpu,cpuacct:/docker/0123\n") == 3
    write(tmp_path / "cpu", **{"cpu_cfs_quota_us": "-1"})
    assert quota(tmp_path, "4:cpu,cpuacct:/docker/0123\n") == float("inf")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_counts():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def settings(program, **given):
    """What a program finds once it has imported its surroundings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    wanted = "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
    code = f"{program}; import os; print(*[os.environ.get(n) for n in {wanted}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **given}, cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_a_program_sets_its_threads_unless_the_user_does():
    start = "import utils.base.environment"
    assert settings(start) == [str(usable_cores()), str(SPINS), "None"]
    assert settings(start, OMP_NUM_THREADS="7", OMP_WAIT_POLICY="active") == ["7", "None", "active"]
    assert settings(start, GOMP_SPINCOUNT="5")[1] == "5"


def test_processes_share_the_cores():
    start = "import utils.base.environment as _; from utils.base.cores import set_threads"
    assert settings(f"{start}; set_threads(64)")[0] == "1"
    assert settings(f"{start}; set_threads(1)")[0] == str(usable_cores())
    assert settings(f"{start}; set_threads(64)", OMP_NUM_THREADS="7")[0] == "7"
