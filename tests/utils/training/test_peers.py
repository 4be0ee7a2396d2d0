"""Processes that nobody watches over, as those of a cluster: each says which other one was lost."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests import warm
from tests.utils.training import toy_training
from tests.utils.training.lives import contents, free_port

pytestmark = pytest.mark.slow


def tasks(folder, *arguments, count=2, own=((), (), ()), act=lambda jobs: None):
    """Start tasks as SLURM does; returns their exit codes and the lines that say why they ended."""
    command = [warm.python(), toy_training.__file__, "--folder", str(folder), *arguments]
    group = {
        "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR",
    }  # fmt: skip
    jobs = [
        subprocess.Popen(
            [*command, *own[rank]],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    act(jobs)
    said = [job.communicate(timeout=120)[1] for job in jobs]
    assert "Traceback" not in "".join(said), said
    errors = [
        [line for line in text.splitlines() if line.startswith(("error", "stopped by"))]
        for text in said
    ]
    return [job.returncode for job in jobs], errors


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose process 1 was killed in the middle."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    codes, errors = tasks(folder, "--kill_at", "17", "--rank", "1")
    assert codes == [75, -signal.SIGKILL]
    said = re.sub(r" \(on [^)]*\)", "", errors[0][0])
    assert said == (
        f"error: process 1 of 2 was lost; {folder} is saved at step 17 of 24; "
        "give the same command again"
    )
    assert torch.load(folder / "state.pt")["step"] == 17
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_state_is_read_changes_nothing(stopped, number):
    before = contents(stopped)

    def act(jobs):
        while (stopped / ".writer").read_text() == "":  # process 0 waits for process 1
            time.sleep(0.05)
        time.sleep(1.0)
        for job in jobs:
            job.send_signal(number)

    codes, said = tasks(stopped, "--fate", "late", "--rank", "1", act=act)
    assert codes[0] == 128 + number
    # Process 1 ends of the signal or, if that takes it long, of process 0 having left.
    assert codes[1] in ([130, 75] if number == signal.SIGINT else [-number])
    assert said[0] == [f"stopped by {number.name} before {stopped} was continued"]
    assert contents(stopped) == before


@pytest.mark.parametrize(
    ("fate", "rank", "codes", "words"),
    [
        ("killed", "1", [75, -9], "process 1 of 2 (on HOST, starting) was lost"),
        ("killed", "0", [-9, 75], "process 0 of 2, or what launched it, was lost"),
        ("error", "1", [75, 2], "process 1 of 2 (on HOST, starting) ended: clip7.pt: damaged"),
        ("late", "1", [75, 75], "waited 0.05 min for process 1 of 2 (on HOST, starting)"),
    ],
)
def test_a_process_lost_at_the_start_is_named_and_no_file_changes(
    stopped, fate, rank, codes, words
):
    before = contents(stopped)
    patience = ("--patience", "3" if fate == "late" else "60")
    ended, errors = tasks(stopped, "--fate", fate, "--rank", rank, *patience)
    assert ended == codes
    (said,) = errors[1 - int(rank)]
    assert words.replace("HOST", os.uname().nodename) in said
    assert f"no file in {stopped} was changed; give the same command again" in said
    assert contents(stopped) == before


def test_of_three_only_the_lost_one_is_named(tmp_path):
    codes, errors = tasks(tmp_path, "--kill_at", "9", "--rank", "2", count=3)
    assert codes == [75, 75, -signal.SIGKILL]
    assert "process 2 of 3 " in errors[0][0] and "process 1 of 3" not in errors[0][0]
    assert errors[1] == []


def test_options_that_differ_are_refused(tmp_path):
    """As of a machine that does not see the run's folder."""
    rates = (("--rate", "0.1"), ("--rate", "0.2"))
    codes, errors = tasks(tmp_path, own=rates)
    assert codes == [2, 2] and "--rate is 0.1 in process 0 and 0.2 in process 1" in errors[0][0]
    assert not (tmp_path / "state.pt").exists()


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
