"""Several processes: they train as one, and the launcher says in one line why they ended."""

import shutil
import signal
import sys
import time

import pytest
import torch

from tests.killing import started
from tests.simulated import ROOT, refuse, run, succeed
from tests.utils.training import toy_training
from tests.utils.training.lives import contents, differences

pytestmark = pytest.mark.slow

TOY = (sys.executable, ROOT / "utils/launch.py", "2", toy_training.__file__, "--folder")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    succeed(*TOY, folder)
    return folder


def check_continues(whole, folder):
    succeed(*TOY, folder)
    assert differences(whole, folder) == []


def test_two_processes_make_the_same_steps_as_one(whole, tmp_path):
    toy_training.run(tmp_path)
    together, alone = (
        torch.load(folder / "state.pt", weights_only=True)["model"] for folder in (whole, tmp_path)
    )
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bogus", "1"], "unrecognized arguments: --bogus"),
        (["--spoil", "7", "--last_words", "2"], "training failed at step"),
    ],
)
def test_user_errors_are_said_once(tmp_path, options, words):
    assert words in refuse(*TOY, tmp_path, *options)


def test_a_process_lost_while_a_run_is_continued_leaves_every_file(whole, tmp_path):
    began = time.monotonic()
    run(*TOY, tmp_path, "--kill_at", "17", "--rank", "1")
    assert time.monotonic() - began < 60
    before = contents(tmp_path)
    assert torch.load(tmp_path / "state.pt")["step"] == 17
    for rank in ("1", "0"):
        done = run(*TOY, tmp_path, "--fate", "killed", "--rank", rank)
        assert done.returncode == 128 + signal.SIGKILL
        assert f"error: process {rank} of 2 was killed by SIGKILL" in done.stderr
        assert "Traceback" not in done.stderr
        assert contents(tmp_path) == before
    check_continues(whole, tmp_path)


def test_restarts_continue_even_what_was_begun_anew(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    launch = (*TOY[:2], "--max_restarts", "1", *TOY[2:])
    output = succeed(*launch, tmp_path, "--restart", "--kill_at", "9", "--rank", "1")
    assert f"continuing {tmp_path} at step 9 of 24" in output
    assert differences(whole, tmp_path) == []


def test_signals_are_passed_on(whole, tmp_path):
    with started([*TOY, tmp_path, "--slow", "0.1"], tmp_path / "toy_4.t7") as job:
        job.send_signal(signal.SIGUSR1)
        errors = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 128 + signal.SIGUSR1
    assert errors.count("stopped by SIGUSR1 after step") == 1 and "error" not in errors
    check_continues(whole, tmp_path)
