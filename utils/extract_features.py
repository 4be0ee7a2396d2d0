"""Videos to features in the published layout, one `<name>.pt` (rows, width) a video.

Rows are 16/30 s apart, whatever the videos' frame rates. Several kinds of features are made in one
decoding of a video. A stopped extraction is continued by the same command: videos that are done are
not read again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from utils.base.errors import UserError, named, run_program
from utils.base.files import check_output_folder, legible, write_json
from utils.base.lazy import torch
from utils.base.options import ArgumentParser
from utils.base.tables import figure_table
from utils.base.tensor_files import save_atomically
from utils.features.cards import CARD_FILE, SHAPES_FILE, read_card, read_shapes
from utils.features.image_kinds import KINDS, encoder_of_each, expected_card
from utils.features.video import add_frame_rate, find_videos

SAME = ("frame_rate", "stride", "window", "model", "hash")  # of cards in one folder


class Target(NamedTuple):
    """Features to extract, and where they go."""

    kind: str
    encoder: str | None
    folder: Path

    def lacks(self, names: Iterable[str]) -> set[str]:
        """The videos whose features are not there, or not in the folder's list."""
        listed = read_shapes(self.folder)
        return {n for n in names if n not in listed or not (self.folder / f"{n}.pt").is_file()}


def main(arguments: list[str] | None = None) -> None:
    """Extract what is not there yet; broken videos are named and left out, with exit code 2."""
    options = parse(arguments)
    videos = files_by_name([file for path in options.videos for file in find_videos(path)])
    targets = find_targets(options)
    for kind, encoder, folder in targets:
        check_output_folder("--output_dir", folder)
        check_kind(folder, expected_card(kind, encoder))
    released = released_files(Path(options.like), videos) if options.like else {}
    lacking = {t: set(videos) if options.overwrite else t.lacks(videos) for t in targets}
    missing = [name for name in videos if any(name in names for names in lacking.values())]
    extracted = broken = 0
    if missing:
        from utils.features.image_encoders import ImageEncoder, extract_rows  # brings PyTorch

        device = device_of_process(options.device)
        encoders = {t: ImageEncoder(t.kind, t.encoder, device) for t in targets if lacking[t]}
        for target in targets:
            target.folder.mkdir(parents=True, exist_ok=True)
        bar = tqdm(missing, f"extracting {' and '.join(options.type)} features", unit="video")
        for name in bar:
            with claimed(targets[0].folder / f".{name}.claim") as is_free:
                used = {t: e for t, e in encoders.items() if options.overwrite or t.lacks([name])}
                if not (is_free and used):
                    continue
                try:
                    features = extract_rows([*used.values()], videos[name], options.frame_rate)
                except UserError as fault:
                    bar.write(f"broken: {fault}", file=sys.stderr)
                    broken += 1
                    continue
                for (target, encoder), rows in zip(used.items(), features, strict=True):
                    save_rows(target.folder, name, rows, encoder.card(rows.shape[1]))
                extracted += 1
    before = len(videos) - len(missing)
    elsewhere = len(missing) - extracted - broken
    others = f"{elsewhere} by other processes, " if elsewhere else ""
    print(f"{extracted} extracted, {before} there before, {others}{broken} broken: "
          f"{', '.join(str(target.folder) for target in targets)}")  # fmt: skip
    if released:
        print(likeness_table(targets[0].folder, released))
    if broken:
        raise UserError(f"{broken} of {len(videos)} videos could not be read; they are named above")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", nargs="+", required=True, metavar="DIR|FILE", help="videos")
    parser.add_argument(
        "--type", nargs="+", choices=tuple(KINDS), default=["clip"], metavar="KIND",
        help=f"kinds of features, made in one decoding: {', '.join(KINDS)}",
    )  # fmt: skip
    parser.add_argument(
        "--output_dir", nargs="+", metavar="DIR",
        help="where they go, a folder for each type (default: data/features/<type>)",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", nargs="+", metavar="NAME|DIR|FILE",
        help="image encoder on the hub or in a folder (default: the published one), for egovlp its "
        "checkpoint egovlp.pth; tiny: a small one with random weights, to try things",
    )  # fmt: skip
    parser.add_argument(
        "--like", metavar="DIR", help="released features of the same clips: say whether rows match"
    )
    add_frame_rate(parser)
    parser.add_argument("--device", default="auto", help="auto: the GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="extract again what is there")
    return parser.parse_args(arguments)


def find_targets(options: argparse.Namespace) -> list[Target]:
    """What is extracted; raises UserError if types, encoders and folders do not go together."""
    kinds = options.type
    folders = options.output_dir or [f"data/features/{kind}" for kind in kinds]
    if len({*map(os.path.abspath, folders)}) != len(kinds):
        raise UserError(f"--output_dir: {' and '.join(kinds)} features need a folder each")
    if options.like and len(kinds) > 1:
        raise UserError("--like compares features of one --type")
    encoders = encoder_of_each(kinds, options.encoder)
    return [Target(*each) for each in zip(kinds, encoders, map(Path, folders), strict=True)]


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Whether no other process, on any machine that shares the disk, works on what `file` names.

    The claim of a process that is killed ends with it.
    """
    try:
        with FileLock(file, timeout=0):
            yield True
            file.unlink(missing_ok=True)  # a waiting process then finds the features
    except Timeout:
        yield False


def device_of_process(name: str) -> str:
    """The device: each of several processes that torchrun starts on a machine takes a GPU."""
    if name == "auto" and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return name


def save_rows(folder: Path, name: str, rows: np.ndarray, card: dict) -> None:
    """Save a video's features, and list it when they are on the disk."""
    check_kind(folder, card)
    if not (folder / CARD_FILE).is_file():
        write_json(folder / CARD_FILE, card, indent=True)
    save_atomically(torch.from_numpy(rows), folder / f"{name}.pt")
    with FileLock(folder / f".{SHAPES_FILE}.lock"):
        write_json(folder / SHAPES_FILE, {**read_shapes(folder), name: len(rows)}, indent=True)


def files_by_name(videos: list[Path]) -> dict[str, Path]:
    """The videos by the names their features get."""
    by_name: dict[str, Path] = {}
    for file in videos:
        name = legible(file.stem)  # it is also written into JSON
        other = by_name.setdefault(name, file)
        if other.resolve() != file.resolve():
            raise UserError(f"{other} and {file} would both be {name}.pt; rename one")
    return by_name


def check_kind(folder: Path, card: dict) -> None:
    """Raises UserError if a folder holds features of another kind than `card` says."""
    known = read_card(folder)
    for name in SAME:
        if known and name in card and known.get(name) != card[name]:
            raise UserError(
                f"{folder}: holds features of another kind ({name} {known.get(name)}, not "
                f"{card[name]}); give another --output_dir"
            )


def released_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The feature files in a folder with these names; raises UserError if there are none."""
    files = {name: folder / f"{name}.pt" for name in names}
    files = {name: file for name, file in files.items() if file.is_file()}
    if not files:
        raise UserError(f"--like {folder}: holds no features of these videos ({named(names)})")
    return files


def likeness_table(folder: Path, released: dict[str, Path]) -> str:
    """How extracted rows compare with released ones of the same names, and whether they match."""
    from utils.features.files import read_features
    from utils.features.likeness import compare_rows

    table: list[list] = [["", "rows", "released", "cosine", "shift", "then", "far apart", ""]]
    matches = 0
    for name, file in released.items():
        if not (folder / f"{name}.pt").is_file():  # the video is broken
            continue
        rows, others = read_features(folder / f"{name}.pt"), read_features(file)
        if rows.shape[1] != others.shape[1]:
            raise UserError(f"{file}: {others.shape[1]} wide, rows here are {rows.shape[1]}")
        likeness = compare_rows(rows, others)
        matches += likeness.match
        cosines = (likeness.cosine, likeness.best_cosine, likeness.far_cosine)
        cosine, best, far = (f"{value:.3f}" for value in cosines)
        verdict = "matches" if likeness.match else "differs"
        table.append([name, *likeness[:2], cosine, f"{likeness.shift:+d}", best, far, verdict])
    return f"{figure_table(table)}\n{matches} of {len(table) - 1} match"


if __name__ == "__main__":
    run_program(main)
