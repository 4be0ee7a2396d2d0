"""How a program ends and warns: what is quoted of a library's words, and where a warning stands."""

import errno
import os
import re
import sys

import pytest
from tqdm import tqdm

from utils.base.errors import UserError, in_brief, is_out_of_memory, run_program, warn


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


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (UserError("file a:\n bad"), 2, "error: file a: bad\n"),
        (OSError(28, "No space left on device", "b"), 2, "error: No space left on device (b)\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            2,
            "error: the GPU is out of memory (tried to allocate 2.00 gib); lower --size, or try "
            "--amp bf16, --feature_device cpu, fewer processes; what was saved is intact\n",
        ),
    ],
)
def test_programs_end_with_one_line(fault, code, words, capsys):
    def main():
        raise fault

    with pytest.raises(SystemExit) as stopped:
        run_program(main, "--size")
    assert stopped.value.code == code
    assert capsys.readouterr().err == words


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
def test_errors_that_say_that_memory_is_used_up_are_known(error, expected):
    assert is_out_of_memory(error) is expected
