"""A run is a folder: options, scores, checkpoints, predictions, and the state to continue from.

It may be killed at any moment: files are written atomically, logs are truncated to where the state
was saved, and the same command continues from the last saved state.
"""

import dataclasses
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.base.errors import UserError
from utils.base.files import atomic_write, read_json, to_json, write_json
from utils.base.leftovers import remove_leftovers
from utils.base.tensor_files import load_newest, save_atomically
from utils.training.checkpoints import find_checkpoint
from utils.training.options import TrainingOptions
from utils.training.processes import Processes, restarted
from utils.training.writers import SoleWriter

KEPT_CHECKPOINTS = 3
MADE_FILE = "made.json"
PACKAGES = ("torch", "numpy", "transformers")
CODE = Path(__file__).resolve().parents[2]


def how_made(inputs: Iterable[Path]) -> dict:
    """Command, versions, machine and hashes of input files, JSON-able."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "folder": str(Path.cwd()),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "machine": _machine(),
        "inputs": {str(file): _hash(file) for file in inputs if file.is_file()},
    }


def _commit() -> str | None:
    """The checkout's commit, marked if files differ from it; None outside of git."""
    describe = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty= with changes")
    try:
        git = subprocess.run(["git", "-C", str(CODE), *describe], capture_output=True, text=True)
    except OSError:
        return None
    return git.stdout.strip() or None


def _machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} threads"


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=10)).hexdigest()


class Run:
    """A training run and its folder; as a context no other run can write in the folder.

    Only the main process writes. When a run is continued, only `free` options may change.
    `MADE_FILE` lists `how_made` of each start. `descriptions` are contents of further JSON files by
    name, written at each start.
    """

    def __init__(
        self,
        options: TrainingOptions,
        processes: Processes,
        descriptions: Mapping[str, Any],
    ):
        self.folder = options.run_folder
        self.processes = processes
        self.history: list[dict] = []
        self.checkpoints: list[Path] = []
        self._options = options
        self._values = dataclasses.asdict(options)
        self._free = {f.name for f in dataclasses.fields(options) if f.metadata["free"]}
        self._descriptions = descriptions
        self._log_file = self.folder / options.LOG_FILE if options.LOG_FILE else None
        self._tables = self.folder / "eval_results.txt"
        self._board = None
        self._writer = SoleWriter(self.folder)
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Run":
        """Raises UserError if another training is writing in the folder."""
        if self.processes.main:
            self._writer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.processes.main:
            self._writer.__exit__()

    @property
    def state_file(self) -> Path:
        """The state to continue from; the previous one is kept beside it."""
        return self.folder / "state.pt"

    def start(self, restart: bool = False) -> dict | None:
        """Prepare the folder; returns the state to continue from, or None for a new run.

        No file is changed before all processes have the state.
        """
        self.processes.tell("ready to start")
        self._check_same_options()
        starts_over = restart and not restarted()
        state, file = None, self.state_file
        if not starts_over:
            saved = self._read_state() if self.processes.main else None
            state, file = self.processes.broadcast(saved)
        if state is not None:
            self._check_unchanged(state["options"])
            self.history = state["history"]
            self.checkpoints = [self.folder / name for name in state["kept"]]
        self.processes.barrier()
        if self.processes.main:
            self._writer.check()
            if starts_over:
                self._clear()
            self._clean_up(state["sizes"] if state else {})
            if file != self.state_file:
                file.replace(self.state_file)  # so that no damaged file becomes the previous one
            write_json(self.folder / self._options.OPTIONS_FILE, self._values, indent=True)
            for name, content in self._descriptions.items():
                write_json(self.folder / name, content, indent=True)
            self._write_how_made(continued=state is not None)
            if self._options.log_dir is not None:
                from utils.training.board import Board  # slow to import

                self._board = Board(self._options.log_dir, state["step"] + 1 if state else None)
                lines = [f"| {name} | {value} |" for name, value in self._values.items()]
                table = "\n".join(["| option | value |", "|---|---|", *lines])
                self._board.add_text("options", table, state["step"] if state else 0)
        return state

    def _check_same_options(self) -> None:
        """Raise UserError if processes have different options, as without a shared folder."""
        fixed = {name: v for name, v in self._values.items() if name not in self._free}
        for rank, options in enumerate(self.processes.gather(fixed)):
            for name in fixed:
                if options[name] != fixed[name]:
                    raise UserError(
                        f"--{name} is {fixed[name]} in process {self.processes.rank} and "
                        f"{options[name]} in process {rank}; start all processes by the same "
                        f"command, on machines that share {self.folder}"
                    )

    def _read_state(self) -> tuple[dict | None, Path]:
        state, file = load_newest(self.state_file)
        if state is not None and not _names_files_inside(state):
            raise UserError(f"{file}: names files outside of its folder; start over (--restart)")
        return state, file

    def _write_how_made(self, continued: bool) -> None:
        file = self.folder / MADE_FILE
        starts = read_json(file, list[dict]) if continued and file.is_file() else []
        write_json(file, [*starts, how_made(input_files(self._options))], indent=True)

    def _clear(self) -> None:
        for pattern in ("state*.pt", "*.t7", "*_preds*.json", "*.txt", "metrics.jsonl"):
            for file in self.folder.glob(pattern):
                file.unlink()

    def _clean_up(self, sizes: dict[str, int]) -> None:
        """Remove unfinished files of a killed process, and what it logged after its last save."""
        remove_leftovers(self.folder)
        for name, size in sizes.items():
            file = self.folder / name
            if file.is_file() and file.stat().st_size > size:
                os.truncate(file, size)

    def _check_unchanged(self, saved_options: dict) -> None:
        changes = [
            f"--{name} was {saved_options[name]}, is now {value}"
            for name, value in self._values.items()
            if name not in self._free and saved_options.get(name, value) != value
        ]
        if changes:
            raise UserError(
                f"{self.folder}: holds a run with other options ({'; '.join(changes)}); "
                "give the same ones to continue it, --restart to start over, or another folder"
            )

    def state_due(self, every_minutes: float) -> bool:
        """Whether it is time to save the state; always False but in the main process."""
        return self.processes.main and time.monotonic() - self._saved_at > every_minutes * 60

    def save_state(self, state: dict) -> None:
        """Save the state to continue from (main process)."""
        if self.processes.main:
            self._writer.check()
            logs = [file for file in (self._tables, self._log_file) if file]
            run_state = {
                "options": self._values,
                "history": self.history,
                "kept": [file.name for file in self.checkpoints],
                "sizes": {f.name: f.stat().st_size if f.is_file() else 0 for f in logs},
            }
            save_atomically(state | run_state, self.state_file, keep_previous=True)
            self._saved_at = time.monotonic()

    def keep_checkpoint(self, name: str, content: dict) -> None:
        """Write a checkpoint and remove all but the last few (main process)."""
        if self.processes.main:
            file = self.folder / name
            save_atomically(content, file)
            checkpoints = [path for path in self.checkpoints if path != file] + [file]
            for old in checkpoints[:-KEPT_CHECKPOINTS]:
                old.unlink(missing_ok=True)
            self.checkpoints = checkpoints[-KEPT_CHECKPOINTS:]

    def record(self, scores: dict, table: str) -> None:
        """Add one evaluation to `metrics.jsonl` and its table to `eval_results.txt`."""
        if self.processes.main:
            self.history.append(scores)
            with atomic_write(self.folder / "metrics.jsonl") as file:
                file.writelines(to_json(line) + b"\n" for line in self.history)
            with self._tables.open("a", encoding="utf-8") as file:
                file.write(table + "\n")

    def log(self, step: int, scalars: dict[str, float | torch.Tensor]) -> None:
        """Write scalars to the TensorBoard log and the text log, if any (main process)."""
        if self._board is not None:
            self._board.add_scalars(scalars, step)
        if self._log_file is not None and self.processes.main:
            figures = " ".join(f"{name} {float(value):.6g}" for name, value in scalars.items())
            with self._log_file.open("a", encoding="utf-8") as file:
                file.write(f"step {step} {figures}\n")

    def show(self, name: str, picture: np.ndarray | None, step: int) -> None:
        """Write a picture (H, W, 3) to the TensorBoard log, if there is one (main process)."""
        if self._board is not None and picture is not None:
            self._board.add_image(name, picture, step)


def _names_files_inside(state: dict) -> bool:
    """Whether all files that a state names lie in the run folder: they may be deleted or cut."""
    names = [*state["kept"], *state["sizes"]]
    return all(name.isprintable() and Path(name).name == name != ".." for name in names)


def input_files(options: TrainingOptions) -> list[Path]:
    """The small files that describe the data of a run, and its first checkpoint."""
    root = Path(options.data_root)
    files = [root / "dataset" / options.task / f"{name}.json" for name in ("train", "val")]
    cards = ("feature_shapes.json", "feature_card.json")
    files += [root / "features" / name / card for name in options.features for card in cards]
    lists = (options.scaling_subsample_clips, options.zeroshot_subsample_clips)
    files += [Path(clips) for clips in lists if clips is not None]
    if options.init_from is not None:
        files.append(find_checkpoint(options.init_from))
    return files
