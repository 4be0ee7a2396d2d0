"""Several processes: how they end, and that the launcher says why in one line."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.simulated import ROOT, refuse, run, succeed
from tests.utils.training import toy_training
from tests.utils.training.lives import differences

pytestmark = pytest.mark.slow

TOY = (sys.executable, ROOT / "utils/launch.py", "2", toy_training.__file__)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    succeed(*TOY, "--folder", folder)
    return folder


def test_user_errors_are_said_once(tmp_path):
    assert "unrecognized arguments: --bogus" in refuse(*TOY, "--folder", tmp_path, "--bogus", "1")
    assert "training went wrong at step" in refuse(*TOY, "--folder", tmp_path / "a", "--spoil", "7")
    slow = ("--folder", tmp_path / "b", "--spoil", "7", "--last_words", "2")
    assert "training went wrong at step" in refuse(*TOY, *slow)
    assert "processes" in refuse(sys.executable, ROOT / "utils/launch.py")


def test_a_process_that_dies_ends_the_job_with_its_reason(whole, tmp_path):
    began = time.monotonic()
    done = run(*TOY, "--folder", tmp_path, "--kill_at", "9", "--rank", "1")
    assert time.monotonic() - began < 60
    assert done.returncode == 128 + signal.SIGKILL
    assert "error: process 1 of 2 was killed by SIGKILL" in done.stderr
    assert "Traceback" not in done.stderr
    succeed(*TOY, "--folder", tmp_path)
    assert differences(whole, tmp_path) == []


def test_a_process_lost_while_a_run_is_continued_leaves_every_file(whole, tmp_path):
    run(*TOY, "--folder", tmp_path, "--kill_at", "17", "--rank", "1")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")}
    assert torch.load(tmp_path / "state.pt")["step"] == 17
    for rank in ("1", "0", "1"):
        done = run(*TOY, "--folder", tmp_path, "--fate", "killed", "--rank", rank)
        assert done.returncode == 128 + signal.SIGKILL
        assert f"error: process {rank} of 2 was killed by SIGKILL" in done.stderr
        assert {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")} == before
    succeed(*TOY, "--folder", tmp_path)
    assert differences(whole, tmp_path) == []


def test_restarts_continue_even_what_was_begun_anew(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    launch = (*TOY[:2], "--max_restarts", "1", *TOY[2:])
    output = succeed(*launch, "--folder", tmp_path, "--restart", "--kill_at", "9", "--rank", "1")
    assert f"continuing {tmp_path} at step 9 of 24" in output
    assert differences(whole, tmp_path) == []


def test_signals_are_passed_on(whole, tmp_path):
    words = [str(word) for word in (*TOY, "--folder", tmp_path, "--slow", "0.1")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        while not (tmp_path / "toy_4.t7").exists():
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        errors = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 128 + signal.SIGUSR1
    assert errors.count("stopped by SIGUSR1 after step") == 1 and "error" not in errors
    succeed(*TOY, "--folder", tmp_path)
    assert differences(whole, tmp_path) == []
