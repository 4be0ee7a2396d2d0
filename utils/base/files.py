"""Files: reading and writing JSON, atomic writes, fingerprints of inputs."""

import codecs
import errno
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import msgspec

from utils.base.errors import UserError
from utils.base.leftovers import TEMPORARY, remove_leftovers, temporary_prefix

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # written by some Windows programs
UTF_16_FAULT = "is text in UTF-16; save it as UTF-8"

_remove_leftovers_once = cache(remove_leftovers)  # a folder may hold thousands of files


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
    """Like `read_json`, for JSON in memory; messages begin with `source`."""
    try:
        return msgspec.json.decode(content, type=schema)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: {_json_fault(bytes(content), error)}") from None


def _json_fault(content: bytes, error: Exception) -> str:
    """What is wrong with the content of a JSON file, given the parser's error."""
    message = str(error).removeprefix("JSON is malformed: ")
    if content.startswith(UTF_16):
        return UTF_16_FAULT
    if _is_json_lines(content):
        return "is JSON lines, a value on each line; a single JSON value is expected"
    if isinstance(error, msgspec.ValidationError):
        return message
    if match := re.search(r" \(byte (\d+)\)", message):
        position = int(match[1])
        line = content.count(b"\n", 0, position) + 1
        column = position - content.rfind(b"\n", 0, position)
        message = message.replace(match[0], f" at line {line}, column {column}")
        if content.startswith((b"NaN", b"Infinity"), position):
            message += ": NaN and Infinity are not numbers of JSON"
    return f"not valid JSON ({message}); if it is cut off, fetch or make it again"


def _is_json_lines(content: bytes) -> bool:
    """Whether the first line is a JSON value and more lines follow."""
    first_line, _, rest = content.lstrip().partition(b"\n")
    try:
        msgspec.json.decode(first_line)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


def open_text(path: Path) -> TextIO:
    """Open a UTF-8 file with its line ends; invalid bytes are replaced, UTF-16 is a UserError."""
    with path.open("rb") as file:
        if file.read(2) in UTF_16:
            raise UserError(f"{path}: {UTF_16_FAULT}")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def write_json(path: str | Path, value: Any, indent: bool = False) -> None:
    """Write JSON atomically; msgspec structs, NumPy scalars and arrays are accepted."""
    with atomic_write(path) as file:
        file.write(to_json(value, indent))


def to_json(value: Any, indent: bool = False) -> bytes:
    """Encode a value as `write_json` does."""
    content = msgspec.json.encode(value, enc_hook=_plain)
    return msgspec.json.format(content, indent=2) if indent else content


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as plain numbers."""
    return value.tolist()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears under `path` complete or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Make an empty temporary file that is renamed to `path` at the end; creates parent folders.

    Removes unfinished files of killed programs in the folder. An `OSError` names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_once(path.parent.resolve())
    prefix = temporary_prefix(path.name)
    temporary = path.with_name(f"{prefix}{secrets.token_hex(4)}{TEMPORARY}")
    try:
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            to_disk(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        reason = error.strerror or str(error)  # the disk is full or gone
        raise OSError(error.errno or errno.EIO, reason, str(path)) from None


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Make an empty folder that is renamed to `path` at the end, like `atomic_path`.

    A folder that is there by then is kept, unless it is to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with tempfile.TemporaryDirectory(
        dir=path.parent,
        prefix=temporary_prefix(path.name),
        suffix=TEMPORARY,
        ignore_cleanup_errors=True,
    ) as work:
        folder = Path(work) / "new"
        folder.mkdir()
        yield folder
        for file in folder.iterdir():
            to_disk(file)
        if replace and path.exists():
            path.rename(Path(work) / "replaced")
        try:
            folder.rename(path)
        except OSError:
            if replace or not path.exists():
                raise


def to_disk(file: Path) -> None:
    """Flush a file to the disk, so that a power cut can't leave an incomplete file."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def has_video(file: Path) -> bool:
    """Whether a file to search in is a video; else it holds features without one."""
    return file.suffix != ".pt"


def legible(text: str) -> str:
    """A file name or command-line text with a replacement for every byte that is not UTF-8."""
    return os.fsencode(text).decode(errors="replace")


def check_output(option: str, file: str | Path) -> None:
    """Raise UserError if a file is a folder or can't be written."""
    if Path(file).is_dir():
        raise UserError(f"{option} {str(file)!r} is a folder; give the name of a file")
    _check_folder(f"{option} {file}", Path(file).parent)


def check_output_folder(option: str, folder: str | Path) -> None:
    """Raise UserError if files can't be written into a folder, which need not exist yet."""
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


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able values: the key of derived files."""
    content = msgspec.json.encode(parts, enc_hook=_plain, order="sorted")
    return hashlib.blake2b(content, digest_size=10).hexdigest()


SAMPLE = 1024  # bytes


def file_stamp(path: str | Path, samples: int = 1) -> list:
    """Name, size, time and a hash of samples of a file, to notice that it was replaced.

    A single sample is the end of the file: in a zip archive, such as `.pt`, the directory with the
    checksums of its content. Several samples are spread evenly.
    """
    path = Path(path)
    status = path.stat()
    digest = hashlib.blake2b(digest_size=8)
    end = max(0, status.st_size - SAMPLE)
    with path.open("rb") as file:
        for number in range(1, samples + 1):
            digest.update(os.pread(file.fileno(), SAMPLE, end * number // samples))
    return [legible(path.name), status.st_size, status.st_mtime_ns, digest.hexdigest()]
