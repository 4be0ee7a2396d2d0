"""Start a program in several processes on this machine, like torchrun.

If a process fails, the others are stopped, and one line says why; the exit code is that of the
process. Signals are passed on to the processes.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import argparse
import logging
import os
import signal
from typing import Any

from utils.base.cores import set_threads
from utils.base.errors import LAUNCHED, PEER_LOST, complain, run_program
from utils.base.options import ArgumentParser, within

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"


def main(arguments: list[str] | None = None) -> None:
    """Launch the processes, wait, and exit with the code of the process that failed first."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("processes", type=within(int, "[1, 1000]"), help="number of processes")
    parser.add_argument("program", help="Python file")
    parser.add_argument(
        "--max_restarts", type=within(int, "[0, 1e9]"), default=0, metavar="N",
        help="starts after the first one",
    )  # fmt: skip
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the program")
    options = parser.parse_args(arguments)

    from torch.distributed import run  # slow to import
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if not options.max_restarts:
        logging.disable(logging.CRITICAL)  # failures are reported here, in one line
    os.environ[LAUNCHED] = "1"
    set_threads(options.processes)
    settings = ["--standalone", "--nproc_per_node", str(options.processes)]
    settings += ["--max_restarts", str(options.max_restarts), "--signals_to_handle", SIGNALS]
    try:
        run.run(run.parse_args([*settings, "--", options.program, *options.arguments]))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=_order_of_blame)
        code, process = failure.exitcode, f"process {rank} of {options.processes}"
        if _has_message(failure):
            complain(failure.message)
            code = 2  # even if a signal stopped the process afterwards
        elif code < 0:
            name = signal.Signals(-code).name
            complain(f"{process} was killed by {name} (SIGKILL is often: out of memory); the same "
                     "command continues")  # fmt: skip
        elif not 128 < code <= 128 + signal.NSIG:
            complain(f"{process} failed with exit code {code}, see above")
        sys.exit(code if code >= 0 else 128 - code)


def _order_of_blame(item: tuple) -> tuple:
    """Sort processes with a message first, and those that ended because of another one last."""
    _, failure = item
    is_consequence = failure.exitcode in (PEER_LOST, -signal.SIGTERM, 128 + signal.SIGTERM)
    return not _has_message(failure), is_consequence, failure.timestamp


def _has_message(failure: Any) -> bool:
    """Whether the process reported an error with `utils.base.errors.complain`."""
    return Path(failure.error_file).is_file()


if __name__ == "__main__":
    run_program(main)
