"""Training through submitit, on this machine: preempted jobs save, are requeued and continue."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.utils.training import toy_training
from tests.utils.training.lives import differences
from utils.base.errors import UserError
from utils.training.slurm import submit

pytest.importorskip("submitit")


def options(folder, **others):
    cluster = {"slurm_nodes": 1, "slurm_gpus": 2, "slurm_cpus": 1, "slurm_minutes": 5}
    return toy_training.Options(folder=str(folder), slurm=True, **cluster, **others)


def tasks_of(job):
    """Process ids of a local job's tasks."""
    return [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == int(job.job_id)
    ]


@pytest.mark.slow
def test_preempted_job_is_requeued_and_continues(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    alone = submit(toy_training.train, options(tmp_path / "a"), tmp_path / "la", "local")
    run = tmp_path / "b"
    slow = options(run, slow=0.1, restart=True)
    job = submit(toy_training.train, slow, tmp_path / "lb", "local")
    while not (run / "toy_4.t7").exists():
        assert job.state == "RUNNING", job.stderr()
        time.sleep(0.05)
    for task in tasks_of(job):
        os.kill(task, signal.SIGTERM)  # comes first on a cluster, and is not to end anything
        os.kill(task, signal.SIGUSR2)
    job._process.wait(timeout=120)
    alone._process.wait(timeout=120)
    log = job.paths.stderr.read_text()
    assert "stopped by SIGUSR2 after step" in log, log
    assert f"continuing {run} at step" in job.paths.stdout.read_text()
    assert differences(tmp_path / "a", run) == []


def test_without_slurm_nothing_is_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no SLURM on this machine"):
        submit(toy_training.train, options(tmp_path), tmp_path)
