"""Index a folder of videos, to ask questions about all of them (ask.py --index, serve.py).

The same command adds new and changed videos, and continues an indexing that was stopped.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from tqdm import tqdm

from utils import search
from utils.base.errors import UserError, named, run_program, warn
from utils.base.files import legible
from utils.base.options import ArgumentParser
from utils.base.tables import clock
from utils.features.video import add_frame_rate, find_videos

Sources = dict[Path, tuple[Path, ...]]  # video, or first feature file without one -> features


def main(arguments: list[str] | None = None) -> None:
    """Index new and changed videos; broken ones are named and left out, with exit code 2."""
    options = parse(arguments)
    if not (options.videos or options.features):
        raise UserError("nothing to index: name a folder of videos, or --features DIR")
    features = [Path(folder).absolute() for folder in options.features or []]
    files = find_sources(options.videos, features)
    from utils.search.index import DATABASE, VideoFiles, writing  # brings PyTorch
    from utils.training.checkpoints import find_checkpoint

    checkpoint, text_encoder, device = options.checkpoint, options.text_encoder, options.device
    if checkpoint is not None:
        find_checkpoint(checkpoint)  # before a new index is made
    elif not (Path(options.index) / DATABASE).is_file():
        raise UserError(f"{options.index}: a new index needs --checkpoint RUN")
    sources = [VideoFiles(path.absolute(), features) for path, features in files.items()]
    broken = 0
    with writing(Path(options.index)) as writer:
        if writer.run is None:
            run = search.load_run(checkpoint, text_encoder, None, device, options.encoder)
        else:
            run = writer.run.load(checkpoint, text_encoder, device, options.encoder)
            text_encoder = text_encoder or writer.run.text_encoder
        if checkpoint is not None:
            writer.keep_run(checkpoint, text_encoder, run)
        if len(options.features or run.model.features) != len(run.model.features):
            names = " and ".join(run.model.features)
            raise UserError(f"--features: the run reads {names} features, name a folder of each")
        lost = writer.drop_gone()
        new_sources = writer.missing(sources)
        for source in (bar := tqdm(new_sources, "indexing", unit="video", leave=False)):
            try:
                video = run.encode(source.features or source.path, frame_rate=options.frame_rate)
                writer.add(source, video)
            except UserError as fault:
                bar.write(f"broken: {fault}", file=sys.stderr)
                broken += 1
        count, seconds = writer.count()
    if lost:
        warn(f"{len(lost)} videos are gone: {named(legible(str(path)) for path in lost)}")
    print(
        f"{len(new_sources) - broken} indexed, {len(sources) - len(new_sources)} there before, "
        f"{broken} broken, {len(lost)} gone"
    )
    print(f"{options.index}: {count} videos, {clock(seconds)}")
    if broken:
        raise UserError(f"{broken} of {len(sources)} could not be read; they are named above")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("videos", nargs="?", metavar="FOLDER", help="folder of videos, or one of them")
    add("--index", required=True, metavar="DIR", help="folder of the index, new or to be added to")
    add("--checkpoint", metavar="RUN", help="run folder or checkpoint of any model; once")
    add(
        "--features", nargs="+", metavar="DIR",
        help="features ready to take, <video>.pt, also of videos that are not there; a folder for "
        "each feature the run reads",
    )  # fmt: skip
    add(
        "--encoder", nargs="+", metavar="NAME",
        help="image encoder (see extract_features.py), or one for each feature the run reads",
    )  # fmt: skip
    add_frame_rate(parser)
    search.add_run_options(parser)
    return parser.parse_args(arguments)


def find_sources(videos: str | None, features: list[Path]) -> Sources:
    """Videos with their features if they have any, and features without a video."""
    sources: Sources = {}
    names = set()
    for video in find_videos(videos) if videos else []:
        names.add(name := legible(video.stem))
        files = tuple(folder / f"{name}.pt" for folder in features)
        sources[video] = files if all(file.is_file() for file in files) else ()
    for file in sorted(features[0].glob("*.pt")) if features else []:
        files = tuple(folder / file.name for folder in features)
        if file.stem not in names and all(feature.is_file() for feature in files):
            sources[file] = files
    return sources


if __name__ == "__main__":
    run_program(main)
