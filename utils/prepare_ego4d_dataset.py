"""Annotation files to prepared data sets: DIR/{train,val,test}.json, one entry a clip.

Takes files in the Ego4D schema (NLQ, TACoS, either joined with NaQ, or NaQ alone). Times become
positions of feature rows, 1.875 a second, beside the exact seconds.
"""

import gc
import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment


from utils.base.errors import UserError, run_program
from utils.base.files import write_json
from utils.base.options import ArgumentParser
from utils.base.tasks import SPLITS
from utils.data.prepared import prepare_split


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    for split in SPLITS:
        explanation = f"annotations of the {split} split"
        if split == "test":
            explanation += ", if there is one; its queries may lack times"
        add(f"--input_{split}_split", required=split != "test", metavar="FILE", help=explanation)
    add(
        "--output_save_path", required=True, metavar="DIR",
        help="folder to write, such as data/dataset/nlq_official_v1",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    files = {split: getattr(options, f"input_{split}_split") for split in SPLITS}
    inputs = {split: Path(file) for split, file in files.items() if file is not None}
    for split, path in inputs.items():  # checked before minutes of work
        if not path.is_file():
            raise UserError(f"--input_{split}_split {path}: no such file")
    counts = {}
    for split, path in inputs.items():
        clips = prepare_split(path, has_times=split != "test")
        write_json(Path(options.output_save_path) / f"{split}.json", clips)
        counts[split] = sum(len(clip.sentences) for clip in clips.values()), len(clips)
    print(f"{'split':<6} {'queries':>10} {'clips':>8}")
    for split, (queries, clips) in counts.items():
        print(f"{split:<6} {queries:>10} {clips:>8}")


if __name__ == "__main__":
    gc.disable()  # a million small objects without cycles: collecting costs time
    run_program(main)
