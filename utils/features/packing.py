"""Features of many clips written at once: checked, by several processes, continued when stopped.

files -> look (their shapes) -> sources (which rows are a clip's) -> written -> renamed

The work goes on under a hidden name beside the final one, with a journal of the clips that are
done, so that a run killed at any moment is continued, and what has the final name is whole.
Shapes: C clips, T rows of all of them, F feature dim.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from utils.base.errors import UserError, in_brief
from utils.base.files import atomic_write, fingerprint, write_json
from utils.base.tensor_files import save_atomically
from utils.features.files import (
    CARD_FILE,
    SHAPES_FILE,
    PackedFeatures,
    check_values,
    read_card,
    read_features,
)

FORMAT = 1  # raise when what is written changes
SYNC_SECONDS = 2.0  # between entries into the journal


Map = Callable[[Callable, Iterable], Iterator]


PAGE = 4096  # rows of a packed file begin at a page
PLAIN = (str, int, float)  # what an attribute holds as it is


class Source(NamedTuple):
    """The rows [first, stop) of a file are the features of a clip."""

    uid: str
    file: Path
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.first

    def mark(self) -> str:
        """What changes when the clip's features do."""
        status = self.file.stat()
        place = f"{self.file.name} {self.first}-{self.stop}"
        return f"{place} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True)
class Output(ABC):
    """Where the rows of clips go."""

    final: Path  # the name it gets when it is whole
    dtype: str  # float16 or float32
    width: int  # F

    @property
    def work(self) -> Path:
        """Its name until then."""
        return self.final.with_name(f".{self.final.name}.partial")

    @property
    def journal(self) -> Path:
        """Which clips are done."""
        return self.final.with_name(f".{self.final.name}.journal")

    @abstractmethod
    def made_from(self) -> str | None:
        """Fingerprint of what the output that is there was made from, if it was made here."""

    @abstractmethod
    def is_begun(self) -> bool:
        """Whether there is work that can be continued."""

    @abstractmethod
    def create(self, sources: list[Source]) -> None:
        """Begin anew."""

    @abstractmethod
    def places(self, sources: list[Source]) -> list[int]:
        """Where the rows of each clip go."""

    @abstractmethod
    def put(self, uid: str, place: int, rows: np.ndarray) -> None:
        """Write the rows (n, F) of a clip."""

    @abstractmethod
    def sync(self) -> None:
        """Bring what was put to the disk."""

    @abstractmethod
    def finish(self, sources: list[Source], card: dict) -> None:
        """Give what is now whole its final name."""


class PackedOutput(Output):
    """One HDF5 file with all rows in one piece, in the layout that `PackedFeatures` reads."""

    def made_from(self) -> str | None:
        return PackedFeatures(self.final, []).card.get("fingerprint")

    def is_begun(self) -> bool:
        try:
            return bool(PackedFeatures(self.work, []).mapped.size)
        except UserError:  # not there, or killed while its card was written
            return False

    def create(self, sources: list[Source]) -> None:
        self.work.unlink(missing_ok=True)
        lengths = [source.rows for source in sources]
        size = sum(lengths) * self.width * np.dtype(self.dtype).itemsize
        free = shutil.disk_usage(self.final.parent).free
        if free < size:
            raise UserError(
                f"{self.final.parent}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} are free"
            )
        try:
            self._lay_out(sources, lengths, size)
        except RuntimeError as error:  # what h5py says of a file system's limits
            raise UserError(
                f"{self.work}: can't make a file of {size} bytes ({in_brief(error)})"
            ) from None

    def _lay_out(self, sources: list[Source], lengths: list[int], size: int) -> None:
        """Make the room for all rows, one piece from a page on; workers fill it."""
        import h5py  # slow to import

        alignment = {"alignment_threshold": size, "alignment_interval": PAGE}
        with h5py.File(self.work, "w", **alignment) as packed:
            packed["clip_uids"] = [source.uid for source in sources]
            packed["offsets"] = np.cumsum([0, *lengths])
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((sum(lengths), self.width))
            kind = h5py.h5t.py_create(np.dtype(self.dtype).newbyteorder("<"))
            h5py.h5d.create(packed.id, b"rows", kind, space, layout)

    def places(self, sources: list[Source]) -> list[int]:
        begin = PackedFeatures(self.work, []).mapped.offset
        first = np.cumsum([0, *(source.rows for source in sources[:-1])])
        return (begin + first * self.width * np.dtype(self.dtype).itemsize).tolist()

    def put(self, uid: str, place: int, rows: np.ndarray) -> None:
        with self.work.open("r+b") as file:
            file.seek(place)
            file.write(rows)

    def sync(self) -> None:
        with self.work.open("rb") as file:
            os.fsync(file.fileno())

    def finish(self, sources: list[Source], card: dict) -> None:
        import h5py

        said = {k: v if isinstance(v, PLAIN) else json.dumps(v) for k, v in card.items()}
        try:
            if any("\0" in name for name in said):  # HDF5 would keep what stands before it
                raise ValueError("a name holds a NUL byte")
            with h5py.File(self.work, "r+") as packed:
                packed.attrs.update(said)
        except (RuntimeError, ValueError, TypeError) as error:  # a name or text it has no room for
            raise UserError(
                f"{self.work}: can't keep this feature card ({in_brief(error)}); correct the card"
            ) from None
        uids = [source.uid for source in sources]
        found = PackedFeatures(self.work, uids).lengths.tolist()
        if found != [source.rows for source in sources]:
            raise UserError(f"{self.work}: was changed by something else; delete it, begin again")
        self.sync()
        self.work.replace(self.final)


class FolderOutput(Output):
    """A folder with one `.pt` a clip, the list of their rows and their feature card."""

    def made_from(self) -> str | None:
        return read_card(self.final).get("fingerprint")

    def is_begun(self) -> bool:
        return self.work.is_dir()

    def create(self, sources: list[Source]) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def places(self, sources: list[Source]) -> list[int]:
        return [0] * len(sources)

    def put(self, uid: str, place: int, rows: np.ndarray) -> None:
        save_atomically(torch.from_numpy(rows), self.work / f"{uid}.pt")

    def sync(self) -> None:
        """Each file is brought there as it is written."""

    def finish(self, sources: list[Source], card: dict) -> None:
        for left in self.work.glob(".*.tmp"):  # by a process that was killed
            left.unlink()
        write_json(self.work / SHAPES_FILE, {source.uid: source.rows for source in sources})
        write_json(self.work / CARD_FILE, card, indent=True)
        old = self.final.with_name(f".{self.final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.replace(old)
        self.work.replace(self.final)
        shutil.rmtree(old, ignore_errors=True)


class Shape(NamedTuple):
    """Of the features of one file."""

    rows: int
    width: int
    half: bool  # half precision, else single


@contextmanager
def workers(count: int) -> Iterator[Map]:
    """`map` over `count` processes (one: this one); results come in order.

    Raises `UserError` if a process was killed. The processes end with this one, however it ends.
    """
    if count == 1:
        yield map
        return
    # Forked from a process that has imported what they need, and has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(count, context, _begin_worker)
    try:
        yield partial(pool.map, chunksize=1)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, by hand or for want of memory; run the same command "
            "again with fewer --workers, what is done is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says that it was interrupted
    torch.set_num_threads(1)

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def look(files: list[Path], run: Map, name: str) -> list[Shape | str]:
    """The shape of the features in each file, or what is wrong with it; values are not read."""
    return list(tqdm(run(_look, files), f"looking at {name} features", len(files), leave=False))


def _look(file: Path) -> Shape | str:
    try:
        features = read_features(file)
    except UserError as fault:
        return str(fault)
    return Shape(*features.shape, features.dtype == np.float16)


def write_sources(
    sources: list[Source], output: Output, card: dict, run: Map, action: str
) -> tuple[list[str], int]:
    """Check and write the features of each clip; faults found, and clips that were done before.

    The output gets its final name only if there are no faults. Clips that an earlier, stopped call
    wrote from the same files into the same layout are kept.
    """
    marks = [source.mark() for source in sources]
    lengths = [[source.uid, source.rows] for source in sources]
    header = fingerprint(FORMAT, type(output).__name__, output.dtype, output.width, lengths)
    done = _read_journal(output.journal, header) if output.is_begun() else None
    if done is None:
        output.journal.unlink(missing_ok=True)
        output.create(sources)
        with atomic_write(output.journal) as file:
            file.write(json.dumps(header).encode())
        done = set()
    waiting = [n for n, source in enumerate(sources) if (source.uid, marks[n]) not in done]
    places = output.places(sources)
    tasks = [(output, sources[n], places[n]) for n in waiting]
    faults = []
    with Journal(output) as journal:
        before = len(sources) - len(waiting)
        bar = tqdm(run(_write, tasks), action, len(sources), initial=before, unit="clip")
        for n, fault in zip(waiting, bar, strict=True):
            if fault:
                faults.append(fault)
            else:
                journal.note(sources[n].uid, marks[n])
    if not faults:
        output.finish(sources, card)
        output.journal.unlink()
    return faults, before


def check_sources(sources: list[Source], dtype: str, run: Map, action: str) -> list[str]:
    """What is wrong with the values of clips, if nothing can be written."""
    tasks = [(dtype, source) for source in sources]
    outcomes = tqdm(run(_check, tasks), action, len(tasks), leave=False, unit="clip")
    return [outcome for outcome in outcomes if isinstance(outcome, str)]


def _write(task: tuple[Output, Source, int]) -> str | None:
    output, source, place = task
    rows = _check((output.dtype, source))
    if isinstance(rows, str):
        return rows
    output.put(source.uid, place, rows)
    return None


def _check(task: tuple[str, Source]) -> np.ndarray | str:
    """The rows (n, F) of a clip as they are to be written, or what is wrong with them."""
    dtype, source = task
    where = f"{source.file}: clip {source.uid}" if source.file.stem != source.uid else source.file
    try:
        rows = read_features(source.file)[source.first : source.stop]
        check_values(rows, where)
    except UserError as fault:
        return str(fault)
    if len(rows) != source.rows:
        return f"{where}: the file was replaced meanwhile; run the same command again"
    with np.errstate(over="ignore"):
        written = np.ascontiguousarray(rows, dtype)
    if written is not rows and not np.isfinite(written).all():
        largest = np.abs(rows).max()
        return f"{where}: {largest:g} is too large for {dtype}; give --dtype float32"
    return written


class Journal:
    """The clips that are done and on the disk, one JSON line each after a header."""

    def __init__(self, output: Output):
        self.output = output
        self._entries: list[list[str]] = []
        self._last = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def note(self, uid: str, mark: str) -> None:
        """A clip was written."""
        self._entries.append([uid, mark])
        if time.monotonic() - self._last >= SYNC_SECONDS:
            self._flush()

    def _flush(self) -> None:
        self.output.sync()
        with self.output.journal.open("ab") as file:
            file.write("".join(f"\n{json.dumps(entry)}" for entry in self._entries).encode())
            file.flush()
            os.fsync(file.fileno())
        self._entries, self._last = [], time.monotonic()


def _read_journal(file: Path, header: str) -> set[tuple[str, str]] | None:
    """Uids and marks of the clips that are done; None if it is of something else."""
    if not file.is_file():
        return None
    lines = file.read_text(errors="replace").splitlines()
    if not lines or lines[0] != json.dumps(header):
        return None
    done = set()
    for line in lines[1:]:
        try:
            uid, mark = json.loads(line)
            done.add((uid, mark))
        except (ValueError, TypeError):  # the last line of a run that was killed
            continue
    return done
