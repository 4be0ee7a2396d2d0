"""Videos to features in the published layout, one `<name>.pt` (rows, width) a video.

Rows are 16/30 s apart, whatever the videos' frame rates. A stopped extraction is continued by the
same command: videos that are done are not read again.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from tqdm import tqdm

from utils.base.errors import UserError, run_program
from utils.base.files import check_output_folder, legible, write_json
from utils.base.lazy import torch
from utils.base.options import ArgumentParser
from utils.base.tensor_files import save_atomically
from utils.features.cards import CARD_FILE, SHAPES_FILE, read_card, read_shapes
from utils.features.image_kinds import KINDS, expected_card
from utils.features.video import add_frame_rate, find_videos

SAME = ("frame_rate", "stride", "window", "model", "hash")  # of cards in one folder


def main(arguments: list[str] | None = None) -> None:
    """Extract what is not there yet; broken videos are named and left out, with exit code 2."""
    options = parse(arguments)
    videos = by_name([file for path in options.videos for file in find_videos(path)])
    folder = Path(options.output_dir or f"data/features/{options.type}")
    check_output_folder("--output_dir", folder)
    check_card(folder, expected_card(options.type, options.encoder))
    shapes = read_shapes(folder)
    missing = {
        name: file
        for name, file in videos.items()
        if options.overwrite or name not in shapes or not (folder / f"{name}.pt").is_file()
    }
    broken = 0
    if missing:
        from utils.features.image_encoders import ImageEncoder  # brings PyTorch

        encoder = ImageEncoder(options.type, options.encoder, options.device)
        bar = tqdm(missing.items(), desc=f"extracting {options.type} features", unit="video")
        for name, file in bar:
            try:
                rows = encoder.extract(file, options.frame_rate)
            except UserError as fault:
                bar.write(f"broken: {fault}", file=sys.stderr)
                broken += 1
                continue
            card = encoder.card(rows.shape[1])
            check_card(folder, card)
            if not (folder / CARD_FILE).is_file():
                write_json(folder / CARD_FILE, card, indent=True)
            save_atomically(torch.from_numpy(rows), folder / f"{name}.pt")
            shapes[name] = len(rows)
            write_json(folder / SHAPES_FILE, shapes, indent=True)
    extracted, before = len(missing) - broken, len(videos) - len(missing)
    print(f"{extracted} extracted, {before} there before, {broken} broken: {folder}")
    if broken:
        raise UserError(f"{broken} of {len(videos)} videos could not be read; they are named above")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", nargs="+", required=True, metavar="DIR|FILE", help="videos")
    parser.add_argument("--type", choices=tuple(KINDS), default="clip", help="kind of features")
    parser.add_argument(
        "--output_dir", metavar="DIR", help="where they go (default: data/features/<type>)"
    )
    parser.add_argument(
        "--encoder", metavar="NAME|DIR|FILE",
        help="image encoder on the hub or in a folder (default: the published one), for egovlp its "
        "checkpoint egovlp.pth; tiny: a small one with random weights, to try things",
    )  # fmt: skip
    add_frame_rate(parser)
    parser.add_argument("--device", default="auto", help="auto: the GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="extract again what is there")
    return parser.parse_args(arguments)


def by_name(videos: list[Path]) -> dict[str, Path]:
    """The videos by the names their features get."""
    named: dict[str, Path] = {}
    for file in videos:
        name = legible(file.stem)  # it is also written into JSON
        other = named.setdefault(name, file)
        if other.resolve() != file.resolve():
            raise UserError(f"{other} and {file} would both be {name}.pt; rename one")
    return named


def check_card(folder: Path, card: dict) -> None:
    """Raises UserError if a folder's own card differs from `card`: features don't mix."""
    known = read_card(folder)
    for name in SAME:
        if known and name in card and known.get(name) != card[name]:
            raise UserError(
                f"{folder}: holds features of another kind ({name} {known.get(name)}, not "
                f"{card[name]}); give another --output_dir"
            )


if __name__ == "__main__":
    run_program(main)
