"""Derived stores: built once from their inputs, then mapped by every process.

A store is a folder `<cache>/<role>-<key>`; the key is a fingerprint of everything it was made from,
so a store made from other inputs is simply another folder and can't be used by mistake. Folders are
published whole: an unfinished one never has its final name. A store whose files do not have the
sizes its card says (a torn copy, say) is built again.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from utils.errors import UserError
from utils.files import read_json, write_json

CARD = "card.json"


def open_store(cache: Path, role: str, key: str, build: Callable[[Path], dict]) -> Path:
    """The folder of a store, built by `build(folder)` if it is not there yet.

    `build` fills an empty folder and returns what the card is to say of it. Processes that want the
    same store wait for the one that builds it.
    """
    folder = cache / f"{role}-{key}"
    if _complete(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{cache}: can't make stores here ({error.strerror}); name a folder with --cache_dir"
        ) from None
    with FileLock(cache / f"{role}-{key}.lock"):
        if _complete(folder):
            return folder
        building = Path(tempfile.mkdtemp(dir=cache, prefix=f".{role}-{key}."))
        try:
            card = build(building)
            sizes = {file.name: file.stat().st_size for file in sorted(building.iterdir())}
            write_json(building / CARD, {**card, "files": sizes}, indent=True)
            shutil.rmtree(folder, ignore_errors=True)
            building.chmod(0o755)
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _complete(folder: Path) -> bool:
    if not (folder / CARD).is_file():
        return False
    try:
        sizes = read_json(folder / CARD)["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return False


def create_array(file: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A new array on disk, to be filled piece by piece."""
    return np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=tuple(map(int, shape)))


def map_array(file: Path) -> np.ndarray:
    """An array of a store, mapped read-only: processes on a machine share its pages."""
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    return np.asarray(array) if array.size == 0 else array
