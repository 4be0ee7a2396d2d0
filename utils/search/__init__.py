"""Search in videos with trained runs: begin with `load_run` or `load_index`."""

import argparse
from typing import Any

TOP = 5  # windows per question
TOPS = "[1, 1000]"  # its valid values
NMS_THRESHOLD = 0.5  # largest IoU of two windows


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a run's text encoder lies, and what computes."""
    where = "where the run's text encoder lies, if elsewhere"
    parser.add_argument("--text_encoder", metavar="NAME|DIR", help=where)
    parser.add_argument("--device", default="auto", help="auto: the GPU if there is one")


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch at its first use."""
    if name == "load_run":
        from utils.search.search import load_run

        return load_run
    if name in ("load_index", "VideoIndex"):
        from utils.search import index

        return getattr(index, name)
    raise AttributeError(name)
