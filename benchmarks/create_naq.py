"""Narrations to NaQ at full size: our program, compared with plain pandas and loops.

Makes inputs as large as the published ones (3.85 M narrations of 7,900 videos, 540 MB; 1,700
training clips) in a temporary folder, runs each program on them in its own process, and prints
time, peak memory and the ratios. Both must write the same queries. The plain one needs
pandas, which is not among the requirements: pip install pandas.

    python benchmarks/create_naq.py              # full scale: some minutes, 2 GB of disk
    python benchmarks/create_naq.py --scale 0.1
"""

import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import uuid
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import polars as pl

from utils.base.errors import UserError, run_program
from utils.base.files import read_json, write_json
from utils.base.options import ArgumentParser

ROOT = Path(__file__).resolve().parents[1]
NARRATIONS, VIDEOS, CLIP_VIDEOS, CLIPS = 3_850_000, 7_900, 1_200, 1_700
CLIP_SECONDS = 480.0
NARRATIONS_PER_CLIP = 530


def main(arguments: list[str] | None = None) -> None:
    """Generate, run both, compare."""
    parser = ArgumentParser(description=f"{__doc__.splitlines()[0]} Needs pandas.")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full scale")
    parser.add_argument("--plain", metavar="DIR", help="run the plain version on a data root")
    options = parser.parse_args(arguments)
    if find_spec("pandas") is None:
        raise UserError("the plain version needs pandas: pip install pandas")
    if options.plain:
        plain(Path(options.plain))
        return
    with tempfile.TemporaryDirectory(prefix="naq-benchmark-") as folder:
        data_root = Path(folder)
        # In a process of its own: what this one holds would count as its children's peak.
        generator = get_context("spawn").Process(target=generate, args=(data_root, options.scale))
        generator.start()
        generator.join()
        size = (data_root / "egoclip.csv").stat().st_size / 1e6
        print(f"scale {options.scale:g}: egoclip.csv {size:.0f} MB; {machine()}", flush=True)
        program = ROOT / "utils" / "create_naq_dataset.py"
        ours = measure("ours", [program, "--type", "nlq", "--em_version", "v1"], data_root)
        written = data_root / "nlq_aug_naq_train.json"
        print(f"{'':8}{written.stat().st_size / 1e6:.0f} MB written", flush=True)
        ours_output = written.rename(data_root / "ours.json")
        plain_cost = measure("plain", [Path(__file__).resolve(), "--plain"], data_root)
        print(f"ratio   time {plain_cost[0] / ours[0]:.1f}x, memory {plain_cost[1] / ours[1]:.1f}x")
        if not same_queries(ours_output, written):
            raise UserError("the two programs wrote different queries")
        print("both wrote the same queries")


def measure(name: str, command: list, data_root: Path) -> tuple[float, float]:
    """Run a Python program on a data root; its wall time (s) and peak memory (MB)."""
    program, *arguments = map(str, command)
    where = [str(data_root)] if "--plain" in arguments else ["--data_root", str(data_root)]
    os.sync()  # so that the program does not wait for what was written before
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, program, *arguments, *where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    complaint = process.stderr.read().decode() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, megabytes = time.perf_counter() - begin, usage.ru_maxrss / 1e3
    if process.returncode:
        raise UserError(f"{name} failed: {complaint[-300:]}")
    processor = usage.ru_utime + usage.ru_stime
    print(
        f"{name:8}{seconds:.1f} s ({processor:.1f} s of CPU), peak {megabytes:.0f} MB", flush=True
    )
    return seconds, megabytes


def machine() -> str:
    """The machine, for the first line of a table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {memory:.0f} GB, {platform.machine()}, Python {sys.version.split()[0]}"


def generate(data_root: Path, scale: float) -> None:
    """Write inputs of the published size times `scale`; the same at each call."""
    draw = np.random.default_rng(0)
    names = random.Random(0)
    narrations, video_count, clip_videos, clip_count = (
        max(4, round(number * scale)) for number in (NARRATIONS, VIDEOS, CLIP_VIDEOS, CLIPS)
    )
    videos = [str(uuid.UUID(int=names.getrandbits(128))) for _ in range(video_count)]
    clips = _clips(videos[:clip_videos], clip_count, names)
    for task, share in (("vq", 0.7), ("moments", 0.8), ("nlq", 0.8)):
        chosen = [clip for clip in clips if draw.random() < share]
        write_json(data_root / f"{task}_train.json", _annotations(chosen, task == "nlq", draw))
    _write_narrations(data_root / "egoclip.csv", videos, clips, narrations, draw)


def _clips(videos: list[str], count: int, names: random.Random) -> list[tuple[str, str, float]]:
    """(video uid, clip uid, start in seconds) of each clip; clips of a video follow each other."""
    clip_count: dict[str, int] = {}
    clips = []
    for number in range(count):
        video = videos[number % len(videos)]
        start = clip_count.get(video, 0) * CLIP_SECONDS
        clip_count[video] = clip_count.get(video, 0) + 1
        clips.append((video, str(uuid.UUID(int=names.getrandbits(128))), start))
    return clips


def _annotations(clips: list, with_queries: bool, draw: np.random.Generator) -> dict:
    videos: dict[str, list] = {}
    for video, clip, start in clips:
        queries = []
        for begin in draw.uniform(0, CLIP_SECONDS - 10, 8 if with_queries else 0).tolist():
            queries.append(
                {"query": "Where did I put X?", "clip_start_sec": begin, "clip_end_sec": begin + 5}
            )
        annotations = [{"annotation_uid": f"a-{clip}", "language_queries": queries}]
        bounds = {"video_start_sec": start, "video_end_sec": start + CLIP_SECONDS}
        videos.setdefault(video, []).append(
            {"clip_uid": clip, **bounds, "annotations": annotations}
        )
    return {"videos": [{"video_uid": uid, "clips": clips} for uid, clips in videos.items()]}


def _write_narrations(
    path: Path, videos: list[str], clips: list, count: int, draw: np.random.Generator
) -> None:
    """Narrations by video; those of a video by pass, then time, as in the published file."""
    inside = min(len(clips) * NARRATIONS_PER_CLIP, count // 2)
    number = {uid: index for index, uid in enumerate(videos)}
    clip = draw.integers(0, len(clips), inside)
    clip_video = np.array([number[video] for video, _, _ in clips])
    clip_start = np.array([start for _, _, start in clips])
    video = np.concatenate([clip_video[clip], draw.integers(0, len(videos), count - inside)])
    moment = np.concatenate(
        [clip_start[clip], np.full(count - inside, 2 * CLIP_SECONDS)]
    ) + draw.uniform(0, CLIP_SECONDS, count)
    half = draw.uniform(0.1, 1.5, count)
    passes = draw.integers(1, 3, count)
    order = np.lexsort((moment, passes, video))
    verbs = ["picks", "puts down", "looks at", "washes", "cuts", "moves", "opens", "holds"]
    things = [f"the {a} {b}" for a in ("big", "red", "wet") for b in "abcdefghij"]
    texts = np.array([f"#C C {verb} {thing}" for verb in verbs for thing in things])
    columns = {
        "video_uid": np.array(videos)[video[order]],
        "video_dur": np.full(count, 3 * CLIP_SECONDS),
        "narration_source": np.array(["", "narration_pass_1", "narration_pass_2"])[passes[order]],
        "narration_ind": np.arange(count),
        "narration_time": moment[order],
        "clip_start": np.maximum(moment - half, 0)[order],
        "clip_end": (moment + half)[order],
        "clip_text": texts[draw.integers(0, len(texts), count)],
        "tag_verb": np.full(count, "[93]"),
        "tag_noun": np.full(count, "[12]"),
    }
    pl.DataFrame(columns).write_csv(path, separator="\t", float_precision=6, quote_style="never")


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


def same_queries(one: Path, other: Path) -> bool:
    """Whether two annotation files hold the same clips with the same annotations."""

    def annotations(path: Path) -> dict:
        return {
            (video["video_uid"], clip["clip_uid"]): clip["annotations"]
            for video in read_json(path)["videos"]
            for clip in video["clips"]
        }

    return annotations(one) == annotations(other)


if __name__ == "__main__":
    run_program(main)
