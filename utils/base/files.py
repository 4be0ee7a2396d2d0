"""Files: JSON in and out, atomic writes, fingerprints of inputs."""

import errno
import hashlib
import json
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from utils.base.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a disk that gives none
NAME_ENDS = (b'":', b'" :')  # in an object of JSON


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: it is missing or malformed, holds NaN, nests hundreds of levels deep, or has a
            name twice in one object, of which all but the last would be lost.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        if number := _first_non_number(content):
            raise UserError(f"{path}: {number}, which JSON can't hold ({place})") from None
        raise UserError(
            f"{path}: not valid JSON ({place}: {error.msg}); "
            "the file may be cut off: fetch or make it again"
        ) from None
    names = sum(map(content.count, NAME_ENDS))
    del content  # may be large, as what follows
    try:
        kept = orjson.dumps(value).count(NAME_ENDS[0])
    except orjson.JSONEncodeError:
        raise UserError(f"{path}: nested too deeply") from None
    if names != kept and (name := _first_double(path)):
        raise UserError(f"{path}: {name!r} comes twice in one object; keep one of the two")
    return value


def write_json(path: str | Path, value: Any, indent: bool = False) -> None:
    """Write JSON atomically; numpy scalars and arrays are accepted."""
    options = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
    with atomic_write(path) as file:
        file.write(orjson.dumps(value, option=options))


class _NonNumber(str):
    """NaN or an infinity, as Python's own writer puts it into JSON."""


def _first_non_number(content: bytes) -> str | None:
    """Where JSON holds NaN or an infinity, and which; None if it does not, or is none besides."""
    try:
        value = json.loads(content, parse_constant=_NonNumber, parse_int=float)
    except (ValueError, RecursionError):
        return None
    inner = [("", value)]
    while inner:
        place, value = inner.pop()
        if isinstance(value, _NonNumber):
            return f"{place.lstrip('.') or 'top level'}: is {value}"
        if isinstance(value, dict):
            inner += [(f"{place}.{name}", entry) for name, entry in reversed(value.items())]
        elif isinstance(value, list):
            inner += [(f"{place}[{n}]", value[n]) for n in reversed(range(len(value)))]
    return None


def _first_double(path: Path) -> str | None:
    """A name that an object in a JSON file has twice."""
    doubled: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            doubled.append(counts.most_common(1)[0][0])

    json.loads(path.read_bytes(), object_pairs_hook=note)
    return doubled[0] if doubled else None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` whole or not at all; parent folders are made.

    What killed programs left unfinished in the folder is removed. An `OSError` names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent.resolve())
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=temporary_prefix(path.name), suffix=".tmp"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        if error.filename is None:  # the disk is full, or gone
            error.filename = str(path)
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def temporary_prefix(name: str) -> str:
    """How an unfinished file or folder is called: its name, and who is making it."""
    return f".{name}.{socket.gethostname()}-{os.getpid()}."


def is_left_over(path: Path, name: str = "*") -> bool:
    """Whether an unfinished file or folder is of a program on this machine that has ended.

    What is being made on another machine, or by a program that runs, is none of that.
    """
    if not fnmatch(path.name, f".{name}.{socket.gethostname()}-*.*"):
        return False
    maker = path.name.rpartition(f".{socket.gethostname()}-")[2].partition(".")[0]
    return maker.isdecimal() and not is_running(int(maker))


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@cache
def _remove_leftovers(folder: Path) -> None:
    """Once a program and folder: it may hold thousands of files."""
    for path in folder.glob(".*.tmp"):
        if is_left_over(path):
            path.unlink(missing_ok=True)


def check_output(option: str, file: str | Path) -> None:
    """Refuse a file that could not be written, before anything long begins.

    Raises:
        UserError: it is a folder, or lies where nothing can be made.
    """
    if Path(file).is_dir():
        raise UserError(f"{option} {str(file)!r} is a folder; give the name of a file")
    _check_place(f"{option} {file}", Path(file).parent)


def check_output_folder(option: str, folder: str | Path) -> None:
    """The same for a folder that files will be written into; it need not be there yet."""
    _check_place(f"{option} {folder}", Path(folder))


def _check_place(output: str, folder: Path) -> None:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{output}: {there} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{output}: can't write into {there} ({error.strerror})") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able values, the key under which derived files are kept."""
    content = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return hashlib.blake2b(content, digest_size=10).hexdigest()


SAMPLE = 1024  # bytes


def file_stamp(path: str | Path, samples: int = 1) -> list:
    """Name, size, time and some of its content: enough to notice that a large file was replaced.

    One sample is the file's end: of a zip archive, such as `.pt`, the directory with the checksums
    of all that is in it. More are spread evenly.
    """
    path = Path(path)
    status = path.stat()
    digest = hashlib.blake2b(digest_size=8)
    last = max(0, status.st_size - SAMPLE)
    with path.open("rb") as file:
        for number in range(samples):
            at = last * (number + 1) // samples
            digest.update(os.pread(file.fileno(), SAMPLE, at))
    return [path.name, status.st_size, status.st_mtime_ns, digest.hexdigest()]
