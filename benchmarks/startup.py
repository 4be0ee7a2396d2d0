"""How long stage 1 takes to its first step, on a simulated data set as large as Ego4D's.

Makes the data set (the simulated world, NaQ, the prepared data set), then starts the training of
each model twice: the first start builds its stores of features and text, the second finds them.
Each is stopped after its first step.

    python benchmarks/startup.py                    # in a folder that is deleted: 30 minutes, 12 GB
    python benchmarks/startup.py --folder big       # in one that is kept, and used again
    python benchmarks/startup.py --preset small     # a minute
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(CODE_ROOT)

from benchmarks.timing import circumstances
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser

STEP_DONE = re.compile(rb"training, epoch 1/\d+:[^\r]*\| [1-9]\d*/\d+ \[")
FEATURE = "egovlp"


def main(arguments: list[str] | None = None) -> None:
    """Make the data set if it isn't there, and start both trainings twice."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="full", help="of the simulated world")
    parser.add_argument("--folder", type=Path, help="where it is made and kept")
    parser.add_argument("--batch_size", type=int, default=32, help="queries a step")
    options = parser.parse_args(arguments)
    print(f"{options.preset} world, batch {options.batch_size}, {circumstances()}")
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make(folder.resolve() / "data", options.preset)
        for model in ("VSLNet", "ReLER"):
            for start in ("stores built", "stores there"):
                seconds = first_step(model, folder.resolve(), options.batch_size)
                print(f"{model}, {start}: {seconds:.1f} s to the first step", flush=True)


def make(data: Path, preset: str) -> None:
    """The data set, by the programs that users run."""
    prepared = data / "dataset" / "nlq_aug_naq_official_v1"
    if (prepared / "test.json").exists():
        return
    for name, *words in (
        ("simulate_dataset", "--data_root", data, "--preset", preset),
        ("create_naq_dataset", "--type", "nlq", "--em_version", "v1", "--data_root", data),
        (
            *("prepare_ego4d_dataset", "--output_save_path", prepared),
            *("--input_train_split", data / "nlq_aug_naq_train.json"),
            *("--input_val_split", data / "nlq_val.json"),
            *("--input_test_split", data / "nlq_test_unannotated.json"),
        ),
    ):
        began = time.perf_counter()
        command = [sys.executable, CODE_ROOT / "utils" / f"{name}.py", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{name} failed: {done.stderr[-300:]}")
        print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)


def first_step(model: str, folder: Path, batch_size: int) -> float:
    """Seconds from the command to the end of the first step; the training is stopped then."""
    script = CODE_ROOT / model / "scripts" / "train_naq.sh"
    words = ["cpu", "nlq", FEATURE, folder / f"run_{model}", "2.5", "--text_encoder", "minilm"]
    words += ["--batch_size", str(batch_size), "--restart"]
    environment = os.environ | {"NAQ_ROOT": str(folder), "PYTHON": sys.executable}
    began = time.perf_counter()
    with subprocess.Popen(
        ["bash", script, *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as training:
        said = b""
        while not STEP_DONE.search(said):
            some = os.read(training.stderr.fileno(), 1 << 16)
            if not some:
                raise UserError(f"{model} ended before its first step: {said[-300:].decode()}")
            said = (said + some)[-10_000:]
        seconds = time.perf_counter() - began
        os.killpg(training.pid, signal.SIGTERM)
        while os.read(training.stderr.fileno(), 1 << 16):
            pass
    return seconds


if __name__ == "__main__":
    run_program(main)
