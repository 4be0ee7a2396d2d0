"""Fixtures every test may use."""

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests.simulated import make_data_root, once, run_quickstart

# Speed is measured by benchmarks, not by tests on a machine that may be busy.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """Reference numbers computed with the published implementation."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id) -> Path:
    """A folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def simulated(shared_folder) -> Path:
    """The data root of the tiny simulated world, shared by all test processes; do not change it."""
    return make_data_root(shared_folder / "simulated")


@pytest.fixture(scope="session")
def quickstart(shared_folder) -> Path:
    """The folder of a dry quickstart, shared by all test processes; do not change it."""
    return once(shared_folder / "quickstart", run_quickstart)


@pytest.fixture(scope="session")
def small_root(shared_folder) -> Path:
    """A data root of five clips with a run of each model, shared as well; do not change it."""
    from tests.bad_inputs import world  # it imports all that the programs import

    return once(shared_folder / "small", lambda folder: world.make(folder / "data")) / "data"


@pytest.fixture
def data(small_root, tmp_path) -> Path:
    """A copy of the small data root, to be changed."""
    return shutil.copytree(small_root, tmp_path / "data")
