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
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from filelock import FileLock, Timeout

from utils.base.errors import UserError, run_program
from utils.base.files import fingerprint, write_json
from utils.base.options import ArgumentParser, labelled
from utils.base.tables import show_size
from utils.data.annotations import clip_name_fault
from utils.download.archives import extract, open_archive
from utils.download.fetch import check_space, fetch
from utils.download.manifest import MANIFEST, RemoteFile, Source, read_manifest
from utils.features.cards import SHAPES_FILE, read_shapes
from utils.features.files import read_features


def main(arguments: list[str] | None = None) -> None:
    """Fetch each feature in turn."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--feature_types", nargs="+", metavar="TYPE",
        help="features to fetch, one or more of slowfast egovlp internvideo clip (default: all)",
    )  # fmt: skip
    parser.add_argument("--data_root", default="data", metavar="DIR", help="where data lie")
    parser.add_argument(
        "--manifest", metavar="FILE",
        help="where the archives are (default: the published release's list)",
    )  # fmt: skip
    parser.add_argument(
        "--url", nargs="+", action="extend", default=[], metavar="TYPE=URL",
        help="archive of a feature, instead of the manifest's; the parts of one in order",
    )  # fmt: skip
    parser.add_argument(
        "--keep_archives", action="store_true", help="leave archives in DIR/downloads"
    )
    options = parser.parse_args(arguments)
    sources = choose(options.feature_types, Path(options.manifest or MANIFEST), options.url)
    features = Path(options.data_root) / "features"
    missing = {}
    for name, source in sources.items():
        listed, present = read_shapes(features / name), _present(features / name)
        if listed and present.issuperset(f"{uid}.pt" for uid in listed):
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
        print(f"{name}: {count} clips fetched, {len(_present(features / name))} there", flush=True)


def choose(names: list[str] | None, manifest: Path, urls: list[str]) -> dict[str, Source]:
    """The sources of the features with these names; addresses of the command line come first.

    Raises:
        UserError: a name is unknown, or an address or the manifest is malformed.
    """
    sources = read_manifest(manifest).features
    url_sources: dict[str, Source] = {}
    for text in urls:
        name, url = labelled(text, "TYPE=URL, such as egovlp=https://...")
        if fault := clip_name_fault(name):
            raise UserError(f"--url {text}: {fault}")
        width = sources[name].width if name in sources else None
        try:
            url_sources.setdefault(name, Source([], width)).parts.append(RemoteFile(url))
        except ValueError as fault:
            raise UserError(f"--url {text}: {fault}") from None
    sources |= url_sources
    names = list(sources) if names is None else list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in sources]:
        raise UserError(
            f"unknown feature type '{unknown[0]}'; known: {', '.join(sources)} (several names are "
            "separated by spaces); for another one give --url"
        )
    if unused := [name for name in url_sources if name not in names]:
        raise UserError(f"--url {unused[0]}=...: '{unused[0]}' is not among --feature_types")
    return {name: sources[name] for name in names}


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
            size = source.bytes or sum(part.size or 0 for part in source.parts)
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
    """Name of an archive in the downloads: its order, a hash of its address, the address's end."""
    name = unquote(urlsplit(part.url).path).rsplit("/", 1)[-1]
    origin = fingerprint(part.url)[:8]  # so that remains of another address are not taken for it
    return f"{number:03d}-{origin}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-100:]}"


def _present(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pt")}


def unpack(parts: list[Path], folder: Path, source: Source) -> int:
    """Unpack the clips of an archive that `folder` lacks; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    present = _present(folder)
    fetched_shapes = parts[0].with_name(SHAPES_FILE)
    with open_archive(parts) as archive:
        # Of a path in the archive only its name is used: none can lead out of the folder.
        paths = {name: PurePosixPath(name) for name in archive.namelist()}
        if source.folder is not None:
            paths = {name: p for name, p in paths.items() if source.folder in p.parent.parts}
        clips = {
            name: folder / path.name
            for name, path in paths.items()
            if name.endswith(".pt") and path.name[0] != "." and not clip_name_fault(path.name)
        }
        if not clips:
            inside = f" in a folder {source.folder}" if source.folder else ""
            raise UserError(
                f"{parts[0]}: holds no <clip_uid>.pt{inside}; is it an archive of features?"
            )
        missing = {name: file for name, file in clips.items() if file.name not in present}
        for number, file in enumerate(extract(archive, missing)):
            if number == 0:
                _check_width(file, source.width)
        shapes = {name: fetched_shapes for name, p in paths.items() if p.name == SHAPES_FILE}
        list(extract(archive, shapes))
    # Clips that were there before keep their number of rows.
    present_rows = {uid: n for uid, n in read_shapes(folder).items() if f"{uid}.pt" in present}
    if listed := read_shapes(fetched_shapes.parent) | present_rows:
        write_json(folder / SHAPES_FILE, listed)
    return len(missing)


def _check_width(file: Path, width: int | None) -> None:
    """Delete a file that holds no features of this width, and raise UserError."""
    try:
        features = read_features(file)
        if width not in (None, features.shape[1]):
            raise UserError(
                f"{file.name} in the archive holds features {features.shape[1]} wide, not {width}: "
                "another feature than it should be"
            )
    except UserError:
        file.unlink()
        raise


if __name__ == "__main__":
    run_program(main)
