"""Files: JSON in and out, atomic writes, fingerprints of inputs."""

import codecs
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from utils.base.errors import UserError

TEMPORARY = ".tmp"  # ends the names of unfinished files and folders
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # begin text as Windows programs may write it
WEEK = 7 * 24 * 3600.0  # seconds


def read_json(path: str | Path, schema: Any = Any) -> Any:
    """Parse a JSON file and check it against a schema: a type, as msgspec takes it.

    Raises:
        UserError: the file is missing, is not JSON (NaN and Infinity are not), or does not fit the
            schema; the message names the file and the line or the JSON path.
    """
    try:
        content = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return parse_json(content, schema, path)


def parse_json(content: bytes | msgspec.Raw, schema: Any, source: object) -> Any:
    """The same of JSON in memory; messages begin with `source`."""
    try:
        return msgspec.json.decode(content, type=schema)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: {_json_fault(bytes(content), error)}") from None


def _json_fault(content: bytes, error: Exception) -> str:
    """What is wrong with the content of a JSON file, given what the parser says."""
    words = str(error).removeprefix("JSON is malformed: ")
    if content.startswith(UTF_16):
        return "is text in UTF-16; save it as UTF-8"
    if _is_json_lines(content):
        return "is JSON lines, a value on each line; a single JSON value is expected"
    if isinstance(error, msgspec.ValidationError):
        return words
    if place := re.search(r" \(byte (\d+)\)", words):
        at = int(place[1])
        line, column = content.count(b"\n", 0, at) + 1, at - content.rfind(b"\n", 0, at)
        words = words.replace(place[0], f" at line {line}, column {column}")
        if content.startswith((b"NaN", b"Infinity"), at):
            words += ": NaN and Infinity are not numbers of JSON"
    return f"not valid JSON ({words}); if it is cut off, fetch or make it again"


def _is_json_lines(content: bytes) -> bool:
    """Whether the first line is a JSON value and others follow."""
    first, _, others = content.lstrip().partition(b"\n")
    try:
        msgspec.json.decode(first)
    except (ValueError, RecursionError):
        return False
    return bool(others.strip())


def write_json(path: str | Path, value: Any, indent: bool = False) -> None:
    """Write JSON atomically; msgspec structs, NumPy scalars and arrays are accepted."""
    with atomic_write(path) as file:
        file.write(to_json(value, indent))


def to_json(value: Any, indent: bool = False) -> bytes:
    """JSON of a value, as `write_json` writes it."""
    content = msgspec.json.encode(value, enc_hook=_plain)
    return msgspec.json.format(content, indent=2) if indent else content


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as plain numbers."""
    return value.tolist()


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
    return f".{name}.{machine_name()}-{os.getpid()}."


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
    if f".{machine_name()}-{process[1]}." in path.name:
        return not is_running(int(process[1]))
    return time.time() - path.stat().st_mtime > WEEK


@cache
def machine_name() -> str:
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


def legible(text: str) -> str:
    """A file name or text of the command line, with a mark for every byte that is not UTF-8."""
    return os.fsencode(text).decode(errors="replace")


def check_output(option: str, file: str | Path) -> None:
    """Raises UserError if a file is a folder or can't be written, before anything long begins."""
    if Path(file).is_dir():
        raise UserError(f"{option} {str(file)!r} is a folder; give the name of a file")
    _check_folder(f"{option} {file}", Path(file).parent)


def check_output_folder(option: str, folder: str | Path) -> None:
    """The same for a folder that files will be written into; it need not exist yet."""
    _check_folder(f"{option} {folder}", Path(folder))


def _check_folder(output: str, folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{output}: {existing} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{output}: can't write into {existing} ({error.strerror})") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able values, the key under which derived files are kept."""
    content = msgspec.json.encode(parts, enc_hook=_plain, order="sorted")
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
