"""Pack features into one checked file each, or cut clips out of features of whole videos.

    python utils/prepare_features.py --features egovlp clip
    python utils/prepare_features.py --features egovlp --from_video_features egovlp_videos \\
        --annotations data/nlq_train.json data/nlq_val.json data/nlq_test_unannotated.json
    python utils/prepare_features.py --features internvideo --from_lmdb internvideo.lmdb

The first makes <data_root>/features/<name>.h5 of the folder <name> beside it; the second makes that
folder, or with --packed that file, of <video_uid>.pt; the third that file of an LMDB file.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np

from utils.base.errors import UserError, named, run_program, warn
from utils.base.files import fingerprint
from utils.base.options import ArgumentParser
from utils.base.tables import show_size
from utils.base.tasks import FRAME_RATE, STRIDE
from utils.data.annotations import read_clips
from utils.features.cards import check_card, read_card
from utils.features.cuts import ClipCuts, VideoCuts, write_folder
from utils.features.files import FeatureFiles, FeatureFolder, clip_files, folder_stamp
from utils.features.lmdb_files import LmdbFeatures
from utils.features.mapped import check_durations
from utils.features.packed import PackedFeatures, write_packed

CARD_OPTIONS = ("frame_rate", "stride", "model", "source")  # the values of the card they name


def main(arguments: list[str] | None = None) -> None:
    """Prepare each feature and print a line about it."""
    options = parse(arguments)
    videos = read_clips([Path(file) for file in options.annotations])
    bounds = {
        clip: (video, *bounds) for video, clips in videos.items() for clip, bounds in clips.items()
    }
    for name in options.features:
        prepare(name, bounds, options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--features", nargs="+", required=True, metavar="NAME", help="under <data_root>/features")
    add("--data_root", default="data", metavar="DIR", help="folder with features/")
    add("--from_video_features", metavar="DIR", help="cut clips out of <video_uid>.pt there")
    add("--from_lmdb", metavar="FILE", help="pack the arrays of an LMDB file keyed by clip uid")
    add(
        "--annotations", nargs="+", default=[], metavar="FILE",
        help="clips to cut; in packing, durations to compare rows with",
    )  # fmt: skip
    add("--packed", action="store_true", help="cut into one .h5 file, not a folder of .pt")
    add("--dtype", choices=("float16", "float32"), help="precision (default: that of the files)")
    add("--overwrite", action="store_true", help="replace what was made from other files")
    card = parser.add_argument_group(
        "feature card (default: feature_card.json of the input, or that of published features)",
        argument_default=argparse.SUPPRESS,
    )
    card.add_argument("--frame_rate", type=float, metavar="X", help="frames a second of the videos")
    card.add_argument("--stride", type=float, metavar="X", help="frames between rows")
    card.add_argument("--model", metavar="NAME", help="what extracted them")
    card.add_argument("--source", metavar="TEXT", help="where they come from")
    options = parser.parse_args(arguments)
    for name in options.features:
        if name in ("", "..", ".") or Path(name).name != name:
            parser.error(f"--features '{name}' must be plain folder names")
    if options.from_video_features:
        if len(options.features) > 1:
            parser.error("--from_video_features makes one feature: give --features one name")
        if not options.annotations:
            parser.error("--from_video_features needs --annotations: they say where clips lie")
    if options.from_lmdb and (options.from_video_features or len(options.features) > 1):
        parser.error("--from_lmdb makes one feature, of one LMDB file")
    if options.packed and not options.from_video_features:
        parser.error("--packed belongs to --from_video_features; without it features are packed")
    return options


def prepare(name: str, bounds: ClipCuts, options: argparse.Namespace) -> None:
    """Check and write one feature, unless it is there already."""
    folder, is_cut = Path(options.data_root) / "features" / name, options.from_video_features
    output = folder if is_cut and not options.packed else folder.with_name(f"{name}.h5")
    files = open_source(options, folder, bounds)
    given_values = {key: value for key, value in vars(options).items() if key in CARD_OPTIONS}
    defaults = {"frame_rate": FRAME_RATE, "stride": STRIDE, "model": "unknown"}
    files.card = {**defaults, "source": str(files.path), **files.card, **given_values}
    check_card(files.card, files.path)
    missing = sorted(bounds.keys() - {files.clip_uids[clip] for clip in files.present})
    if missing:
        what = f"no features of {len(missing)} of {len(bounds)} clips in the annotations"
        warn(f"{files.path}: {what}: {named(missing)}")

    lengths, width, precision = files.layout()
    card = {**files.card, "width": width, "dtype": options.dtype or precision.__name__}
    card["program"] = "utils/prepare_features.py"
    if is_cut:
        card["cut"] = "rows nearest to the clip's bounds in the features of its video"
    elif not options.from_lmdb:
        card["folder_stamp"] = folder_stamp(folder)
    seconds = {clip: end - start for clip, (_, start, end) in bounds.items()}
    durations = np.array([seconds.get(uid, np.nan) for uid in files.clip_uids])
    check_durations(files, lengths, durations)
    card["fingerprint"] = fingerprint(files.stamps(), card)
    card["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    rows, size = lengths[lengths > 0], lengths.sum() * width * np.dtype(card["dtype"]).itemsize
    facts = (
        f"{name}: {len(rows)} clips of {rows.min()} to {rows.max()} rows, {width} wide, "
        f"{card['dtype']}, {show_size(size)}"
    )
    if is_there(output, card["fingerprint"], options.overwrite):
        print(f"{facts}; made before from the same files: {output}")
        return
    if output == folder:
        write_folder(files, folder, card)
    else:
        write_packed(files, lengths, output, card)
    print(f"{facts}; written: {output}")


def open_source(options: argparse.Namespace, folder: Path, bounds: ClipCuts) -> FeatureFiles:
    """The features to pack, or to cut into `folder`."""
    if options.from_lmdb:
        return LmdbFeatures(Path(options.from_lmdb))
    if not options.from_video_features:
        uids = [file.stem for file in clip_files(folder)]
        if not uids:
            raise UserError(f"{folder}: no folder of .pt files, one a clip; nothing to pack")
        return FeatureFolder(folder, uids)
    videos = Path(options.from_video_features)
    if videos.resolve() == folder.resolve():
        raise UserError(
            f"{videos}: holds the videos' features; clips need another name than {folder.name}"
        )
    files = VideoCuts(videos, bounds)
    if not files.present:
        count = len({video for video, _, _ in bounds.values()})
        raise UserError(
            f"{videos}: holds features, one .pt a video, of none of the {count} videos in the "
            "annotations"
        )
    return files


def is_there(output: Path, key: str, overwrite: bool) -> bool:
    """Whether the output was made from the same files before; a `UserError` if from others."""
    if not output.exists():
        return False
    try:
        card = read_card(output) if output.is_dir() else PackedFeatures(output, []).card
    except UserError:  # something else, or damaged
        card = {}
    is_same = card.get("fingerprint") == key
    if not is_same and not overwrite:
        raise UserError(
            f"{output}: is there, made from other files or with other options; give --overwrite to "
            "replace it, or move it away"
        )
    return is_same


if __name__ == "__main__":
    run_program(main)
