"""Files: JSON in and out, atomic writes, fingerprints of inputs."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from utils.errors import UserError


def read_json(path: str | Path) -> Any:
    """Parse a JSON file; a missing or malformed one is a `UserError` with its path and place."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UserError(
            f"{path}: not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "the file may be cut off: fetch or make it again"
        ) from None


def write_json(path: str | Path, value: Any, indent: bool = False) -> None:
    """Write JSON atomically; numpy scalars and arrays are accepted."""
    options = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
    with atomic_write(path) as file:
        file.write(orjson.dumps(value, option=options))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` whole or not at all; parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able values, the key under which derived files are kept."""
    content = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return hashlib.blake2b(content, digest_size=10).hexdigest()


def file_stamp(path: str | Path) -> list:
    """Name, size and modification time: enough to notice that a large file was replaced."""
    status = Path(path).stat()
    return [Path(path).name, status.st_size, status.st_mtime_ns]
