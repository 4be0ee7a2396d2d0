"""Every program reads mutated inputs and either does its work or says in one line what is wrong.

A few of each kind, the same in every run; thousands, other ones each time, with `-m long`. A fault
found becomes a case of test_corpus.py.
"""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz import models, project
from tests.fuzz.kinds import CACHE, KINDS, PACKED, Kind


@pytest.fixture(scope="module")
def root(tmp_path_factory, request):
    """The data root, and an empty working folder in which no canary may appear."""
    folder = tmp_path_factory.mktemp("fuzz")
    work = folder / "work"
    work.mkdir()
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.chdir(work)
    models.write_runs(project.make(folder / "data"))
    return folder / "data"


def attempt(root: Path, kind: Kind, content: bytes) -> None:
    """Give one input to the programs of its kind."""
    file = kind.file(root)
    for program in kind.programs:
        for derived in kind.derived:
            remove(root / derived)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # it may be mapped: what is mapped must stay
        file.write_bytes(content)
        main, *arguments = program(root)
        project.ends_well(main, *arguments)
        assert not Path("canary").exists()


def remove(path: Path) -> None:
    """A file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def fuzz(root: Path, kind: Kind, inputs: int, same: bool) -> None:
    """Give the programs that many harmed inputs, then what was there before."""
    whole = shutil.copytree(root, root.with_name("whole"))

    @settings(
        max_examples=inputs, deadline=None, database=None, derandomize=same,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        report_multiple_bugs=False,
    )  # fmt: skip
    @given(content=kind.harmed(root))
    def try_one(content: bytes) -> None:
        attempt(root, kind, content)

    try:
        try_one()
    finally:
        shutil.rmtree(root)
        whole.rename(root)


@pytest.mark.parametrize("name", KINDS)
def test_a_few(root, name):
    fuzz(root, KINDS[name], KINDS[name].quick, same=True)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_thousands(root, name):
    fuzz(root, KINDS[name], KINDS[name].long, same=False)


def test_there_are_many():
    assert sum(kind.quick for kind in KINDS.values()) >= 150
    assert sum(kind.long for kind in KINDS.values()) >= 2000


def test_unharmed_inputs_are_read(root):
    """Else programs could refuse everything, and the rest would show nothing."""
    for program in {program for kind in KINDS.values() for program in kind.programs}:
        main, *arguments = program(root)
        assert project.ends_well(main, *arguments) is None, program.__name__
        remove(root / PACKED)
    remove(root / CACHE)
