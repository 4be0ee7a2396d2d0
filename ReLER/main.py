"""ReLER: train it, or predict a split with a trained run (`--mode val` or `test`)."""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from ReLER.options import IGNORED, Options
from utils.base.errors import run_program
from utils.base.machine import keep_freed_memory
from utils.base.options import parse_options


def main() -> None:
    """Parse the options, then train or predict."""
    options = parse_options(Options, __doc__, ignored=IGNORED)
    keep_freed_memory()
    if options.mode == "train":
        from ReLER.train import train

        train(options)
    else:
        from ReLER.infer import infer

        infer(options.init_from or options.run_folder, **vars(options))


if __name__ == "__main__":
    run_program(main, "--batch_size, --eval_bsz, --max_v_l, --hidden_dim")
