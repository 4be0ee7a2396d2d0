"""Freed memory stays with the process."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from utils.base.machine import keep_freed_memory
import torch
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    held = [torch.zeros(2_000_000) for _ in range(20)]  # 8 MB each
step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_steps_need_no_new_pages():
    # What the C library gives back depends on what else was freed; this lets it give all back.
    generous = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, how],
                env=generous,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for how in ("kept", "given back")
    }
    assert faults["given back"] > 10_000
    assert faults["kept"] < faults["given back"] / 4
