"""The table of model packages, whose modules are imported at their first use."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from utils.base.errors import UserError
from utils.base.tensor_files import load_safely
from utils.training.checkpoints import SHARED


class Package(NamedTuple):
    """A model package, and how its runs and checkpoints are recognised."""

    name: str
    options_file: str  # in a run folder
    key: str  # of a checkpoint's content

    def module(self, name: str) -> ModuleType:
        """A module of the package: `weights`, `infer` or `search`."""
        return importlib.import_module(f"{self.name}.{name}")


PACKAGES = (
    Package("VSLNet", "configs.json", "video_affine.linear.conv1d.weight"),
    Package("ReLER", "opt.json", "model"),
    Package("GroundNLQ", "options.json", "state_dict"),
)


def package_of_run(checkpoint: Path) -> Package | None:
    """The package whose options file lies beside the checkpoint, or None."""
    packages = (p for p in PACKAGES if (checkpoint.parent / p.options_file).is_file())
    return next(packages, None)


def package_of(checkpoint: Path) -> Package:
    """The package of a checkpoint, by the options beside it or else by its weights.

    Raises UserError if it is a checkpoint of no package.
    """
    if (package := package_of_run(checkpoint)) is not None:
        return package
    if checkpoint.name == SHARED:
        raise UserError(f"{checkpoint}: its run's options are missing beside it; share it again")
    from argparse import Namespace

    content = load_safely(checkpoint, allow=(Namespace,))
    for package in PACKAGES:
        if isinstance(content, dict) and package.key in content:
            return package
    names = ", ".join(package.name for package in PACKAGES)
    raise UserError(f"{checkpoint}: a checkpoint of none of {names}")
