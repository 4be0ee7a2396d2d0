"""Fetch features and unpack them: <data_root>/features/<type>/<clip_uid>.pt.

    python utils/download_features.py --feature_types egovlp clip --data_root data

Where the archives are says download/feature_manifest.json here (the published release's
links), another file of that form (--manifest), or --url TYPE=URL, once for each part of an archive
and in order. A download that was stopped goes on when the command is given again; clips that are
there already are kept.
"""

import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from filelock import FileLock, Timeout

from utils.base.errors import UserError, run_program
from utils.base.files import fingerprint, read_json, write_json
from utils.base.options import ArgumentParser
from utils.base.tables import show_size
from utils.base.tensor_files import load_safely
from utils.data.annotations import clip_name_fault
from utils.download.archives import extract
from utils.download.fetch import RemoteFile, check_space, check_url, fetch
from utils.features.cards import SHAPES_FILE

MANIFEST = Path(__file__).parent / "download" / "feature_manifest.json"


@dataclass(frozen=True)
class Source:
    """Where the archive of a feature is."""

    parts: tuple[RemoteFile, ...] = ()
    width: int | None = None  # of its rows, if known
    folder: str | None = None  # inside the archive, with the clips; None: anywhere
    size: int = 0  # bytes of all parts, about; 0: unknown


def main(arguments: list[str] | None = None) -> None:
    """Fetch each feature in turn."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--feature_types", nargs="+", metavar="TYPE",
        help="features to fetch, one or more of slowfast egovlp internvideo clip (default: all)",
    )  # fmt: skip
    parser.add_argument("--data_root", default="data", metavar="DIR", help="where data lie")
    parser.add_argument(
        "--manifest", default=str(MANIFEST), metavar="FILE", help="where the archives are"
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
    features = Path(options.data_root) / "features"
    missing = {}
    for name, source in sources.items():
        if is_complete(features / name):
            print(f"{name}: all clips that its {SHAPES_FILE} lists are there")
        elif source.parts:
            missing[name] = source
        else:
            raise UserError(
                f"no links are known to {name}: give --url {name}=URL (one for each part, in "
                "order) or --manifest FILE"
            )
    for name, source in missing.items():
        count = download(Path(options.data_root), name, source, options.keep_archives)
        total = len(list((features / name).glob("*.pt")))
        print(f"{name}: {count} clips fetched, {total} there", flush=True)


def choose(names: list[str] | None, manifest: Path, urls: list[str]) -> dict[str, Source]:
    """The sources of the features with these names; addresses of the command line come first.

    Raises:
        UserError: a name is unknown, or an address or the manifest is malformed.
    """
    sources = read_manifest(manifest)
    given: dict[str, tuple[RemoteFile, ...]] = {}
    for text in urls:
        name, separator, url = text.partition("=")
        if not separator or clip_name_fault(name):
            raise UserError(f"--url {text}: must be TYPE=URL, such as egovlp=https://...")
        check_url(url)
        given[name] = (*given.get(name, ()), RemoteFile(url))
    for name, parts in given.items():
        sources[name] = replace(sources.get(name, Source()), parts=parts, folder=None, size=0)
    names = list(sources) if names is None else list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in sources]:
        raise UserError(
            f"unknown feature type '{unknown[0]}'; known: {', '.join(sources)} (several names are "
            "separated by spaces); for another one give --url"
        )
    if stray := [name for name in given if name not in names]:
        raise UserError(f"--url {stray[0]}=...: '{stray[0]}' is not among --feature_types")
    return {name: sources[name] for name in names}


def read_manifest(path: Path) -> dict[str, Source]:
    """Feature types and their sources.

    Raises:
        UserError: the file is missing or malformed.
    """
    content = read_json(path)
    try:
        return {name: _source(name, entry) for name, entry in content["features"].items()}
    except UserError as fault:
        raise UserError(f"{path}: {fault}") from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: must have the form of {MANIFEST}") from None


def _source(name: str, entry: dict[str, Any]) -> Source:
    parts = tuple(RemoteFile(**part) for part in entry["parts"])
    source = Source(parts, entry.get("width"), entry.get("folder"), entry.get("bytes", 0))
    numbers = [source.width, source.size, *(part.size for part in parts)]
    if fault := clip_name_fault(name):
        raise UserError(f"features: {fault}")
    if not all(number is None or (type(number) is int and number >= 0) for number in numbers):
        raise UserError(f"features.{name}: width, bytes and size must be whole numbers")
    if not isinstance(source.folder, str | None):
        raise UserError(f"features.{name}: folder must be a text")
    for part in parts:
        check_url(part.url)
        if part.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", part.sha256):
            raise UserError(f"features.{name}: sha256 must be 64 hexadecimal digits")
    return source


def is_complete(folder: Path) -> bool:
    """Whether every clip that `feature_shapes.json` lists is there."""
    names = {path.name for path in folder.glob("*.pt")}
    clip_uids = _read_shapes(folder / SHAPES_FILE)
    return bool(clip_uids) and all(f"{uid}.pt" in names for uid in clip_uids)


def _read_shapes(path: Path) -> dict[str, int]:
    shapes = read_json(path) if path.is_file() else {}
    if not isinstance(shapes, dict):
        raise UserError(f"{path}: must map clip uids to numbers of rows")
    return shapes


def download(data_root: Path, name: str, source: Source, keep_archives: bool = False) -> int:
    """Fetch a feature and unpack the clips that are not there; returns their number.

    Archives lie in `<data_root>/downloads/<name>` meanwhile.

    Raises:
        UserError: a download or an archive fails, or holds no clips, or clips of another width.
    """
    downloads, features = data_root / "downloads" / name, data_root / "features" / name
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(downloads.with_suffix(".lock"), timeout=0):
            size = source.size or sum(part.size or 0 for part in source.parts)
            if size:  # unpacked features take about the room of their archives
                print(f"{name}: takes {show_size(2 * size)} while it is unpacked", flush=True)
            present = sum(p.stat().st_size for p in (*downloads.glob("*"), *features.glob("*")))
            check_space(downloads, max(2 * size - present, 0), f"fetching and unpacking {name}")
            archives = [downloads / _file_name(n, part) for n, part in enumerate(source.parts)]
            for part, archive in zip(source.parts, archives, strict=True):
                fetch(part, archive)
            count = unpack(archives, features, source)
            if not keep_archives:
                shutil.rmtree(downloads)
            return count
    except Timeout:
        raise UserError(
            f"{downloads}: another program is fetching {name} there; wait for it"
        ) from None


def _file_name(number: int, part: RemoteFile) -> str:
    """Tells order and origin; nothing in an address leads out of the folder."""
    name = unquote(urlsplit(part.url).path).rsplit("/", 1)[-1]
    origin = fingerprint(part.url)[:8]  # so that remains of another address are not taken for it
    return f"{number:03d}-{origin}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-100:]}"


def unpack(parts: list[Path], folder: Path, source: Source) -> int:
    """Unpack the clips of an archive that `folder` lacks; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.glob(".*.tmp"):  # of a program that was killed
        remains.unlink()
    present = {path.name for path in folder.glob("*.pt")}
    fetched_shapes = parts[0].with_name(SHAPES_FILE)
    clips = set()

    def target(path: str) -> Path | None:
        *folders, name = path.split("/")
        if source.folder is not None and source.folder not in folders:
            return None
        if name == SHAPES_FILE:
            return fetched_shapes
        if not name.endswith(".pt") or name.startswith(".") or clip_name_fault(name):
            return None
        clips.add(name)
        return None if name in present else folder / name

    unpacked = 0
    for file in extract(parts, target):
        if file != fetched_shapes:
            unpacked += 1
            if unpacked == 1:
                _check_width(file, source.width)
    if not clips:
        inside = f" in a folder {source.folder}" if source.folder else ""
        raise UserError(
            f"{parts[0]}: holds no <clip_uid>.pt{inside}; is it an archive of features?"
        )
    # Clips that were there before keep their number of rows.
    kept = {u: n for u, n in _read_shapes(folder / SHAPES_FILE).items() if f"{u}.pt" in present}
    if shapes := _read_shapes(fetched_shapes) | kept:
        write_json(folder / SHAPES_FILE, shapes)
    return unpacked


def _check_width(file: Path, width: int | None) -> None:
    """Delete a file that holds no features of this width, and raise UserError."""
    try:
        features = load_safely(file)
        shape = tuple(getattr(features, "shape", ()))
        if len(shape) != 2 or width not in (None, shape[1]):
            expected = f"(rows, {width})" if width else "(rows, width)"
            raise UserError(
                f"{file.name} in the archive is not a tensor {expected} but "
                f"{shape or type(features).__name__}: another feature than it should be"
            )
    except UserError:
        file.unlink()
        raise


if __name__ == "__main__":
    run_program(main)
