"""Standard output and error that nobody reads any more."""

import subprocess
import sys

import pytest

from tests.simulated import ROOT
from tests.utils import toy_training

HELP = f"{sys.executable} {ROOT}/utils/evaluate_ego4d_nlq.py --help"


def shell(command, folder):
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "outputs",
    [
        "2>&1 | head -c 1 > one_byte",
        ">/dev/full 2>/dev/full",
        ">&- 2>&-",
        "> >(sleep 0.1) 2> >(sleep 0.1)",
    ],
)
def test_training_goes_on_without_a_reader(tmp_path, outputs):
    shell(f"{sys.executable} {toy_training.__file__} --folder run --slow 0.05 {outputs}", tmp_path)
    shell(f"{sys.executable} {toy_training.__file__} --folder alone", tmp_path)
    state, alone = ((tmp_path / name / "toy_24.t7").read_bytes() for name in ("run", "alone"))
    assert state == alone
    left, expected = (
        {file.name for file in (tmp_path / name).iterdir()} for name in ("run", "alone")
    )
    assert left == expected


def test_a_small_program_ends_quietly_when_its_reader_has_gone(tmp_path):
    done = shell(f"set -o pipefail; {HELP} | head -1; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stderr == "" and done.stdout.splitlines()[0].startswith("usage: ")
    assert done.stdout.splitlines()[-1] == "0"


def test_output_that_is_lost_on_a_full_disk_is_an_error(tmp_path):
    done = shell(f"{HELP} > /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: standard output can't be written: No space left on device\n"
