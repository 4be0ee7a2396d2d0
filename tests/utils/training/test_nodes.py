"""Two machines, as far as one can show them: a launcher each, their own caches, one run folder."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.utils.training import toy_training
from tests.utils.training.lives import free_port

pytestmark = pytest.mark.slow


def start_nodes(folder, *arguments):
    """Start the training on two nodes of two processes each, one launcher a node."""
    port = str(free_port())
    jobs = []
    for node in ("0", "1"):
        launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "2"]
        launcher += ["--node_rank", node, "--master_addr", "127.0.0.1", "--master_port", port]
        program = [toy_training.__file__, "--folder", str(folder / "run"), *arguments]
        cache = ["--cache_dir", str(folder / f"cache of node {node}")]
        job = subprocess.Popen(
            [sys.executable, *launcher, *program, *cache],
            env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        jobs.append(job)
    return jobs


def finish(folder):
    """Train to the end on both nodes."""
    for job in start_nodes(folder):
        said, _ = job.communicate(timeout=200)
        assert job.returncode == 0, said


def workers_of(job):
    """Process numbers of what a launcher started."""
    listed = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True)
    return [int(number) for number in listed.stdout.split()]


def test_a_lost_node_ends_the_other_and_the_run_goes_on(tmp_path):
    finish(tmp_path / "whole")
    jobs = start_nodes(tmp_path / "killed", "--slow", "0.3")
    state = tmp_path / "killed/run/state.pt"
    evaluations = tmp_path / "killed/run/metrics.jsonl"
    deadline = time.monotonic() + 100
    while not evaluations.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    for number in (*workers_of(jobs[1]), jobs[1].pid):  # the machine is gone
        os.kill(number, signal.SIGKILL)
    said, _ = jobs[0].communicate(timeout=100)
    assert jobs[0].returncode != 0
    assert "was lost" in said and "give the same command again" in said
    step = torch.load(state)["step"]
    assert 0 < step < 24
    finish(tmp_path / "killed")
    one, other = (torch.load(tmp_path / name / "run/state.pt") for name in ("whole", "killed"))
    assert other["step"] == 24
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
