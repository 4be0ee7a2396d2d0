"""Kill training runs at many points, continue them, and compare with runs that were left alone.

    python tests/soak.py                          # the matrix: models x processes x kill points
    python tests/soak.py --kills 50               # a larger one
    python tests/soak.py --kills 0 --cycles 500   # start, kill, continue a tiny run; any leaks?

Every life of a run is a fork of this process, in which everything is imported already: it takes
under a second. Exits with 1 if anything differs or is left behind.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: only a process of one thread forks

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
import torch._dynamo  # what a run would import: once, before the forks
import torch.utils.tensorboard
from terminaltables import AsciiTable
from tqdm import tqdm

import ReLER.options
import ReLER.train
import VSLNet.options
import VSLNet.train
from tests.simulated import succeed
from tests.utils.training import toy_training
from tests.utils.training.lives import Kill, differences, live, operations
from utils.base.errors import run_program
from utils.base.options import ArgumentParser

TINY = {"text_encoder": "minilm", "epochs": 3, "batch_size": 16, "save_every_minutes": 0.0}
Start = Callable[[Path], None]


def recipes(data: Path) -> dict[str, Start]:
    """What trains each model in a folder, as small as can be."""
    common = {"task": "nlq_official_v1", "fv": "egovlp", "data_root": str(data), **TINY}
    common["eval_gt_json"] = str(data / "nlq_val.json")
    small = {"hidden_dim": 16, "bi_num_attention_heads": 2, "conditioned_span_pred_num_heads": 2}
    small |= {"v_intermediate_size": 32, "intermediate_size": 32, "max_v_l": 24}

    def vslnet(folder: Path) -> None:
        chosen = {"model_dir": str(folder), "eval_period": 3, "max_pos_len": 16}
        chosen |= {"dim": 16, "num_heads": 2}
        VSLNet.train.train(VSLNet.options.Options(**common, **chosen))

    def reler(folder: Path) -> None:
        chosen = {"results_root": str(folder), "eval_period": 3}
        ReLER.train.train(ReLER.options.Options(**common, **small, **chosen))

    return {"VSLNet": vslnet, "ReLER": reler}


def make_data(folder: Path) -> Path:
    """The tiny simulated world, prepared."""
    data = folder / "data"
    succeed("utils/simulate_dataset.py", "--data_root", data, "--preset", "tiny",
            "--features", "egovlp", "clip")  # fmt: skip
    succeed("utils/prepare_ego4d_dataset.py",
            "--input_train_split", data / "nlq_train.json",
            "--input_val_split", data / "nlq_val.json",
            "--input_test_split", data / "nlq_test_unannotated.json",
            "--output_save_path", data / "dataset/nlq_official_v1")  # fmt: skip
    return data


def matrix(folder: Path, data: Path, kills: int, seed: int) -> list[list]:
    """One row a model and number of processes, with what differed."""
    rows = []
    draw = random.Random(seed)
    for name, train in recipes(data).items():
        for processes in (1, 2):
            began = time.monotonic()
            whole = folder / f"{name}{processes}-whole"
            counted = operations(partial(train, whole), processes, folder / "counted")
            steps = torch.load(next(whole.rglob("state.pt")), weights_only=True)["step"]
            kinds = {"step": steps - 1, "evaluation": 2, "file operation": counted}
            wrong: list[str] = []
            killed = dict.fromkeys(kinds, 0)
            bar = tqdm(range(kills), desc=f"{name}, {processes} processes", leave=False)
            for number in bar:
                # Half of them at file operations, among which are all of a checkpoint's.
                kind = ("file operation", "step", "file operation", "evaluation")[number % 4]
                kill = Kill(kind, draw.randint(1, kinds[kind]), draw.randrange(processes))
                if kind == "file operation":
                    kill = kill._replace(rank=0)  # which writes
                run = folder / f"{name}{processes}-{number}"
                codes = live(partial(train, run), processes, kill)
                killed[kind] += -signal.SIGKILL in codes
                rest = live(partial(train, run), processes)
                if any(rest):
                    wrong.append(f"{kill}: exit codes {rest}")
                wrong += [f"{kill}: {what}" for what in differences(whole, run)]
                shutil.rmtree(run)
            spent = f"{time.monotonic() - began:.0f} s"
            shares = [f"{killed[kind]}" for kind in kinds]
            rows.append([name, processes, steps, counted, *shares, spent, "; ".join(wrong) or "-"])
    return rows


def soak(folder: Path, cycles: int, seed: int) -> list[list]:
    """Kill a tiny run at any time, by any signal, continue it until it ends; and again."""
    draw = random.Random(seed)
    begun = {
        "child processes": children(),
        "shared memory": shared_memory(),
        "open files": open_files(),
    }
    done = dict.fromkeys(("SIGKILL", "SIGTERM", "SIGUSR1", "finished"), 0)
    wrong: list[str] = []
    wholes = {}
    for processes in (1, 2):
        wholes[processes] = folder / f"whole{processes}"
        live(partial(toy, wholes[processes]), processes)
    files = sorted(path.name for path in wholes[1].iterdir())
    run, processes = folder / "run", 1
    for _ in tqdm(range(cycles), desc="start, kill, continue", unit="cycle"):
        how = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1))
        after = draw.uniform(0.02, 1.0)
        codes = live(partial(toy, run), processes, patience=after, impatience=how)
        if not any(codes):
            done["finished"] += 1
            wrong += differences(wholes[processes], run)
            left = sorted(path.name for path in run.iterdir())
            wrong += [f"files {left}"] if left != files else []
            shutil.rmtree(run)
            processes = 3 - processes
        else:
            done[how.name] += 1
            told = 128 + how
            if how != signal.SIGKILL and not set(codes) <= {0, told, -how, 75}:
                wrong.append(f"{how.name}: exit codes {codes}")
    left = {
        "child processes": children(),
        "shared memory": shared_memory(),
        "open files": open_files(),
    }
    rows = [[name, count] for name, count in done.items()]
    rows += [[f"{what} before and after", f"{begun[what]} {left[what]}"] for what in begun]
    if begun != left:
        wrong.append(f"left behind: {begun} before, {left} after")
    return [*rows, ["wrong", "; ".join(wrong) or "-"]]


def toy(folder: Path) -> None:
    """A linear map, 24 steps, with an evaluation or a saved state at each."""
    toy_training.train(toy_training.Options(folder=str(folder), slow=0.01))


def children() -> int:
    """Processes that descend from this one."""
    tasks = Path("/proc").glob("[0-9]*/stat")
    parents = {}
    for task in tasks:
        try:
            fields = task.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has just ended
        parents[int(task.parent.name)] = int(fields[1])
    return sum(parent == os.getpid() for parent in parents.values())


def shared_memory() -> int:
    """Files in shared memory of this user."""
    files = list(Path("/dev/shm").iterdir())
    return sum(file.stat().st_uid == os.getuid() for file in files if file.exists())


def open_files() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def main(arguments: list[str] | None = None) -> None:
    """Run the matrix, then the cycles, and print a table of each."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="a model and processes")
    parser.add_argument("--cycles", type=int, default=0, metavar="N", help="of the tiny run")
    parser.add_argument("--data_root", type=Path, help="tiny simulated data (default: made anew)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the kill points")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if chosen.kills:
            data = chosen.data_root or make_data(folder)
            head = ["model", "processes", "steps", "file operations"]
            head += ["killed at a step", "in an evaluation", "at a file operation", "took", "wrong"]
            rows = matrix(folder, data, chosen.kills, chosen.seed)
            print(AsciiTable([head, *rows]).table)
            failed |= any(row[-1] != "-" for row in rows)
        if chosen.cycles:
            rows = soak(folder, chosen.cycles, chosen.seed)
            print(AsciiTable([["cycles", chosen.cycles], *rows]).table)
            failed |= rows[-1][-1] != "-"
    sys.exit(int(failed))


if __name__ == "__main__":
    run_program(main)
