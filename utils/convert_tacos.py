"""Public TACoS annotations to the NLQ schema: tacos_{train,val,test}.json under the data root.

The public files, {train,val,test}.json or one file with all three splits, hold for each video its
frame rate, its number of frames, sentences, and their windows in frames: as `sentences` and
`timestamps`, or as `annotations`. A clip is a whole video; sentences are the queries.
"""

import sys
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from msgspec import Meta, Raw, Struct, field

from utils.base.errors import UserError, run_program
from utils.base.files import parse_json, read_json, write_json
from utils.base.options import ArgumentParser
from utils.base.tasks import SPLITS, TASKS
from utils.data.annotations import clip_name_fault

# Windows in the public files that are counted.
ODDITIES = ("reversed", "of zero length", "past the end")


Frame = int | float
Window = tuple[Frame, Frame]  # frames


class TacosSentence(Struct):
    sentence: str
    window: Window = field(name="segment(frame)")


class TacosVideo(Struct):
    fps: Annotated[float, Meta(gt=0)]
    num_frames: Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)]
    timestamps: list[Window] | None = None
    sentences: list[str] | None = None
    annotations: list[TacosSentence] | None = None

    def __post_init__(self) -> None:
        if self.annotations is not None:
            self.sentences = [annotation.sentence for annotation in self.annotations]
            self.timestamps = [annotation.window for annotation in self.annotations]
        if self.sentences is None or self.timestamps is None:
            raise ValueError("holds neither sentences and timestamps nor annotations")
        if len(self.timestamps) != len(self.sentences):
            raise ValueError("timestamps and sentences differ in number")


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--input_dir", required=True, metavar="DIR|FILE",
        help="folder of {train,val,test}.json, or one file with these splits",
    )  # fmt: skip
    add("--data_root", default="data", metavar="DIR", help="folder to write")
    options = parser.parse_args(arguments)
    print(f"{'split':<6} {'queries':>8} {'clips':>6}  windows")
    for split, (source, videos) in read_splits(Path(options.input_dir)).items():
        annotations, queries, oddities = convert_split(source, videos, split)
        write_json(Path(options.data_root) / TASKS["tacos"].annotations[split], annotations)
        notes = ", ".join(f"{count} {kind}" for kind, count in oddities.items())
        print(f"{split:<6} {queries:>8} {len(annotations['videos']):>6}  {notes}", flush=True)


def read_splits(path: Path) -> dict[str, tuple[str, dict[str, Raw]]]:
    """Videos of each split, with a name for messages, of a folder or of one file."""
    if path.is_file():
        splits = read_json(path, dict[str, dict[str, Raw]])
        if missing := [split for split in SPLITS if split not in splits]:
            raise UserError(f"{path}: holds no split {', '.join(missing)}")
        return {split: (f"{path}: {split}", splits[split]) for split in SPLITS}
    files = {split: path / f"{split}.json" for split in SPLITS}
    return {split: (str(file), read_json(file, dict[str, Raw])) for split, file in files.items()}


def convert_split(
    source: str, tacos: dict[str, Raw], split: str
) -> tuple[dict, int, dict[str, int]]:
    """Convert the videos of one split.

    Reversed windows are corrected; windows of zero length or past the end of the video are kept, as
    in NLQ.

    Returns: annotations in the NLQ schema, the number of queries, and how many windows are odd.

    Raises:
        UserError: a video is invalid; the message names it and the JSON path.
    """
    videos, queries, oddities = [], 0, dict.fromkeys(ODDITIES, 0)
    for name, content in tacos.items():
        if fault := clip_name_fault(name):
            raise UserError(f"{source}: {fault}")
        video = parse_json(content, TacosVideo, f"{source}: {name}")
        videos.append({"video_uid": name, "split": split, "clips": [_clip(name, video, oddities)]})
        queries += len(video.sentences)
    return {"version": "tacos", "videos": videos}, queries, oddities


def _clip(name: str, video: TacosVideo, oddities: dict[str, int]) -> dict:
    fps, frames = video.fps, video.num_frames
    queries = []
    for window, sentence in zip(video.timestamps, video.sentences, strict=True):
        start_frame, end_frame = sorted(window)
        oddities["reversed"] += window[0] > window[1]
        oddities["of zero length"] += start_frame == end_frame
        oddities["past the end"] += end_frame > frames
        start, end = start_frame / fps, end_frame / fps
        queries.append(
            {
                "query": sentence,
                "clip_start_sec": start,
                "clip_end_sec": end,
                "video_start_sec": start,
                "video_end_sec": end,
                "video_start_frame": start_frame,
                "video_end_frame": end_frame,
            }
        )
    return {
        "clip_uid": name,
        "video_start_sec": 0.0,
        "video_end_sec": frames / fps,
        "video_start_frame": 0,
        "video_end_frame": frames,
        "annotations": [{"annotation_uid": name, "language_queries": queries}],
    }


if __name__ == "__main__":
    run_program(main)
