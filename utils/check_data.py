"""Look over a data root before a long run: what is missing, malformed or would be a surprise.

    python utils/check_data.py --data_root data --task nlq --features egovlp clip

Prints a table (check, verdict, what, what to do). Exit code 0 if nothing is an error, else 2.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from utils.base.errors import UserError, named, run_program
from utils.base.options import ArgumentParser
from utils.base.tables import Findings
from utils.base.tasks import SPLITS, TASKS, Task, clip_sources
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.data.narrations import read_narrations
from utils.data.records import PreparedClip, Records, prepare_split, read_records
from utils.data.spans import EMPTY_SECONDS
from utils.features.checks import check_disk, check_features

TOLERANCE = 0.05  # seconds a window may lie outside its clip without a word: annotators' rounding

MEND_PREPARED = "python utils/prepare_ego4d_dataset.py --help"
MEND_NAQ = "only for NaQ: python utils/create_naq_dataset.py --help"


def check_annotations(
    root: Path, task: Task, findings: Findings
) -> dict[str, dict[str, PreparedClip]]:
    """Annotation files, their windows, and splits that share clips or videos.

    Returns: split -> what `prepare_split` makes of its file, where there is one.
    """
    prepared, videos = {}, {}
    for split in SPLITS:
        check = f"annotations, {split}"
        file = root / task.annotations[split]
        if not file.is_file():
            there = (root / "dataset" / task.dataset / f"{split}.json").is_file()
            note = findings.warning if there else findings.error
            note(check, f"{file}: not there", "see data/README.md for where it comes from")
            continue
        # The same reading as for a prepared data set: what it refuses can't be prepared.
        clips = findings.tried(check, prepare_split, file, split != "test")
        if clips is None:
            continue
        annotations = read_annotations(file)
        prepared[split] = clips
        videos[split] = {video.video_uid for video, _ in iter_clips(annotations)}
        _check_windows(check, file, clips, split, findings)
        queries = iter_queries(annotations, with_textless=True)
        if textless := sum(not query.text for query in queries):
            findings.warning(check, f"{textless} queries have no text; they are left out")
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if one in prepared and other in prepared:
            clips = prepared[one].keys() & prepared[other].keys()
            _check_shared(one, other, clips, videos[one] & videos[other], findings)
    return prepared


def _check_windows(
    check: str, file: Path, clips: dict[str, PreparedClip], split: str, findings: Findings
) -> None:
    counts = [len(clip.sentences) for clip in clips.values()]
    if not sum(counts):
        findings.error(check, f"{file}: holds no queries", "fetch the file again")
        return
    findings.ok(check, f"{sum(counts)} queries of {len(clips)} clips")
    if split == "test":
        return
    times = np.concatenate([clip.exact_times for clip in clips.values()])  # (R, 2)
    length = np.array([clip.num_frames / clip.fps for clip in clips.values()])
    length = np.repeat(length, counts)  # (R,) seconds, rounded down to whole feature rows
    row = 1 / next(iter(clips.values())).fps
    start, end = times.T
    outside = (start < -TOLERANCE) | (end > length + row + TOLERANCE)
    beyond = (start > length + row) | (end < 0)
    empty = (end - start <= EMPTY_SECONDS) & (end >= start)
    for where, what, remedy in (
        (end < start, "windows end before they start", "correct or remove them"),
        (beyond, "windows lie wholly outside their clips", "correct or remove them"),
        (outside & ~beyond, "windows reach past their clips; they are cut there", ""),
        (
            empty,
            "windows are at most 1/30 s long",
            "--remove_empty_queries_from train val leaves them out (VSLNet)",
        ),
    ):
        if where.any():
            findings.warning(check, f"{np.count_nonzero(where)} {what}", remedy)


def _check_shared(
    one: str, other: str, clips: set[str], videos: set[str], findings: Findings
) -> None:
    check = f"{one} and {other}"
    if clips:
        what = f"share {len(clips)} clips ({named(sorted(clips))})"
        findings.error(check, what, f"take them out of {one}: scores would be of seen clips")
    elif videos:
        what = f"share {len(videos)} videos ({named(sorted(videos))}), but no clip"
        findings.warning(check, what, "a model may know the rooms it is asked about")
    else:
        findings.ok(check, "share no clip and no video")


def check_prepared(
    root: Path, task: Task, prepared: dict[str, dict[str, PreparedClip]], findings: Findings
) -> dict[str, Records]:
    """Prepared data sets: there, well formed, and made from the annotations that are there.

    Returns: `<data set>/<split>` -> its columns.
    """
    records = {}
    for dataset in (task.dataset, task.naq_dataset):
        folder = root / "dataset" / dataset
        check = f"data set {dataset}"
        if not folder.is_dir():
            naq = dataset == task.naq_dataset
            (findings.warning if naq else findings.error)(
                check, f"{folder}: not there", f"only for NaQ: {MEND_PREPARED}" if naq else
                MEND_PREPARED,
            )  # fmt: skip
            continue
        for split in SPLITS:
            own = findings.tried(f"{check}, {split}", read_records, folder / f"{split}.json")
            if own is None:
                continue
            records[f"{dataset}/{split}"] = own
            if not len(own):
                findings.error(f"{check}, {split}", "holds no queries", MEND_PREPARED)
            elif _is_stale(own, split, dataset == task.naq_dataset, prepared):
                findings.error(
                    f"{check}, {split}", f"was not made from {task.annotations[split]} as it is",
                    MEND_PREPARED,
                )  # fmt: skip
            else:
                narrations = np.count_nonzero(own.is_narration)
                findings.ok(f"{check}, {split}", f"{len(own)} queries, {narrations} narrations")
    return records


def _is_stale(
    records: Records, split: str, naq: bool, prepared: dict[str, dict[str, PreparedClip]]
) -> bool:
    """Whether the queries in a prepared split are others than those of its annotation file."""
    if split not in prepared:
        return False
    said = {
        (clip_uid, *query)
        for clip_uid, clip in prepared[split].items()
        for query in zip(
            clip.annotation_uids, clip.query_idx, clip.sentences,
            clip.timestamps, strict=True,
        )
    }  # fmt: skip
    held = {
        (records.clip_uids[clip], records.annotation_uids[annotation], index,
         records.sentences[sentence], tuple(times))
        for clip, annotation, index, sentence, times in zip(
            records.clip.tolist(), records.annotation.tolist(), records.query_idx.tolist(),
            records.sentence.tolist(), records.timestamps.astype(int).tolist(), strict=True,
        )
    }  # fmt: skip
    return not said <= held if naq and split == "train" else said != held


def check_narrations(root: Path, task: Task, findings: Findings) -> None:
    """What NaQ is made from: narrations, the annotation files that say which clips there are."""
    videos: set[str] = set()
    for name in clip_sources(task.version):
        check = f"clips of {name.split('_')[0]}"
        file = root / name
        if not file.is_file():
            findings.warning(check, f"{file}: not there", MEND_NAQ)
        elif (content := findings.tried(check, read_annotations, file)) is not None:
            videos |= {video.video_uid for video, _ in iter_clips(content)}
            findings.ok(check, f"{sum(1 for _ in iter_clips(content))} clips")
    file = root / "egoclip.csv"
    if not file.is_file():
        findings.warning("narrations", f"{file}: not there", MEND_NAQ)
        return
    narrations = findings.tried("narrations", read_narrations, file, sorted(videos))
    if narrations is None:
        return
    what = f"{len(narrations)} rows of {len(videos)} videos; {narrations.describe_skipped()}"
    if videos and not len(narrations):
        findings.error("narrations", what, "narrations and annotations do not belong together")
    elif narrations.skipped:
        findings.warning("narrations", what)
    else:
        findings.ok("narrations", what)


def clips_wanted(records: Iterable[Records], prepared: Iterable[dict]) -> dict[str, float]:
    """Clips with queries, uid -> seconds: of prepared data sets, or else of annotation files."""
    clips: dict[str, float] = {}
    for own in records:
        used = np.unique(own.clip).tolist()
        clips |= {own.clip_uids[c]: float(own.num_frames[c] / own.fps[c]) for c in used}
    for own in prepared if not clips else ():
        clips |= {uid: clip.num_frames / clip.fps for uid, clip in own.items()}
    return clips


def main(arguments: list[str] | None = None) -> None:
    """Run all checks and print what they found."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="data", metavar="DIR", help="the folder to check")
    parser.add_argument("--task", default="nlq", choices=sorted(TASKS), help="what will be trained")
    parser.add_argument(
        "--features", nargs="+", metavar="NAME", help="features to check (default: all there are)"
    )
    parser.add_argument("--thorough", action="store_true", help="read every row of every feature")
    parser.add_argument("--cache_dir", metavar="DIR", help="derived stores (default: DIR/cache)")
    options = parser.parse_args(arguments)
    root, task, findings = Path(options.data_root), TASKS[options.task], Findings()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the data root with --data_root")
    prepared = check_annotations(root, task, findings)
    check_narrations(root, task, findings)
    records = check_prepared(root, task, prepared, findings)
    clips = clips_wanted(records.values(), prepared.values())
    there = (root / "features").glob("*")
    found = {path.stem for path in there if path.is_dir() or path.suffix == ".h5"}
    names = options.features or sorted(found)
    if not names:
        findings.error("features", f"{root / 'features'}: holds none", "see data/README.md")
    sizes = {}
    for name in names if clips else ():
        if size := check_features(root, name, clips, options.thorough, findings):
            sizes[name] = size
    cache = Path(options.cache_dir) if options.cache_dir else root / "cache"
    check_disk(root, cache, task, records, sizes, findings)
    print(findings.table())
    errors, warnings = findings.count("error"), findings.count("warning")
    if errors:
        raise UserError(f"{root}: see the table (errors: {errors}, warnings: {warnings})")
    print(f"{root}: no errors (warnings: {warnings})")


if __name__ == "__main__":
    run_program(main)
