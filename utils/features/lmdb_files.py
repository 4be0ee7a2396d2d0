"""LMDB files as users of GroundNLQ have them: a key a clip or query, an array in NumPy's format.

A value is what `numpy.save` or `numpy.savez` writes; of several arrays in it, `token_features` or
`features` is meant. Needs the package lmdb.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import UserError, in_brief
from utils.base.files import file_stamp
from utils.features.files import FeatureFiles

NAMES = ("token_features", "features")


class LmdbFile:
    """Arrays (rows, F) by key; a vector counts as one row."""

    def __init__(self, path: Path):
        try:
            import lmdb
        except ImportError:
            raise UserError(f"{path}: reading LMDB files needs lmdb: pip install lmdb") from None
        self.path = path
        self.data = path / "data.mdb" if path.is_dir() else path
        try:
            self._environment: Any = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
        except lmdb.Error as error:
            raise UserError(f"{path}: not an LMDB file ({in_brief(error)})") from None
        pages = self._environment.info()["last_pgno"] + 1
        if self.data.stat().st_size < pages * self._environment.stat()["psize"]:
            raise UserError(f"{path}: cut off; fetch it again")  # reading on would end the process

    def keys(self) -> list[str]:
        """All keys, sorted."""
        with self._environment.begin() as transaction:
            keys = list(transaction.cursor().iternext(values=False))
        try:
            return [bytes(key).decode() for key in keys]
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: has a key that is no clip uid ({error})") from None

    def get(self, key: str) -> np.ndarray | None:
        """The array of a key, or None; raises UserError if its value is not such an array."""
        with self._environment.begin() as transaction:
            value = transaction.get(key.encode())
        return None if value is None else read_array(io.BytesIO(value), f"{self.path}: {key}")


def read_array(stream: io.BytesIO, where: str) -> np.ndarray:
    """An array (rows, F) in NumPy's format, half or single precision."""
    try:
        content = np.load(stream, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            names = [name for name in NAMES if name in content.files] or content.files
            content = content[names[0]]
    except Exception as error:  # the parser of a damaged file may trip over anything
        raise UserError(f"{where}: not an array of numbers ({in_brief(error)})") from None
    return as_rows(content, where)


def as_rows(array: np.ndarray, where: str) -> np.ndarray:
    """Rows (n, F) in half or single precision; raises UserError unless the array is of floats."""
    rows = np.atleast_2d(array)
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise UserError(f"{where}: must be numbers (rows, width), is {array.shape} {array.dtype}")
    return rows if rows.dtype == np.float16 else rows.astype(np.float32, copy=False)


class LmdbFeatures(FeatureFiles):
    """The features of all clips of an LMDB file."""

    def __init__(self, path: Path):
        self.path, self.card = path, {}
        self._file = LmdbFile(path)
        self.clip_uids = self._file.keys()
        self.present = list(range(len(self.clip_uids)))

    def stamps(self) -> list:
        return [file_stamp(self._file.data)]

    def read(self, clip: int) -> np.ndarray:
        return self._file.get(self.clip_uids[clip])
