"""Fetch features and unpack them: <data_root>/features/<type>/<clip_uid>.pt.

    python utils/download_features.py --feature_types egovlp clip --data_root data

Where the archives lie says feature_manifest.json beside this program (the published release's
links), another file of that form (--manifest), or --url TYPE=URL, once for each part of an archive
and in order. A download that was stopped goes on when the command is given again; clips that are
there already are kept.
"""

import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from filelock import FileLock, Timeout

from utils.base.errors import UserError, run_program
from utils.base.files import fingerprint, read_json, write_json
from utils.base.options import ArgumentParser
from utils.base.tensor_files import load_safely
from utils.data.annotations import clip_name_fault
from utils.download.archives import extract
from utils.download.fetch import RemoteFile, check_space, check_url, fetch
from utils.features.cards import SHAPES_FILE

MANIFEST = Path(__file__).with_name("feature_manifest.json")


@dataclass(frozen=True)
class Source:
    """Where the archives of a feature lie."""

    parts: tuple[RemoteFile, ...]
    width: int | None = None  # of its rows, if known
    folder: str | None = None  # inside the archive, with the clips; None: anywhere
    size: int = 0  # bytes of all parts, about; 0: unknown


def read_manifest(path: Path) -> dict[str, Source]:
    """Feature types and their sources.

    Raises:
        UserError: the file is missing, or malformed; the message names the place.
    """
    content = read_json(path)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, dict):
        raise UserError(f"{path}: must hold an object 'features', as {MANIFEST} does")
    sources = {}
    for name, entry in features.items():
        where = f"{path}: features.{name}"
        if fault := clip_name_fault(name):
            raise UserError(f"{where}: {fault}")
        if not isinstance(entry, dict) or not isinstance(entry.get("parts"), list):
            raise UserError(f"{where}: must be an object with a list 'parts'")
        if not _is_count(entry.get("width", 1)):
            raise UserError(f"{where}.width: must be a whole number above 0")
        parts = [_part(part, f"{where}.parts[{n}]") for n, part in enumerate(entry["parts"])]
        folder, size = entry.get("folder"), entry.get("bytes", 0)
        if not isinstance(folder, str | None) or type(size) is not int or size < 0:
            raise UserError(f"{where}: 'folder' must be a text, 'bytes' a whole number")
        sources[name] = Source(tuple(parts), entry.get("width"), folder, size)
    return sources


def _part(entry: Any, where: str) -> RemoteFile:
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise UserError(f"{where}: must be an object with a text 'url'")
    size, sha256 = entry.get("size"), entry.get("sha256")
    if size is not None and not _is_count(size):
        raise UserError(f"{where}.size: must be a number of bytes")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        raise UserError(f"{where}.sha256: must be 64 hexadecimal digits")
    try:
        check_url(entry["url"])
    except UserError as fault:
        raise UserError(f"{where}.url: {fault}") from None
    return RemoteFile(entry["url"], size, sha256)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def download(data_root: Path, name: str, source: Source, keep_archives: bool = False) -> int:
    """Fetch a feature and unpack what is not there yet; returns the number of new clips.

    Archives lie in `<data_root>/downloads/<name>` meanwhile, and go when they are unpacked.

    Raises:
        UserError: a download or an archive fails, or holds no clips, or clips of another width.
    """
    downloads = data_root / "downloads" / name
    downloads.mkdir(parents=True, exist_ok=True)
    targets = [downloads / _file_name(n, part) for n, part in enumerate(source.parts)]
    try:
        with FileLock(downloads.with_suffix(".lock"), timeout=0):
            # Unpacked features take about the room of their archives.
            needed = 2 * (sum(part.size or 0 for part in source.parts) or source.size)
            there = sum(path.stat().st_size for path in downloads.iterdir())
            check_space(downloads, max(needed - there, 0), f"fetching and unpacking {name}")
            for part, target in zip(source.parts, targets, strict=True):
                fetch(part, target)
            count = unpack(targets, data_root / "features" / name, source)
            if not keep_archives:
                shutil.rmtree(downloads)
            return count
    except Timeout:
        raise UserError(
            f"{downloads}: another program is fetching {name} there; wait for it"
        ) from None


def _file_name(number: int, part: RemoteFile) -> str:
    """A file name that tells order and origin; nothing in an address leads out of the folder."""
    name = unquote(urlsplit(part.url).path).rsplit("/", 1)[-1]
    origin = fingerprint(part.url)[:8]  # so that remains of another address are not taken for it
    return f"{number:03d}-{origin}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-100:]}"


def unpack(archives: list[Path], folder: Path, source: Source) -> int:
    """Unpack the clips of the source's archives that `folder` lacks; returns how many those are.

    They are unpacked and looked at beside the folder, then moved into it, so that it never holds
    half a file.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.glob("*.pt")}
    prefix = f".{folder.name}.unpacking."
    for left in folder.parent.glob(f"{prefix}*"):  # by a program that was killed
        shutil.rmtree(left, ignore_errors=True)
    unpacking = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    seen = set()

    def is_wanted(path: str) -> bool:
        *folders, name = path.split("/")
        if source.folder is not None and source.folder not in folders:
            return False
        is_clip = name.endswith(".pt") and clip_name_fault(name[: -len(".pt")]) is None
        if is_clip:
            seen.add(name)
        return (is_clip and name not in there) or name == SHAPES_FILE

    try:
        names = sorted(set(extract(archives, unpacking, is_wanted)) - {SHAPES_FILE})
        if not seen:
            inside = f" in a folder {source.folder}" if source.folder else ""
            raise UserError(
                f"{archives[0]}: holds no <clip_uid>.pt{inside}; is it an archive of features?"
            )
        for name in names[:1]:
            _check_width(unpacking / name, source.width)
        shapes = _merged_shapes(unpacking / SHAPES_FILE, folder / SHAPES_FILE, there)
        # The list first: clips of it that are missing show that this was not finished.
        folder.mkdir(exist_ok=True)
        if shapes:
            write_json(folder / SHAPES_FILE, shapes)
        for name in names:
            (unpacking / name).replace(folder / name)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    return len(names)


def _check_width(file: Path, width: int | None) -> None:
    features = load_safely(file)
    shape = tuple(getattr(features, "shape", ()))
    if len(shape) != 2 or width not in (None, shape[1]):
        expected = f"(rows, {width})" if width else "(rows, width)"
        raise UserError(
            f"{file.name} in the archive is not a tensor {expected} but "
            f"{shape or type(features).__name__}: another feature than it should be"
        )


def _merged_shapes(new: Path, old: Path, kept: set[str]) -> dict:
    """Rows by clip: of clips that were there before as listed before, of the others as fetched."""
    fetched, listed = (_read_shapes(path) if path.is_file() else {} for path in (new, old))
    return {**listed, **fetched, **{u: n for u, n in listed.items() if f"{u}.pt" in kept}}


def _read_shapes(path: Path) -> dict[str, int]:
    shapes = read_json(path)
    if not isinstance(shapes, dict):
        raise UserError(f"{path}: must map clip uids to numbers of rows")
    return shapes


def is_complete(folder: Path) -> bool:
    """Whether every clip that `feature_shapes.json` lists is there."""
    if not (folder / SHAPES_FILE).is_file():
        return False
    listed = _read_shapes(folder / SHAPES_FILE)
    there = {path.name for path in folder.iterdir()}
    return bool(listed) and all(f"{uid}.pt" in there for uid in listed)


def choose(names: list[str] | None, manifest: Path, urls: list[str]) -> dict[str, Source]:
    """The sources of the wanted features, the addresses of the command line first.

    Raises:
        UserError: a name is unknown, or no address of it is known.
    """
    sources = read_manifest(manifest)
    given: dict[str, list[RemoteFile]] = {}
    for text in urls:
        name, separator, url = text.partition("=")
        if not separator or clip_name_fault(name):
            raise UserError(f"--url {text}: must be TYPE=URL, such as egovlp=https://...")
        check_url(url)
        given.setdefault(name, []).append(RemoteFile(url))
    for name, parts in given.items():
        width = sources[name].width if name in sources else None
        sources[name] = Source(tuple(parts), width)
    names = list(sources) if names is None else list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in sources]:
        raise UserError(
            f"unknown feature type '{unknown[0]}'; known: {', '.join(sources)} (several names are "
            "separated by spaces); for another one give --url"
        )
    if stray := [name for name in given if name not in names]:
        raise UserError(f"--url {stray[0]}=...: '{stray[0]}' is not among --feature_types")
    return {name: sources[name] for name in names}


def main(arguments: list[str] | None = None) -> None:
    """Fetch each feature in turn."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--feature_types", nargs="+", metavar="TYPE",
        help="features to fetch, one or more of slowfast egovlp internvideo clip (default: all)",
    )  # fmt: skip
    parser.add_argument("--data_root", default="data", metavar="DIR", help="where data lie")
    parser.add_argument(
        "--manifest", default=str(MANIFEST), metavar="FILE", help="where the archives lie"
    )
    parser.add_argument(
        "--url", nargs="+", action="extend", default=[], metavar="TYPE=URL",
        help="archive of a feature, instead of the manifest's; the parts of one in order",
    )  # fmt: skip
    parser.add_argument(
        "--keep_archives", action="store_true", help="leave archives in DIR/downloads"
    )
    options = parser.parse_args(arguments)
    sources = choose(options.feature_types, Path(options.manifest), options.url)
    root = Path(options.data_root)
    todo = {}
    for name, source in sources.items():
        if is_complete(root / "features" / name):
            print(f"{name}: all clips that its {SHAPES_FILE} lists are there")
        else:
            todo[name] = source
    if unknown := [name for name, source in todo.items() if not source.parts]:
        raise UserError(
            f"no links are known to {', '.join(unknown)}: give --url {unknown[0]}=URL (one for "
            "each part, in order) or --manifest FILE"
        )
    for name, source in todo.items():
        count = download(root, name, source, options.keep_archives)
        total = len(list((root / "features" / name).glob("*.pt")))
        print(f"{name}: {count} clips fetched, {total} there", flush=True)


if __name__ == "__main__":
    run_program(main)
