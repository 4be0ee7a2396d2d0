"""Files: JSON in and out, atomic writes, fingerprints of inputs."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from utils.base.errors import UserError

NAME_ENDS = (b'":', b'" :')  # in an object of JSON
TEMPORARY = ".tmp"  # ends the names of unfinished files and folders
WEEK = 7 * 24 * 3600.0  # seconds


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
    """A binary file that appears under `path` whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """An empty temporary file, renamed to `path` once it is written; parent folders are made.

    What killed programs left unfinished in the folder is removed. An `OSError` names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_once(path.parent.resolve())
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=temporary_prefix(path.name), suffix=TEMPORARY
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, name):
            raise
        words = error.strerror or str(error)  # the disk is full, or gone
        raise OSError(error.errno or errno.EIO, words, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(file: Path) -> None:
    """Wait until a file is on the disk: a power cut must not leave holes behind a final name."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def temporary_prefix(name: str) -> str:
    """How an unfinished file or folder is called: its name, and the process that is making it."""
    return f".{name}.{_machine()}-{os.getpid()}."


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files and folders that programs left which have ended."""
    for path in folder.glob(f".*{TEMPORARY}"):
        try:
            if not is_left_over(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except OSError:
            pass  # another process was faster, or it is another user's


_remove_leftovers_once = cache(remove_leftovers)  # a folder may hold thousands of files


def is_left_over(path: Path) -> bool:
    """Whether an unfinished file or folder is of a process on this machine that has ended.

    What another machine is making stays, unless it is a week old: that machine, or container, has
    ended too.
    """
    process = re.fullmatch(rf"\..+-\d+-(\d+)\.\w+{re.escape(TEMPORARY)}", path.name)
    if process is None:
        return False
    if f".{_machine()}-{process[1]}." in path.name:
        return not is_running(int(process[1]))
    return time.time() - path.stat().st_mtime > WEEK


@cache
def _machine() -> str:
    """Where process numbers are valid: the host, or a container on it."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{namespace.stat().st_ino if namespace.exists() else 0}"


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


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
