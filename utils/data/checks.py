"""Check annotation files and prepared data sets before a long run."""

import filecmp
import re
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import named
from utils.base.tables import Findings
from utils.base.tasks import ENDINGS
from utils.data.annotations import (
    Annotations,
    QueryKey,
    iter_clips,
    iter_queries,
    key_in_words,
    read_annotations,
)
from utils.data.egoclip import read_narrations
from utils.data.prepared import PreparedClip, prepare_split
from utils.data.records import Records, label_windows
from utils.data.spans import EMPTY_SECONDS, window_seconds

TOLERANCE = 0.05  # seconds that a window may extend past its clip: annotators round


class AnnotatedSplit(NamedTuple):
    """The content of an annotation file, for other checks."""

    prepared: dict[str, PreparedClip]  # as `prepare_split` returns it
    video_uids: set[str]


Splits = dict[str, AnnotatedSplit]  # by name


def check_annotations(
    check: str, file: Path, split: str, version: str, findings: Findings
) -> AnnotatedSplit | None:
    """Check an annotation file; None if it can't be prepared."""
    prepared = findings.tried(check, prepare_split, file, split != "test")
    if prepared is None:
        return None
    content = read_annotations(file)
    _check_version(check, file, content, version, findings)
    counts = [len(clip.sentences) for clip in prepared.values()]
    if not counts:
        findings.error(check, f"{file}: holds no queries", "fetch the file again")
    else:
        findings.ok(check, f"{sum(counts)} queries of {len(counts)} clips")
    queries = iter_queries(content, with_textless=True)
    textless = [query.key for query in queries if not query.text]
    if textless:
        findings.warning(check, f"{_count(textless, 'queries have no text')}; they are left out")
    if split != "test" and counts:
        _check_windows(check, content, findings)
    return AnnotatedSplit(prepared, {video.video_uid for video, _ in iter_clips(content)})


def _check_version(
    check: str, file: Path, content: Annotations, version: str, findings: Findings
) -> None:
    address_match = re.search(r"/v(\d)/", f"{content.manifest} {content.metadata}")
    number = address_match or re.search(r"(\d)", str(content.version))
    if number and f"v{number[1]}" != version:
        findings.warning(
            check, f"{file}: says that it is of version v{number[1]}, its name that it is of "
            f"{version}", f"fetch the file of {version}, unless only its head is wrong",
        )  # fmt: skip
    ending = ENDINGS["v1" if version == "v2" else "v2"]
    other = file.with_name(file.name.removesuffix(ENDINGS[version]) + ending)
    if other.is_file() and filecmp.cmp(file, other, shallow=False):
        what = f"{file} and {other.name} are the same file, but of different versions by name"
        findings.error(check, what, "fetch the one that is wrong again")


def _check_windows(check: str, content: Annotations, findings: Findings) -> None:
    """Check windows against the durations of their clips."""
    durations = {clip.clip_uid: clip.duration for _, clip in iter_clips(content)}
    queries = list(iter_queries(content))
    start, end = np.array([query.window for query in queries]).T
    duration = np.array([durations[query.clip_uid] for query in queries])
    is_reversed = end < start
    is_outside = ~is_reversed & ((start > duration) | (end < 0))
    is_cut = (start < -TOLERANCE) | (end > duration + TOLERANCE)
    past = f"extend more than {TOLERANCE} s past their clips; they are cut there"
    leave_out = "--remove_empty_queries_from train val leaves them out (VSLNet)"
    for rows, what, remedy in (
        (is_reversed, "end before they start", "correct or remove them"),
        (is_outside, "lie outside their clips", "correct or remove them"),
        (is_cut & ~is_reversed & ~is_outside, past, ""),
        (~is_reversed & (end - start <= EMPTY_SECONDS), "are at most 1/30 s long", leave_out),
    ):
        if keys := [queries[row].key for row in np.flatnonzero(rows)]:
            findings.warning(check, _count(keys, f"windows {what}"), remedy)


def check_shared(splits: Splits, findings: Findings) -> None:
    """Check that splits share no clips and no videos."""
    for (name, split), (other_name, other) in combinations(splits.items(), 2):
        check = f"{name} and {other_name}"
        clips = split.prepared.keys() & other.prepared.keys()
        videos = split.video_uids & other.video_uids
        if clips:
            what = f"share {len(clips)} clips ({named(sorted(clips))})"
            findings.error(check, what, f"remove them from {name}: scores would be of seen clips")
        elif videos:
            what = f"share {len(videos)} videos ({named(sorted(videos))}), but no clip"
            findings.warning(check, what, "a model may have seen the rooms in training")
        else:
            findings.ok(check, "share no clip and no video")


def check_narrations(check: str, file: Path, video_uids: list[str], findings: Findings) -> None:
    """Check EgoClip's narrations of these videos."""
    narrations = findings.tried(check, read_narrations, file, video_uids)
    if narrations is None:
        return
    narrated = sum(start < stop for start, stop in narrations.extents.values())
    what = (
        f"{len(narrations)} narrations of {narrated} of {len(video_uids)} videos; "
        f"{narrations.describe_skipped()}"
    )
    if not len(narrations):
        findings.error(check, what, "narrations and annotations do not belong together")
    elif len(narrations.malformed):
        findings.warning(check, what)
    else:
        findings.ok(check, what)


def prepared_fault(records: Records, source: AnnotatedSplit | None, is_union: bool) -> str:
    """What is wrong with a prepared split, "" if nothing.

    `source` is its annotation file, if there is one; with `is_union` the split may hold more
    queries.
    """
    if not len(records):
        return "holds no queries"
    if source is None:
        return ""
    listed = {
        ((uid, annotation, index), sentence, times)
        for uid, clip in source.prepared.items()
        for annotation, index, sentence, times in zip(
            clip.annotation_uids, clip.query_idx, clip.sentences, clip.timestamps, strict=True
        )
    }
    prepared = {
        (key, records.sentences[sentence], tuple(times))
        for key, sentence, times in zip(
            records.keys, records.sentence, records.timestamps.astype(int).tolist(), strict=True
        )
    }
    differences = listed - prepared if is_union else listed ^ prepared
    if not differences:
        return ""
    return _count(sorted({key for key, *_ in differences}), "queries differ from its annotations")


def check_labels(check: str, records: Records, units: int, findings: Findings) -> None:
    """Note how many labels of a training split are wrong if made from truncated times.

    The published preparation truncates both ends of a window to multiples of 16/30 s, so that a
    short window may get no length. VSLNet labels it with the first unit of its clip; ReLER, which
    makes labels from exact times, leaves it out.
    """
    for kind, rows in (("narrations", records.is_narration), ("queries", ~records.is_narration)):
        chosen = records.select(rows)
        if not len(chosen):
            continue
        exact, published = (
            100 * wrong_labels(chosen, units, label_times).mean()
            for label_times in ("exact", "published")
        )
        start, end = chosen.seconds.T
        left_out = 100 * np.mean(end <= start)
        findings.ok(
            check,
            f"labels of {len(chosen)} {kind} that miss the window, VSLNet at {units} units: "
            f"{exact:.2f} % from exact times, {published:.2f} % from published ones; ReLER leaves "
            f"out {left_out:.2f} % with published ones",
        )


def wrong_labels(records: Records, units: int, label_times: str) -> np.ndarray:
    """(R,) whether the interval of VSLNet's label, one of `units` a clip, misses the window."""
    count = np.minimum(units, records.num_frames[records.clip])
    windows = label_windows(records, count, label_times)
    label = window_seconds(windows, records.duration, count)
    return (label[:, 1] < records.exact[:, 0]) | (label[:, 0] > records.exact[:, 1])


def _count(keys: list[QueryKey], predicate: str) -> str:
    """The number of queries, and the names of the first few."""
    return f"{len(keys)} {predicate} ({named(map(key_in_words, keys), '; ')})"
