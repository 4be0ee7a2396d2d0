"""A small simulated data root, made once for all test processes, and a way to run programs."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tests import warm

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, folder: Path | None = None, **environment: str):
    """Run a command as a user would; a name ending .py or .sh lies in the checkout."""
    words = [str(word) for word in command]
    if words[0].endswith(".sh"):
        words = ["bash", str(ROOT / words[0]), *words[1:]]
    elif words[0].endswith(".py"):
        words = [warm.python(), str(ROOT / words[0]), *words[1:]]
    settings = {**os.environ, "PYTHON": warm.python(), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        words,
        cwd=folder or ROOT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
    )


def succeed(*command: object, folder: Path | None = None, **environment: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = run(*command, folder=folder, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refuse(*command: object, folder: Path | None = None, **environment: str) -> str:
    """Run a command that must end with one line of error and exit code 2; returns the line."""
    done = run(*command, folder=folder, **environment)
    assert done.returncode == 2, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that the first of several processes makes, while the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").is_file():
            make(folder)
            (folder / "done").touch()
    return folder


def make_data_root(folder: Path) -> Path:
    """`folder/data` with the tiny world, NaQ annotations and all prepared data sets."""
    return once(folder, lambda folder: _write_data_root(folder / "data")) / "data"


def run_quickstart(folder: Path) -> None:
    """Run the dry quickstart in a folder, and leave `printed.txt` there."""
    printed = succeed("experiments/quickstart.sh", "--dry", "--folder", folder)
    (folder / "printed.txt").write_text(printed)


def _write_data_root(data: Path) -> None:
    succeed(
        "utils/simulate_dataset.py",
        "--data_root", data, "--preset", "tiny", "--features", "egovlp", "clip",
    )  # fmt: skip
    for version, suffix in (("v1", ""), ("v2", "_v2")):
        succeed(
            "utils/create_naq_dataset.py",
            "--type", "nlq", "--em_version", version, "--data_root", data,
        )  # fmt: skip
        for train, name in (("nlq_train", "nlq"), ("nlq_aug_naq_train", "nlq_aug_naq")):
            succeed(
                "utils/prepare_ego4d_dataset.py",
                "--input_train_split", data / f"{train}{suffix}.json",
                "--input_val_split", data / f"nlq_val{suffix}.json",
                "--input_test_split", data / f"nlq_test_unannotated{suffix}.json",
                "--output_save_path", data / "dataset" / f"{name}_official_{version}",
            )  # fmt: skip
