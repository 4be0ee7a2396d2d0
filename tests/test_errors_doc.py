"""Every bad input ends in one line that says what is wrong, and docs/errors.md lists those lines.

`python -m tests.test_errors_doc` writes the page anew.
"""

import contextlib
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from tests import bad_inputs
from utils.base.errors import run_program

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
HEAD = """\
# What is said about bad inputs

A program that can't go on prints one line on stderr, `error: ...`, and ends with exit code 2,
without a traceback and without running anything that lay in a file. These inputs were tried; `DATA`
is the data root, and `(...)` are the words of a library. The table is checked by
`tests/test_errors_doc.py`; `python -m tests.test_errors_doc` writes it anew.

| what is wrong | program | what it says |
|---|---|---|
"""


def line_of(case: bad_inputs.Case, whole: Path, work: Path) -> str:
    """The line that a case ends with, when run in an empty folder `work`."""
    data = work / "data"
    shutil.copytree(whole, data)
    case.damage(data)
    main, *arguments = case.command(data)
    said = io.StringIO()
    with (
        contextlib.chdir(work),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
        patch.object(sys, "argv", [case.program]),
        pytest.raises(SystemExit) as end,
    ):
        run_program(lambda: main([str(argument) for argument in arguments]))
    errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    assert end.value.code == 2 and len(errors) == 1, (case.what, said.getvalue())
    assert said.getvalue().rstrip().endswith(errors[0]), (case.what, said.getvalue())
    assert not list(work.rglob("canary*")), case.what
    line = errors[0].replace(str(data), "DATA").replace(f"{ROOT}/", "")
    return re.sub(r"cut off \(.*\);", "cut off (...);", line)  # differs with a library's version


def row(case: bad_inputs.Case, line: str) -> str:
    """A row of the table."""
    line = line.replace("|", "\\|")
    return f"| {case.what} | `{case.program}` | `{line}` |"


def rows_of_page() -> list[str]:
    """The committed rows, without the table's head."""
    return PAGE.read_text().removeprefix(HEAD).splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The data root before anything is damaged."""
    return bad_inputs.make(tmp_path_factory.mktemp("bad_inputs") / "data")


@pytest.mark.parametrize("number", range(len(bad_inputs.CASES)))
def test_a_bad_input_ends_in_the_line_of_the_page(whole, tmp_path, number):
    case = bad_inputs.CASES[number]
    assert row(case, line_of(case, whole, tmp_path)) == rows_of_page()[number]


def test_the_page_lists_the_cases_and_nothing_else():
    assert PAGE.read_text().startswith(HEAD)
    assert len(rows_of_page()) == len(bad_inputs.CASES)
    assert not re.search(r"/tmp|/home|/work", PAGE.read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        whole_root = bad_inputs.make(Path(folder) / "whole")
        rows = []
        for case in bad_inputs.CASES:
            with tempfile.TemporaryDirectory(dir=folder) as work:
                rows.append(row(case, line_of(case, whole_root, Path(work))))
    PAGE.write_text(HEAD + "\n".join(rows) + "\n")
