"""Simulate a small Ego4D: a complete data root in the published formats.

Writes annotations (nlq, vq, moments; v1 and v2), egoclip.csv and features, the answers of the test
split, and simulation.json, which describes the simulation. With --annotations it writes only
features, for real annotation files: to try programs before the download.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import msgspec
from tqdm import tqdm

from utils.base.errors import UserError, run_program
from utils.base.files import file_stamp, fingerprint, write_json
from utils.base.lazy import torch
from utils.base.options import SEEDS, ArgumentParser, within
from utils.base.tasks import ENDINGS, FEATURES, FRAME_RATE, SPLITS, STRIDE
from utils.base.tensor_files import save_atomically
from utils.features.cards import CARD_FILE, SHAPES_FILE, read_card
from utils.simulation.described import DescribedScenery, read_described
from utils.simulation.files import clip_file, nlq_file, write_narrations
from utils.simulation.queries import ask, narrate
from utils.simulation.scenery import Scenery, row_count
from utils.simulation.world import Sizes, simulate_world

PRESETS = {
    "tiny": Sizes(
        nlq_clips=(6, 4, 4), other_clips=4, bare_videos=1, queries=5.0,
        clip_seconds=(50.0, 75.0), margin=12.0, narrations=9.0,
    ),
    "small": Sizes(
        nlq_clips=(40, 50, 20), other_clips=160, bare_videos=10, queries=10.0,
        clip_seconds=(120.0, 150.0), margin=20.0, narrations=11.0,
    ),
    "full": Sizes(
        nlq_clips=(998, 328, 333), other_clips=702, bare_videos=6766, queries=11.6,
        clip_seconds=(480.0, 480.0), margin=1260.0, narrations=20.0,
    ),
}  # fmt: skip
# Name, split, and whether queries have their times.
NLQ_FILES = (
    ("nlq_train", "train", True),
    ("nlq_val", "val", True),
    ("nlq_test_unannotated", "test", False),
    ("simulated_test_ground_truth", "test", True),
)
CLIP_BENCHMARKS = ("vq", "moments")  # whose annotations list clips
NARRATIONS = "egoclip.csv"
MODEL = "simulated"  # in feature cards


class Simulated(NamedTuple):
    """A simulation whose features are to be written."""

    summary: dict[str, float]  # counts to print
    rows: dict[str, int]  # clip uid -> feature rows
    scenery_of: Callable[[str, int], Scenery | DescribedScenery]  # by name and width
    made_by: str  # fingerprint of options and inputs


def main(arguments: list[str] | None = None) -> None:
    """Simulate a data root, or features, and print counts."""
    options = parse(arguments)
    root = Path(options.data_root)
    began = time.monotonic()
    widths = feature_widths(options, root)
    simulated = describe(options) if options.annotations else invent(options, root, widths)
    for name, width in widths.items():
        write_features(root / "features" / name, width, simulated)
    summary = simulated.summary
    summary["rows"] = sum(simulated.rows.values())
    summary["seconds"] = round(time.monotonic() - began, 1)
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    summary["MB"] = round(size / 1e6, 1)
    print("".join(f"{name:<12} {value:>12,}\n" for name, value in summary.items()), end="")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data_root", default="data", metavar="DIR", help="folder to write")
    add("--preset", choices=tuple(PRESETS), default="small", help="sizes")
    add("--seed", type=within(int, SEEDS), default=1, metavar="N", help="seed of the world")
    add(
        "--features", nargs="+", default=["egovlp", "clip"], metavar="NAME",
        help=f"features to make ({', '.join(FEATURES)}), or none",
    )  # fmt: skip
    add(
        "--annotations", nargs="+", default=[], metavar="FILE",
        help="make features for these annotation files instead of a world",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace a real data root's files")
    sizes = parser.add_argument_group("sizes (default: those of the preset)")
    for name, kind, count, explanation in (
        ("nlq_clips", int, 3, "clips with questions in train, val, test"),
        ("other_clips", int, None, "further train clips, narrated only"),
        ("bare_videos", int, None, "narrated videos without clips"),
        ("queries", float, None, "mean number of questions a clip"),
        ("clip_seconds", float, 2, "shortest and longest clip"),
        ("margin", float, None, "mean seconds of a video outside of clips"),
        ("narrations", float, None, "narrations a minute, up to about 20"),
    ):
        sizes.add_argument(f"--{name}", type=kind, nargs=count, metavar="N", help=explanation)
    return parser.parse_args(arguments)


def feature_widths(options: argparse.Namespace, root: Path) -> dict[str, int]:
    """Width of each feature to make.

    Raises UserError if a feature is unknown, or if its folder holds features that were not
    simulated.
    """
    names = [] if options.features == ["none"] else options.features
    for name in names:
        if name not in FEATURES:
            raise UserError(f"--features {name}: must be of {', '.join(FEATURES)}, or none")
        folder = root / "features" / name
        simulated = read_card(folder).get("model") == MODEL
        if any(folder.glob("*")) and not simulated and not options.overwrite:
            raise UserError(
                f"{folder} holds features that are not simulated: give another --data_root, "
                "or --overwrite"
            )
    return {name: FEATURES[name] for name in names}


def invent(options: argparse.Namespace, root: Path, widths: dict[str, int]) -> Simulated:
    clip_files = [f"{benchmark}_{split}" for benchmark, split in product(CLIP_BENCHMARKS, SPLITS)]
    written = [name for name, *_ in NLQ_FILES] + clip_files
    files = [root / f"{name}{ending}" for name, ending in product(written, ENDINGS.values())]
    real = [file for file in (*files, root / NARRATIONS) if file.exists()]
    if real and not (root / "simulation.json").exists() and not options.overwrite:
        raise UserError(
            f"{real[0]} exists and is not simulated: give another --data_root, or --overwrite"
        )
    sizes = chosen_sizes(options)
    made_by = {"preset": options.preset, "seed": options.seed, **dataclasses.asdict(sizes)}
    world = simulate_world(sizes, options.seed)
    # Written first: it marks the folder as simulated, which may be overwritten.
    write_json(root / "simulation.json", {**made_by, "features": widths}, indent=True)
    questions = ask(world, sizes.queries, options.seed)
    for version, ending in ENDINGS.items():
        for name, split, times in NLQ_FILES:
            content = nlq_file(world, questions, split, version, options.seed, times)
            write_json(root / f"{name}{ending}", content)
        for benchmark, split in product(CLIP_BENCHMARKS, SPLITS):
            content = clip_file(world, benchmark, split, version)
            write_json(root / f"{benchmark}_{split}{ending}", content)
    narrations = narrate(world, sizes.narrations, options.seed)
    write_narrations(root / NARRATIONS, world, narrations, options.seed)
    summary = {
        "videos": len(world.videos.uids),
        "clips": len(world.clips.uids),
        "queries v1": int((~questions.only_in_v2).sum()),
        "queries v2": len(questions.only_in_v2),
        "narrations": len(narrations),
    }
    rows = dict(zip(world.clips.uids, map(row_count, world.clips.duration), strict=True))
    scenery_of = partial(Scenery, world, seed=options.seed)
    return Simulated(summary, rows, scenery_of, fingerprint(made_by))


def describe(options: argparse.Namespace) -> Simulated:
    """Read annotation files to simulate features for."""
    clips = read_described(options.annotations)
    made_by = fingerprint([file_stamp(file) for file in options.annotations], options.seed)
    summary = {"clips": len(clips), "queries": sum(len(clip.words) for clip in clips.values())}
    scenery_of = partial(DescribedScenery, list(clips.values()), seed=options.seed)
    rows = {uid: clip.rows for uid, clip in clips.items()}
    return Simulated(summary, rows, scenery_of, made_by)


def chosen_sizes(options: argparse.Namespace) -> Sizes:
    """The preset's sizes, or those given. Raises UserError if a size is invalid."""
    sizes = dataclasses.asdict(PRESETS[options.preset])
    given = {name: getattr(options, name) for name in sizes}
    sizes |= {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert(sizes, Sizes)
    except msgspec.ValidationError as error:
        raise UserError(str(error).replace("$.", "--")) from None


def write_features(folder: Path, width: int, simulated: Simulated) -> None:
    """Write `<clip_uid>.pt` of each clip, in the order of `rows`, and what goes with them.

    Clips that an earlier, stopped call wrote stay, if it was `made_by` the same.
    """
    card = {
        "frame_rate": FRAME_RATE,
        "stride": STRIDE,
        "window": STRIDE,
        "width": width,
        "model": MODEL,
        "normalisation": "none",
        "source": "utils/simulate_dataset.py",
        "fingerprint": simulated.made_by,
    }
    files = [folder / f"{uid}.pt" for uid in simulated.rows]
    if read_card(folder).get("fingerprint") != simulated.made_by:
        for file in files:
            file.unlink(missing_ok=True)
    # Written first, so that an interrupted simulation can be continued.
    write_json(folder / CARD_FILE, card, indent=True)
    scenery = simulated.scenery_of(folder.name, width)
    for number, file in enumerate(tqdm(files, f"simulating {folder.name} features", unit="clip")):
        if not file.exists():
            save_atomically(torch.from_numpy(scenery.rows(number)), file)
    write_json(folder / SHAPES_FILE, simulated.rows)


if __name__ == "__main__":
    run_program(main)
