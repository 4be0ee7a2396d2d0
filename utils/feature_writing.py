"""Features of many clips written at once: checked, by several processes, continued when stopped.

files -> look (their shapes) -> sources (which rows are a clip's) -> written -> renamed

The work goes on under a hidden name beside the final one, with a journal of the clips that are
done, so that a run killed at any moment is continued, and what has the final name is whole.
Shapes: C clips, T rows of all of them, F feature dim.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.feature_files import check_values, read_features
from utils.feature_outputs import Output, Source
from utils.files import atomic_write, fingerprint

FORMAT = 1  # raise when what is written changes
SYNC_SECONDS = 2.0  # between entries into the journal


Map = Callable[[Callable, Iterable], Iterator]


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
