"""Pack features into one checked file each, or cut clips out of features of whole videos.

    python utils/prepare_features.py --features egovlp clip
    python utils/prepare_features.py --features egovlp --from_video_features egovlp_videos \\
        --annotations data/nlq_train.json data/nlq_val.json data/nlq_test_unannotated.json

The first makes <data_root>/features/<name>.h5 of the folder <name> beside it; the second makes that
folder, or with --packed that file, of <video_uid>.pt. A stopped run is continued by the same
command.
"""

import argparse
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from filelock import FileLock, Timeout
from terminaltables import AsciiTable

from utils.base.errors import UserError, named, run_program, warn
from utils.base.files import fingerprint
from utils.base.options import ArgumentParser
from utils.base.tasks import FRAME_RATE, STRIDE
from utils.data.annotations import read_clips
from utils.features.files import (
    clip_files,
    folder_stamp,
    read_card,
    read_shapes,
    rows_off,
    rows_per_second,
)
from utils.features.packing import (
    FORMAT,
    FolderOutput,
    Map,
    Output,
    PackedOutput,
    Shape,
    Source,
    check_sources,
    look,
    workers,
    write_sources,
)

PROGRAM = f"utils/prepare_features.py {FORMAT}"
SHOWN = 20  # faults listed
GIVEN = ("frame_rate", "stride", "model", "source")  # of the card, as options

Bounds = dict[str, tuple[str, float, float]]  # clip uid -> video uid, start, end (s)


class Plan(NamedTuple):
    """What is to be written of one feature, and what can't be."""

    sources: list[Source]
    shape: Shape | None  # width and precision of all
    faults: list[str]
    missing: list[str]  # clips in the annotations that have no features


def main(arguments: list[str] | None = None) -> None:
    """Prepare each feature asked for and print a table of them."""
    options = parse(arguments)
    bounds = read_bounds(options.annotations)
    columns, faults = [], []
    with workers(options.workers) as run:
        for name in options.features:
            column, found = prepare(name, bounds, options, run)
            columns.append(column)
            faults += found
    print(table(columns))
    for fault in faults[:SHOWN]:
        print(f"fault: {fault}")
    if len(faults) > 1:
        raise UserError(
            f"{len(faults)} faults, named above; mend the files or take them away, and run the "
            f"same command again. The first: {faults[0]}"
        )
    if faults:
        raise UserError(faults[0])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--features", nargs="+", required=True, metavar="NAME", help="under <data_root>/features")
    add("--data_root", default="data", metavar="DIR", help="folder with features/")
    add("--from_video_features", metavar="DIR", help="cut clips out of <video_uid>.pt there")
    add(
        "--annotations", nargs="+", default=[], metavar="FILE",
        help="clips to cut; in packing, durations to compare rows with",
    )  # fmt: skip
    add("--packed", action="store_true", help="cut into one .h5 file, not a folder of .pt")
    add("--dtype", choices=("float16", "float32"), help="precision (default: that of the files)")
    add("--workers", type=int, default=1, metavar="N", help="processes; more if cores are idle")
    add("--overwrite", action="store_true", help="replace what was made from other files")
    card = parser.add_argument_group(
        "feature card (default: feature_card.json of the input, or that of published features)"
    )
    card.add_argument("--frame_rate", type=float, metavar="X", help="frames a second of the videos")
    card.add_argument("--stride", type=float, metavar="X", help="frames between rows")
    card.add_argument("--model", metavar="NAME", help="what extracted them")
    card.add_argument("--source", metavar="TEXT", help="where they come from")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be 1 or more")
    if min(options.frame_rate or 1, options.stride or 1) <= 0 or 0 in (
        options.frame_rate,
        options.stride,
    ):
        parser.error("--frame_rate and --stride must be above 0")
    if len(set(options.features)) < len(options.features):
        parser.error("--features names one twice")
    for name in options.features:
        if name in ("", "..", ".") or Path(name).name != name:
            parser.error(f"--features '{name}' must be plain folder names")
    if options.from_video_features:
        if len(options.features) > 1:
            parser.error("--from_video_features makes one feature: give --features one name")
        if not options.annotations:
            parser.error("--from_video_features needs --annotations: they say where clips lie")
    elif options.packed:
        parser.error("--packed belongs to --from_video_features; without it features are packed")
    return options


def read_bounds(files: list[str]) -> Bounds:
    """Video and bounds of each clip in annotation files; a `UserError` if they disagree."""
    bounds: Bounds = {}
    for video, clips in read_clips([Path(file) for file in files]).items():
        for clip, (start, end) in clips.items():
            if clip in bounds:
                raise UserError(
                    f"clip {clip} lies in two videos, {bounds[clip][0]} and {video}; the annotation"
                    " files are not of one version"
                )
            bounds[clip] = video, start, end
    return bounds


def prepare(
    name: str, bounds: Bounds, options: argparse.Namespace, run: Map
) -> tuple[dict, list[str]]:
    """One feature: its column of the table, and what is wrong with it."""
    features = Path(options.data_root) / "features"
    cut = options.from_video_features
    origin = Path(cut) if cut else features / name
    if not origin.is_dir():
        raise UserError(f"{origin}: no such folder; it must hold one .pt a {_whole(cut)}")
    if cut and origin.resolve() == (features / name).resolve():
        raise UserError(
            f"{origin}: holds the videos' features; clips need another name than {name}"
        )
    card = make_card(origin, options)
    plan = plan_cuts(origin, bounds, card, run) if cut else plan_packing(origin, bounds, run)
    if plan.missing:
        of = f"of {len(bounds)} clips in the annotations"
        warn(f"{origin}: no features {of} for {len(plan.missing)}: {named(plan.missing)}")
    sources, faults = plan.sources, plan.faults
    width = plan.shape.width if plan.shape else 0
    if plan.shape and card.get("width", width) != width:
        raise UserError(
            f"{origin}: features are {width} wide, their feature card says {card['width']}; "
            "correct the card, or fetch the features again"
        )
    dtype = options.dtype or ("float16" if plan.shape and plan.shape.half else "float32")
    output: Output
    if cut and not options.packed:
        output = FolderOutput(features / name, dtype, width)
    else:
        output = PackedOutput(features / f"{name}.h5", dtype, width)
    card |= {"width": width, "dtype": dtype, "program": PROGRAM}
    made_from = [[source.uid, source.mark()] for source in sources]
    card["fingerprint"] = fingerprint(made_from, {k: v for k, v in card.items() if k != "date"})
    column = describe(name, sources, bounds, card)
    output.final.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.final.with_name(f".{output.final.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            column["done before"] = 0
            if faults:
                faults = faults + check_sources(sources, dtype, run, f"checking {name} features")
            elif is_there(output, card["fingerprint"], options.overwrite):
                column["done before"] = len(sources)
            else:
                action = f"{'cutting' if cut else 'packing'} {name} features"
                faults, column["done before"] = write_sources(sources, output, card, run, action)
    except Timeout:
        raise UserError(f"{output.final}: another process is preparing it; wait for it") from None
    column |= {"missing clips": len(plan.missing), "faults": len(faults)}
    column["written"] = "nothing" if faults else str(output.final)
    return column, faults


def make_card(origin: Path, options: argparse.Namespace) -> dict:
    """The feature card: what the input's says, with what the options say in its place."""
    card = {
        "frame_rate": FRAME_RATE,
        "stride": STRIDE,
        "model": "unknown",
        "source": str(origin),
        **read_card(origin),
    }
    card |= {key: getattr(options, key) for key in GIVEN if getattr(options, key) is not None}
    if options.from_video_features:
        card["cut"] = "rows nearest to the clip's bounds in the features of its video"
    else:
        card["folder_stamp"] = folder_stamp(origin)
    return {**card, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def plan_packing(folder: Path, bounds: Bounds, run: Map) -> Plan:
    """Every clip of a folder, whole."""
    files = clip_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no .pt files, nothing to pack")
    shapes, faults = kept(files, look(files, run, folder.name))
    listed = read_shapes(folder)
    for file, shape in shapes.items():
        if listed.get(file.stem, shape.rows) != shape.rows:
            faults.append(
                f"{file}: has {shape.rows} rows, feature_shapes.json says {listed[file.stem]}; "
                "fetch the file again, or make the list anew"
            )
    sources = [Source(file.stem, file, 0, shape.rows) for file, shape in shapes.items()]
    there = {file.stem for file in files}
    missing = [clip for clip in bounds if clip not in there]
    return Plan(sources, common(shapes), faults, missing)


def plan_cuts(folder: Path, bounds: Bounds, card: dict, run: Map) -> Plan:
    """Of every clip whose video has features, the rows nearest to its bounds."""
    videos = sorted({video for video, _, _ in bounds.values()})
    files = [file for video in videos if (file := folder / f"{video}.pt").is_file()]
    if not files:
        raise UserError(
            f"{folder}: holds features of none of the {len(videos)} videos in the annotations"
        )
    shapes, faults = kept(files, look(files, run, folder.name))
    rate = rows_per_second(card)
    there = set(files)
    sources, missing = [], []
    for clip, (video, *seconds) in sorted(bounds.items()):
        file = folder / f"{video}.pt"
        if file not in there:
            missing.append(clip)
        elif file in shapes:
            first, last = (round(second * rate) for second in seconds)
            first = max(first, 0)
            stop = min(max(last, first + 1), shapes[file].rows)
            if first >= stop or rows_off(np.array(stop - first), np.array(last - first)):
                faults.append(
                    f"{file}: has {shapes[file].rows} rows, clip {clip} ends at row {last} "
                    f"({seconds[1]:.1f} s at {rate:g} rows a second); is the file cut off, or the "
                    "stride another?"
                )
            else:
                sources.append(Source(clip, file, first, stop))
    return Plan(sources, common(shapes), faults, missing)


def kept(files: list[Path], looked: list[Shape | str]) -> tuple[dict[Path, Shape], list[str]]:
    """The usable files, and what is wrong with the others: unreadable, or of another width."""
    shapes = {f: s for f, s in zip(files, looked, strict=True) if isinstance(s, Shape)}
    faults = [fault for fault in looked if isinstance(fault, str)]
    if shapes:
        width = Counter(shape.width for shape in shapes.values()).most_common(1)[0][0]
        for file, shape in shapes.items():
            if shape.width != width:
                faults.append(
                    f"{file}: features are {shape.width} wide, those of most files are {width}; "
                    "they must be of one kind"
                )
        shapes = {file: shape for file, shape in shapes.items() if shape.width == width}
    for file, shape in shapes.items():
        if not shape.rows:
            faults.append(f"{file}: features are empty, shape {shape[:2]}; extract it again")
    return {file: shape for file, shape in shapes.items() if shape.rows}, faults


def common(shapes: dict[Path, Shape]) -> Shape | None:
    """Width and precision of all; half only if every file is."""
    if not shapes:
        return None
    width = next(iter(shapes.values())).width
    return Shape(0, width, all(shape.half for shape in shapes.values()))


def is_there(output: Output, key: str, overwrite: bool) -> bool:
    """Whether the output was made from the same files before; a `UserError` if from others."""
    if not output.final.exists():
        return False
    try:
        made_from = output.made_from()
    except UserError:
        made_from = None  # something else, or damaged
    if made_from == key:
        return True
    if not overwrite:
        raise UserError(
            f"{output.final}: is there, made from other files or with other options; give "
            "--overwrite to replace it, or move it away"
        )
    return False


def describe(name: str, sources: list[Source], bounds: Bounds, card: dict) -> dict:
    """What there is to say of a feature: name of the line -> entry."""
    rows = np.array([source.rows for source in sources], np.int64)
    size = rows.sum() * card["width"] * np.dtype(card["dtype"]).itemsize
    column = {
        "feature": name,
        "clips": len(sources),
        "rows": f"{rows.sum():,}",
        "width": card["width"],
        "precision": card["dtype"],
        "GB": f"{size / 1e9:.3g}",
        "rows a second": f"{rows_per_second(card):g}",
    }
    seconds = np.array([np.diff(bounds[s.uid][1:])[0] if s.uid in bounds else 0 for s in sources])
    expected = seconds * rows_per_second(card)
    for title, pick in (("shortest clip", np.argmin), ("longest clip", np.argmax)):
        if len(rows):
            at = int(pick(rows))
            of = f" of {expected[at]:.1f}" if seconds[at] else ""
            column[title] = f"{rows[at]} rows{of}"
    known = np.flatnonzero(seconds > 0)
    if len(known):
        share = rows[known] / expected[known]
        column["rows for the duration"] = f"{share.min():.1%} to {share.max():.1%}"
        off = known[rows_off(rows[known], expected[known])]
        column["clips that do not fit"] = len(off)
        if len(off):
            names = named(
                f"{sources[n].uid} ({rows[n]} rows, expected {expected[n]:.0f})" for n in off
            )
            warn(
                f"{name}: rows of {len(off)} of {len(known)} clips do not fit their durations: "
                f"{names}; is the stride another than {card['stride']:g}?"
            )
    return column


def table(columns: list[dict]) -> str:
    """A column for each feature."""
    titles = list(dict.fromkeys(title for column in columns for title in column))
    return AsciiTable([[t, *(str(c.get(t, "")) for c in columns)] for t in titles]).table


def _whole(cut: str | None) -> str:
    return "video" if cut else "clip"


if __name__ == "__main__":
    run_program(main)
