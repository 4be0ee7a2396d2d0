"""Files of tensors: loaded without running code from them, saved atomically."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.base.errors import UserError, in_brief, is_out_of_memory, warn
from utils.base.files import atomic_write, to_json
from utils.base.lazy import torch

VALUES = "values"  # in a safetensors file's metadata


def load_safely(
    path: str | Path, allow: tuple = (), mmap: bool = False, skip_objects: bool = False
) -> Any:
    """Load a file of `torch.save` or of safetensors onto the CPU, without running code from it.

    Args:
        allow: classes accepted besides tensors and plain containers.
        skip_objects: load objects of other classes as empty ones.

    Raises:
        UserError: the file is missing, damaged, of another format, or holds another class.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        stand_ins = _stand_ins(path) if skip_objects else []
        with torch.serialization.safe_globals([*allow, *stand_ins]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap or None)
    except (pickle.UnpicklingError, KeyError) as error:  # KeyError: an invalid pickle opcode
        if name := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: holds a {name[1]}, and only tensors and plain containers are read; save "
                "it again as plain tensors"
            ) from None
        raise UserError(f"{path}: not a file of tensors, or damaged; fetch it again") from None
    except Exception as error:  # the parser of a damaged file may raise anything
        # EINVAL: in a truncated archive the directory is sought before the start of the file.
        is_of_disk = isinstance(error, OSError) and error.errno != errno.EINVAL
        if is_of_disk or is_out_of_memory(error):
            raise
        raise UserError(f"{path}: damaged or cut off ({in_brief(error)}); fetch it again") from None


def _stand_ins(path: Path) -> list[tuple[type, str]]:
    """An empty class for each class or function that a file names."""

    def ignore(*arguments: Any, **options: Any) -> None:
        pass

    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    methods = {"__init__": ignore, "__setstate__": ignore}
    return [(type("Skipped", (), methods), name) for name in names]


def write_safetensors(content: dict[str, Any], path: Path) -> None:
    """Write nested dictionaries of tensors, and their other values as JSON, for `load_safely`.

    Keys of nested dictionaries are joined by `/`.
    """
    from safetensors.torch import save

    leaves = dict(_leaves(content))
    tensors = {name: x.clone() for name, x in leaves.items() if torch.is_tensor(x)}
    values = {name: value for name, value in leaves.items() if name not in tensors}
    with atomic_write(path) as file:
        file.write(save(tensors, {VALUES: to_json(values).decode()}))


def _leaves(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{inner}", leaf) for inner, leaf in _leaves(value))
        else:
            yield name, value


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    content: dict[str, Any] = {}
    with safe_open(path, "pt") as file:
        leaves = json.loads((file.metadata() or {}).get(VALUES, "{}"))
        for name in file.keys():  # noqa: SIM118, it is not a dictionary
            leaves[name] = file.get_tensor(name)
        for name, value in leaves.items():
            *outer_keys, key = name.split("/")
            inner = content
            for outer_key in outer_keys:
                inner = inner.setdefault(outer_key, {})
            inner[key] = value
    return content


def save_atomically(value: Any, path: str | Path, keep_previous: bool = False) -> None:
    """`torch.save` into a file that appears complete or not at all, even after a power cut.

    With `keep_previous` an existing file is kept beside it, see `load_newest`. Raises `UserError`
    if the file can't be written; an existing file is then unchanged.
    """
    path = Path(path)
    try:
        with atomic_write(path) as file:
            torch.save(value, file)
            if keep_previous and path.exists():
                file.flush()
                os.fsync(file.fileno())
                path.replace(_previous(path))
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # After a failed write `torch.save` raises a second error when it closes its archive.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(
            f"{path}: can't be written ({cause.strerror or cause}); what was saved before is intact"
        ) from None


def load_newest(path: Path) -> tuple[Any, Path]:
    """The value that `save_atomically(..., keep_previous=True)` wrote last, and its file.

    If the newest file is missing or damaged (its checksums are verified), the previous one is used,
    with a warning. The value is None if there is no file. Raises `UserError` if all are damaged.
    """
    faults = []
    for file in (path, _previous(path)):
        try:
            _verify(file)
            value = load_safely(file)
        except FileNotFoundError:
            continue
        except UserError as error:
            faults.append(str(error))
            continue
        if faults:
            warn(f"{faults[0]}; using the previous one, {file.name}")
        return value, file
    if faults:
        raise UserError(f"{'; '.join(faults)}; --restart starts over")
    return None, path


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _verify(path: Path) -> None:
    """Verify the checksums of a file of `torch.save`, which `torch.load` does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, MemoryError):
        raise
    except Exception:  # the parser of a damaged file may raise anything
        damaged = "its directory"
    if damaged:
        raise UserError(f"{path}: damaged or cut off ({damaged})")


def _sync_folder(folder: Path) -> None:
    """Flush a folder, which holds the names of its files, to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
