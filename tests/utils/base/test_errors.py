"""How a program ends and warns: what is quoted of a library's words, and where a warning stands."""

import errno
import os
import re
import sys

import pytest
from tqdm import tqdm

from tests.simulated import refuse
from utils.base.errors import in_brief, is_out_of_memory, warn


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        ("no directory. It may be cut.", "no directory. It may be cut"),
        ("a long line which does not end in time", "a long line which does not..."),
        ("first line.\nsecond line", "first line"),
        ("  spaces   between ", "spaces between"),
        ("", "ValueError"),
        ("\n\n", "ValueError"),
    ],
)
def test_a_quote_is_a_line_cut_at_a_word(words, quoted):
    assert in_brief(ValueError(words), 32) == quoted
    assert len(quoted) <= 32


def test_a_warning_stands_on_a_line_of_its_own_beside_a_bar(capsys):
    with tqdm(total=2, desc="reading", file=sys.stderr, delay=0):
        warn("it is cut off")
    said = capsys.readouterr().err
    assert "warning: it is cut off" in re.split("[\r\n]", said)
    assert said.count("reading") >= 2  # the bar goes on under it


def test_out_of_memory_is_one_line():
    program = (
        "import sys; sys.path.insert(0, '.'); import torch; "
        "from utils.base.errors import run_program; "
        "run_program(lambda: torch.ones(1 << 44), '--size')"
    )
    line = refuse(sys.executable, "-c", program)
    assert line.removeprefix("error: the machine is out of memory ") == (
        f"(tried to allocate {4 << 44} bytes); lower --size, or try --amp bf16, --feature_device "
        "cpu, fewer processes; what was saved is intact"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "features.npy"), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "features.npy"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_says_that_memory_is_used_up(error, expected):
    assert is_out_of_memory(error) is expected
