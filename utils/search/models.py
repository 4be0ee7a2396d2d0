"""The model packages: the one place that names them. Their modules are imported when asked for."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from utils.base.errors import UserError
from utils.base.tensor_files import load_safely


class Package(NamedTuple):
    """What tells a model's runs and checkpoints from those of others."""

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
    """The package whose options lie beside the checkpoint, or None."""
    beside = (p for p in PACKAGES if (checkpoint.parent / p.options_file).is_file())
    return next(beside, None)


def package_of(checkpoint: Path) -> Package:
    """The package whose run folder this is, or else whose weights the checkpoint holds.

    Raises UserError if it is a checkpoint of none.
    """
    if (package := package_of_run(checkpoint)) is not None:
        return package
    from argparse import Namespace

    content = load_safely(checkpoint, allow=(Namespace,))
    for package in PACKAGES:
        if isinstance(content, dict) and package.key in content:
            return package
    names = ", ".join(package.name for package in PACKAGES)
    raise UserError(f"{checkpoint}: a checkpoint of none of {names}")
