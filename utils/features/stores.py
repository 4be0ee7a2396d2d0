"""Derived stores: built once from their inputs, then mapped by every process.

A store is a folder `<cache>/<role>-<key>`; the key is a fingerprint of everything it was made from,
so a store made from other inputs is simply another folder and can't be used by mistake. Folders are
published whole: an unfinished one never has its final name. A store that lacks files (some disks
delete old ones) is built again.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from msgspec import Struct

from utils.base.errors import UserError, warn
from utils.base.files import atomic_folder, read_json, write_json

CARD = "card.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SILENT_SECONDS = 60.0  # of waiting for another process


class StoreCard(Struct):
    """What is read of a store's card; it also says what the store was made from."""

    sizes: dict[str, int] = {}  # bytes of each file


def open_store(cache: Path, role: str, key: str, build: Callable[[Path], dict]) -> Path:
    """The folder of a store, built by `build(folder)` if it is not there yet.

    `build` fills an empty folder and returns what the card is to say of it. Other processes on the
    machine wait meanwhile. Where locks do not reach (several machines, disks without them) a store
    may be built twice: the first to finish puts it in place. Raises `UserError` if stores can't be
    made there.
    """
    folder = cache / f"{role}-{key}"
    try:
        if _is_whole(folder):
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{folder.name}.lock"):
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _build(folder, build)
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(cache):
            raise  # of what it is made from
        raise UserError(
            f"{cache}: can't make stores here ({error.strerror or error}); make room or name "
            "another folder with --cache_dir"
        ) from None
    return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Alone on this machine, if the disk gives locks."""
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        warn(f"waiting for another process that builds {file.with_suffix('')}; if there is none, "
             f"delete {file}")  # fmt: skip
        lock.acquire()
    except (OSError, NotImplementedError):
        pass  # no locks here: the store may be built twice
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, build: Callable[[Path], dict]) -> None:
    with atomic_folder(folder) as building:
        card = build(building)
        sizes = {file.name: file.stat().st_size for file in sorted(building.iterdir())}
        write_json(building / CARD, {**card, "sizes": sizes}, indent=True)


def _is_whole(folder: Path) -> bool:
    """Whether a store has all files that its card lists, as large as then."""
    try:
        sizes = read_json(folder / CARD, StoreCard).sizes
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, UserError):
        return False


def create_array(file: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A new array on disk, to be filled piece by piece; `OSError` if the disk has no room for it.

    The room is taken at once: writing to a mapped file on a full disk would kill the process.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=tuple(map(int, shape)))
    take_room(file)
    return array


def take_room(file: Path) -> None:
    """Give a sparse file its room on the disk; `OSError` if there is none."""
    with file.open("r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        except OSError as error:
            if error.errno in FULL:  # other file systems may not know the call
                raise OSError(error.errno, error.strerror, str(file)) from None


def map_array(file: Path) -> np.ndarray:
    """An array of a store, mapped read-only: processes on a machine share its pages."""
    return np.load(file, mmap_mode="r", allow_pickle=False)
