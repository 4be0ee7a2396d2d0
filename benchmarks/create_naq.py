"""Narrations to NaQ: our program, compared with plain pandas and loops.

Simulates a data root as large as the published one in a temporary folder, runs each program on it
in a process of its own, and prints time, peak memory and the ratios. Both must write the same
queries. The plain one needs pandas, which is not among the requirements: pip install pandas.

    python benchmarks/create_naq.py                   # some minutes, 2 GB of disk
    python benchmarks/create_naq.py --preset small
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from utils.base.errors import UserError, run_program
from utils.base.files import read_json
from utils.base.options import ArgumentParser

PROGRAMS = Path(__file__).resolve().parents[1] / "utils"
# As many narrations inside of clips, and outside, as published.
PUBLISHED = ("--preset", "full", "--other_clips", "4600", "--bare_videos", "2700")


def main(arguments: list[str] | None = None) -> None:
    """Simulate, run both, compare."""
    parser = ArgumentParser(description=f"{__doc__.splitlines()[0]} Needs pandas.")
    parser.add_argument(
        "--preset", choices=("tiny", "small"), help="of simulate_dataset.py (default: as published)"
    )
    parser.add_argument("--plain", metavar="DIR", help="run the plain version on a data root")
    options = parser.parse_args(arguments)
    if find_spec("pandas") is None:
        raise UserError("the plain version needs pandas: pip install pandas")
    if options.plain:
        plain(Path(options.plain))
        return
    with tempfile.TemporaryDirectory(prefix="naq-benchmark-") as folder:
        data_root = Path(folder)
        root = ["--data_root", folder]
        sizes = ("--preset", options.preset) if options.preset else PUBLISHED
        program = PROGRAMS / "simulate_dataset.py"
        measure("simulation", [program, *sizes, "--features", "none", *root])
        size = (data_root / "egoclip.csv").stat().st_size / 1e6
        print(f"egoclip.csv {size:.0f} MB; {len(os.sched_getaffinity(0))} cores")
        program = [PROGRAMS / "create_naq_dataset.py", "--type", "nlq", "--em_version", "v1"]
        seconds, megabytes = measure("ours", [*program, *root])
        output = data_root / "nlq_aug_naq_train.json"
        print(f"{output.stat().st_size / 1e6:.0f} MB written", flush=True)
        our_output = output.rename(data_root / "ours.json")
        plain_seconds, plain_megabytes = measure("plain", [__file__, "--plain", folder])
        print(
            f"ratio: time {plain_seconds / seconds:.1f}x, memory {plain_megabytes / megabytes:.1f}x"
        )
        if annotations(our_output) != annotations(output):
            raise UserError("the two programs wrote different queries")
        print("both wrote the same queries")


def measure(name: str, command: list) -> tuple[float, float]:
    """Run a Python program; returns its wall time (s) and peak memory (MB)."""
    os.sync()  # so that the program does not wait for what was written before
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, megabytes = time.perf_counter() - begin, usage.ru_maxrss / 1e3
    if process.returncode:
        raise UserError(f"{name} failed; it says why above")
    processor = usage.ru_utime + usage.ru_stime
    print(f"{name}: {seconds:.1f} s ({processor:.1f} s of CPU), peak {megabytes:.0f} MB")
    return seconds, megabytes


def plain(data_root: Path) -> None:
    """The same step with pandas and loops."""
    import pandas as pd

    bounds: dict[str, dict] = {}
    for task in ("vq", "nlq", "moments"):
        for video in json.loads((data_root / f"{task}_train.json").read_text())["videos"]:
            for clip in video["clips"]:
                video_bounds = bounds.setdefault(video["video_uid"], {})
                video_bounds[clip["clip_uid"]] = (
                    clip["video_start_sec"],
                    clip["video_end_sec"],
                )
    uids = sorted(bounds)
    random.seed(300)
    random.shuffle(uids)
    kept = set(uids[: int(0.95 * len(uids))])
    table = pd.read_csv(data_root / "egoclip.csv", sep="\t", on_bad_lines="skip")
    for column in ("clip_start", "clip_end"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    table = table.dropna(subset=["clip_start", "clip_end", "clip_text"])
    narrations: dict[str, list] = {}
    for row in table[table["video_uid"].isin(kept)].itertuples():
        narrations.setdefault(row.video_uid, []).append(row)
    union: dict[tuple[str, str], dict] = {}
    for video in json.loads((data_root / "nlq_train.json").read_text())["videos"]:
        for clip in video["clips"]:
            union[video["video_uid"], clip["clip_uid"]] = clip
    for video in narrations:
        for uid, (start, end) in bounds[video].items():
            queries = []
            for row in narrations[video]:
                if row.clip_start < start or row.clip_end > end:
                    continue
                queries.append(
                    {
                        "clip_start_sec": row.clip_start - start,
                        "clip_end_sec": row.clip_end - start,
                        "video_start_sec": row.clip_start,
                        "video_end_sec": row.clip_end,
                        "video_start_frame": math.floor(row.clip_start * 30),
                        "video_end_frame": math.ceil(row.clip_end * 30),
                        "query": row.clip_text,
                    }
                )
            if queries:
                empty = {"clip_uid": uid, "video_start_sec": start, "video_end_sec": end}
                clip = union.setdefault((video, uid), {**empty, "annotations": []})
                annotation = {"annotation_uid": f"{video}_{uid}", "language_queries": queries}
                clip["annotations"].append(annotation)
    videos: dict[str, list] = {}
    for (video, _), clip in sorted(union.items()):
        videos.setdefault(video, []).append(clip)
    content = {
        "videos": [
            {"video_uid": uid, "clips": clips, "split": "train"} for uid, clips in videos.items()
        ]
    }
    (data_root / "nlq_aug_naq_train.json").write_text(json.dumps(content))


def annotations(path: Path) -> dict:
    """(video uid, clip uid) -> annotations of an annotation file."""
    return {
        (video["video_uid"], clip["clip_uid"]): clip["annotations"]
        for video in read_json(path)["videos"]
        for clip in video["clips"]
    }


if __name__ == "__main__":
    run_program(main)
