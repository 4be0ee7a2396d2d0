"""Standard output and error that nobody reads any more."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.killing import started
from tests.simulated import ROOT
from tests.utils.training import toy_training
from tests.utils.training.lives import differences
from utils.base.tensor_files import load_newest

HELP = f"{sys.executable} {ROOT}/utils/evaluate_ego4d_nlq.py --help"


def shell(command, folder):
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "outputs", ["2>&1 | head -c 1 > one_byte", ">/dev/full 2>/dev/full", ">&- 2>&-"]
)
def test_training_goes_on_without_a_reader(tmp_path, outputs):
    toy_training.run(tmp_path / "alone")
    shell(f"{sys.executable} {toy_training.__file__} --folder run {outputs}", tmp_path)
    assert differences(tmp_path / "alone", tmp_path / "run") == []


def test_a_small_program_ends_quietly_when_its_reader_has_gone(tmp_path):
    done = shell(f"set -o pipefail; {HELP} | head -1; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stderr == "" and done.stdout.splitlines()[0].startswith("usage: ")
    assert done.stdout.splitlines()[-1] == "0"


def test_output_that_is_lost_on_a_full_disk_is_an_error(tmp_path):
    done = shell(f"{HELP} > /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: standard output can't be written: No space left on device\n"


def test_training_saves_and_leaves_when_its_terminal_is_closed(tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        words = [sys.executable, toy_training.__file__, "--folder", str(tmp_path), "--slow", "0.2"]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite itself may run under nohup
        os.execv(sys.executable, words)
    while not (tmp_path / "toy_4.t7").exists():
        time.sleep(0.05)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert load_newest(tmp_path / "state.pt")[0]["step"] >= 4


def test_nohup_keeps_a_training_alive(tmp_path):
    words = ["nohup", sys.executable, toy_training.__file__, "--folder", tmp_path, "--slow", "0.1"]
    with started(words, tmp_path / "toy_4.t7") as job:
        job.send_signal(signal.SIGHUP)
        job.communicate()
    assert job.returncode == 0
    assert load_newest(tmp_path / "state.pt")[0]["step"] == 24


@pytest.mark.slow
def test_several_processes_go_on_without_a_reader(tmp_path):
    launch = f"{sys.executable} {ROOT}/utils/launch.py 2 {toy_training.__file__}"
    done = shell(f"{launch} --folder run 2>&1 | head -c 1 > one_byte", tmp_path)
    assert done.returncode == 0
    assert load_newest(tmp_path / "run" / "state.pt")[0]["step"] == 24


BARS = """
import utils.base.environment
import time
from tqdm import tqdm
from utils.base.errors import UserError, run_program, warn

def main():
    for number in tqdm(range(20), "outer", delay=0):
        for _ in tqdm(range(20), "inner", leave=False):
            time.sleep(0.001)
        if number == 9:
            warn("clip \\x1b[31mred\\r\\n.pt")
    print("a title \\x1b]0;x\\x07 \\ud800, a tab\\t.")
    raise UserError("clip \\x1b[2J.pt is damaged")

run_program(main)
"""


def test_logs_have_few_lines_of_progress_and_no_control_characters():
    done = subprocess.run(
        [sys.executable, "-c", BARS], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == "a title \\x1b]0;x\\x07 \\ud800, a tab\t.\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("outer:   0%") and lines[-2].startswith("outer: 100%")
    assert r"warning: clip \x1b[31mred .pt" in lines
    assert lines[-1] == r"error: clip \x1b[2J.pt is damaged"
    assert len(lines) < 8 and "\x1b" not in done.stderr
