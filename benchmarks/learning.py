"""Whether the fast code learns as well: VSLNet's runs trained again with plain layers.

Each run is repeated with its options, but with the plain layers of `vslnet_step.py` (one random
number per dropped element, no fused attention, float32) and with text encoded in the loop, the
encoder's dropout included. A run that started from another one starts from the plain version of
that one. The same command continues what was interrupted.

    bash experiments/quickstart.sh --seeds 3
    python benchmarks/learning.py experiments/runs/quickstart-small/vslnet/seed*/*
"""

import dataclasses
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import torch
from torch import nn

from benchmarks import vslnet_step
from utils.base.errors import UserError, run_program
from utils.base.files import read_json
from utils.base.machine import keep_freed_memory
from utils.base.options import ArgumentParser
from utils.compare_runs import comparison
from utils.training import loop
from utils.training.evaluations import best_evaluation
from VSLNet.data import Batch
from VSLNet.options import Options
from VSLNet.train import Recipe


def main(arguments: list[str] | None = None) -> None:
    """Train the plain versions, then print both by the name of the run's folder."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs of VSLNet")
    parser.add_argument(
        "--folder", type=Path, default=Path("experiments/runs/plain"), help="of the plain runs"
    )
    options = parser.parse_args(arguments)
    keep_freed_memory()
    plain: dict[Path, Path] = {}  # of each run
    # Runs that start from others come after them.
    trained = {run.resolve(): trained_with(run) for run in options.runs}
    for run, run_options in sorted(trained.items(), key=lambda item: item[1].init_from is not None):
        start = None if run_options.init_from is None else Path(run_options.init_from).resolve()
        if start is not None and start not in plain:
            raise UserError(f"{run} starts from {start}, which is not among the runs; give it too")
        plain[run] = (options.folder / run.parent.name / run.name).resolve()
        loop.train(
            dataclasses.replace(
                run_options,
                text_features="live",
                amp="off",
                compile=False,
                init_from=None if start is None else str(plain[start]),
                model_dir=str(plain[run] / "checkpoints"),
                log_to_tensorboard=None,
            ),
            PlainRecipe,
        )
    rows = []
    for name in dict.fromkeys(run.name for run in trained):
        same = [run for run in trained if run.name == name]
        rows += [(f"{name}, ours", best_evaluation(run)) for run in same]
        rows += [(f"{name}, plain", best_evaluation(plain[run])) for run in same]
    print(comparison(rows))


def trained_with(run: Path) -> Options:
    """The options of a run."""
    files = sorted(run.rglob(Options.OPTIONS_FILE))
    if len(files) != 1:
        raise UserError(f"{run}: {len(files)} {Options.OPTIONS_FILE} under it; name a run")
    return Options(**read_json(files[0]))


class PlainRecipe(Recipe):
    """The same training by plain layers."""

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """The total alone."""
        return {"total": vslnet_step.plain_loss(self.model, batch)}


if __name__ == "__main__":
    run_program(main)
