"""Training runs that are killed at chosen points, continued, and compared with one left alone.

    python tests/utils/training/lives.py --kills 40 --seed 7

Each life of a run is a fork of this process, in which everything is imported already: it takes
under a second. Exits with 1 if anything differs or is left behind.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: only a process of one thread forks
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of lost connections, at length

import argparse
import io
import itertools
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[3])

import torch
import torch._dynamo  # this and the next: imported once, before the forks
import torch.utils.tensorboard
from terminaltables import AsciiTable
from tqdm import tqdm

from tests.killing import at, die, file_operations, watch
from tests.simulated import make_data_root
from tests.utils.training import toy_training
from utils.base.errors import run_program
from utils.training.steps import Stepper

Train = Callable[[Path], None]  # trains in a folder, or continues what is there
PATIENCE = 300  # seconds until a process is ended by SIGALRM
# Their content names the folder or counts the starts.
UNLIKE = ("made.json", "configs.json", "opt.json", "options.json")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Within, no file can be written beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Kill(NamedTuple):
    """Where a process kills itself: ahead of a step, of a file operation, or amid a write."""

    kind: str  # "step", "file operation" or "write"
    number: int  # of the step or operation, from 1; "write": of the step before it
    rank: int = 0

    def arm(self, folder: Path) -> None:
        """Prepare this process for it, for good."""

        def die_amid_the_next_state() -> None:
            size = next(folder.rglob("state.pt")).stat().st_size // 2
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        if self.kind == "file operation":
            watch(folder, at(self.number, die))
        else:
            reached = at(self.number, die if self.kind == "step" else die_amid_the_next_state)
            backward = Stepper.backward

            def counted(*arguments: Any) -> Any:
                reached()
                return backward(*arguments)

            Stepper.backward = counted


def live(
    train: Train,
    folder: Path,
    processes: int = 1,
    kill: Kill | None = None,
) -> list[int]:
    """Run `train` in forked processes; returns their exit codes, negative for a signal."""
    port = free_port()
    pids = [_fork(train, folder, rank, processes, port, kill) for rank in range(processes)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _fork(
    train: Train, folder: Path, rank: int, processes: int, port: int, kill: Kill | None
) -> int:
    if pid := os.fork():
        return pid
    code: Any = 1
    signal.alarm(PATIENCE)
    try:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
        # The bars' lock is shared by forks: one killed while it holds it would stop us all.
        tqdm.set_lock(threading.RLock())
        log = sys.stdout = sys.stderr = io.StringIO()
        if kill and kill.rank == rank:
            kill.arm(folder)
        run_program(partial(train, folder))
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        if code in (1, 2):
            os.write(2, log.getvalue().encode())
        os._exit(code)  # nothing of the parent's at exit


def free_port() -> int:
    """A port nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def differences(whole: Path, other: Path) -> list[str]:
    """Files of two folders of runs that differ: tensors bit by bit, the rest by bytes."""
    names, others = ({str(f.relative_to(r)) for f in r.rglob("*.*")} for r in (whole, other))
    wrong = [f"{name} is only in one" for name in names ^ others if "events.out" not in name]
    for name in sorted(names & others):
        one, two = whole / name, other / name
        if name.endswith((".pt", ".t7")):
            # A previous state may be of another step: it depends on where the run was stopped.
            alike = ".previous" in name or same(_load(one), _load(two))
        elif one.name in UNLIKE or "events.out" in name:
            alike = True
        else:
            alike = one.read_bytes() == two.read_bytes()
        wrong += [] if alike else [f"{name} differs"]
    return wrong


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder but hidden ones."""
    return {file.name: file.read_bytes() for file in folder.glob("[!.]*") if file.is_file()}


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal, tensors to the last bit; options name folders: left out."""
    if torch.is_tensor(one):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        kept = [key for key in one if key not in ("options", "opt")]
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in kept)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def _load(file: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, weights_only=True)


def models(data: Path) -> dict[str, Train]:
    """What trains each model in a folder, as small as can be."""
    import GroundNLQ.options
    import GroundNLQ.train
    import ReLER.options
    import ReLER.train
    import VSLNet.options
    import VSLNet.train

    common: dict[str, Any] = {
        "task": "nlq_official_v1", "fv": "egovlp", "data_root": str(data),
        "eval_gt_json": str(data / "nlq_val.json"), "text_encoder": "minilm", "epochs": 3,
        "batch_size": 16, "eval_period": 3, "save_every_minutes": 0.0,
    }  # fmt: skip
    vslnet = {"max_pos_len": 16, "dim": 16, "num_heads": 2}
    reler = {"hidden_dim": 16, "bi_num_attention_heads": 2, "conditioned_span_pred_num_heads": 2}
    reler |= {"v_intermediate_size": 32, "intermediate_size": 32, "max_v_l": 24}
    groundnlq = {"dim": 16, "num_heads": 2, "arch": [1, 1, 1, 0, 2], "optimizer": "muon"}

    def train_model(package: Any, place: str, size: dict, folder: Path) -> None:
        package.train.train(package.options.Options(**{place: str(folder)}, **common, **size))

    return {
        "a linear layer": toy_training.run,
        "VSLNet": partial(train_model, VSLNet, "model_dir", vslnet),
        "ReLER": partial(train_model, ReLER, "results_root", reler),
        "GroundNLQ": partial(train_model, GroundNLQ, "results_root", groundnlq),
    }


def matrix(folder: Path, data: Path, kills: int, seed: int) -> list[list]:
    """One row a model and number of processes: where it was killed, and what differed."""
    rows, draw = [], random.Random(seed)
    for (name, train), processes in itertools.product(models(data).items(), (1, 2)):
        begun = time.monotonic()
        whole = folder / f"{name}{processes}"
        counted = partial(count_operations, train, folder / "operations")
        assert not any(live(counted, whole, processes))
        operations = int((folder / "operations").read_text())
        steps = torch.load(next(whole.rglob("state.pt")), weights_only=True)["step"]
        most = {"file operation": operations, "step": steps - 1, "write": steps - 1}
        killed, wrong = dict.fromkeys(most, 0), []
        for number in range(kills):
            kind = ("file operation", "step", "write")[number % 3]
            rank = draw.randrange(processes) if kind == "step" else 0  # which writes
            kill = Kill(kind, draw.randint(1, most[kind]), rank)
            run = folder / "run"
            codes = live(train, run, processes, kill)
            killed[kind] += bool({-signal.SIGKILL, -signal.SIGXFSZ} & set(codes))
            rest = live(train, run, processes)
            wrong += [f"{kill}: exit codes {rest}"] if any(rest) else []
            wrong += [f"{kill}: {difference}" for difference in differences(whole, run)]
            shutil.rmtree(run)
        if sum(killed.values()) < kills:
            wrong.append(f"only {sum(killed.values())} of {kills} were killed")
        spent = f"{time.monotonic() - begun:.0f} s"
        rows.append([name, processes, steps, *killed.values(), spent, "; ".join(wrong) or "-"])
    return rows


def count_operations(train: Train, file: Path, folder: Path) -> None:
    """Train, and write down how often the main process changed files."""
    calls = itertools.count()
    with file_operations(folder, lambda: next(calls)):
        train(folder)
    if os.environ["RANK"] == "0":
        file.write_text(str(next(calls)))


def leftovers() -> dict[str, int]:
    """What killed processes could leave: children, shared memory of this user, open files."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    shared = [path for path in Path("/dev/shm").iterdir() if path.stat().st_uid == os.getuid()]
    files = list(Path("/proc/self/fd").iterdir())
    return {"processes": len(children), "shared memory": len(shared), "open files": len(files)}


def main() -> None:
    """Kill, continue and compare; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="a model and number of processes")
    parser.add_argument("--data_root", type=Path, help="tiny simulated data (default: made anew)")
    parser.add_argument("--seed", type=int, default=0, help="of the kill points")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    head = ["model", "processes", "steps", "killed at a file operation", "at a step"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = chosen.data_root or make_data_root(folder / "simulated")
        before = leftovers()
        rows = matrix(folder, data, chosen.kills, chosen.seed)
    print(AsciiTable([[*head, "amid a write", "took", "wrong"], *rows]).table)
    if (after := leftovers()) != before:
        sys.exit(f"left behind: {before} became {after}")
    sys.exit({row[-1] for row in rows} != {"-"})


if __name__ == "__main__":
    main()
