"""Features and disk before a long run: what is missing, damaged, or will have no room."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import named
from utils.base.tables import Findings
from utils.base.tasks import FEATURES, Task
from utils.data.records import Records
from utils.features.cards import rows_off
from utils.features.files import (
    FeatureFiles,
    FeatureFolder,
    PackedFeatures,
    find_features,
)

SAMPLE = 64  # clips of a feature that are read without `thorough`
TOKENS_PER_QUERY, TOKEN_BYTES = 12, 768 * 2  # of a text encoder, about


class FeatureSize(NamedTuple):
    """What a feature's stores will take."""

    width: int
    rows: int  # of all clips


def check_features(
    root: Path, name: str, clips: dict[str, float], thorough: bool, findings: Findings
) -> FeatureSize | None:
    """A feature's files against the clips (uid -> seconds): missing, misfit, damaged.

    All rows of a sample are read, or of all clips if `thorough`. Returns None if it can't be used.
    """
    check = f"features {name}"
    uids = list(clips)
    files = findings.tried(check, find_features, root, name, uids)
    if files is None:
        return None
    durations = np.array([clips[uid] for uid in uids])  # (C,)
    lacking = sorted(set(uids) - {uids[clip] for clip in files.there})
    if lacking:
        findings.error(
            check, f"{len(lacking)} of {len(uids)} clips have none ({named(lacking)})",
            "add the files; --allow_missing only serves to predict the other clips",
        )  # fmt: skip
    rows = _known_rows(files)
    chosen = files.there if thorough else _sample(files)
    sample = find_features(root, name, [uids[clip] for clip in chosen])
    action = f"reading {len(chosen)} of {len(files.there)} {name} features"
    found = findings.tried(check, lambda: [
        (clip, *features.shape) for clip, features in sample.each(action)
    ])  # fmt: skip
    if found is None:
        return None
    for clip, count, _ in found:
        rows[chosen[clip]] = count
    width = found[0][2]
    if FEATURES.get(name, width) != width:
        findings.warning(check, f"are {width} wide, the published ones {FEATURES[name]}",
                         "a published checkpoint will not fit them")  # fmt: skip
    torn = _torn(files, rows, width)
    if torn:
        findings.error(check, f"{len(torn)} files are shorter than their rows ({named(torn)})",
                       "fetch them again")  # fmt: skip
    _check_rows(check, files, rows, durations, findings)
    if not (lacking or torn):
        read = "all" if thorough else f"{len(chosen)} (--thorough reads all)"
        findings.ok(check, f"{len(files.there)} clips, {width} wide; read {read}")
    estimate = np.where(rows > 0, rows, durations * files.rate)[files.there]
    return FeatureSize(width, int(estimate.sum()))


def _known_rows(files: FeatureFiles) -> np.ndarray:
    """(C,) rows of each clip as far as they are known without reading; 0 where they are not."""
    if isinstance(files, PackedFeatures):
        return np.array(files.lengths)
    listed = (files.listed.get(uid) for uid in files.clip_uids)
    return np.array([rows if type(rows) is int and 0 < rows < 2**31 else 0 for rows in listed])


def _sample(files: FeatureFiles) -> list[int]:
    """Some of the clips there, in even steps through the list."""
    steps = np.linspace(0, len(files.there) - 1, min(SAMPLE, len(files.there)))
    return [files.there[int(place)] for place in np.unique(steps.round())]


def _torn(files: FeatureFiles, rows: np.ndarray, width: int) -> list[str]:
    """Names of files that can't hold their rows even in half precision."""
    if not isinstance(files, FeatureFolder):
        return []  # a packed file is checked when it is opened
    stamps = [stamp for _, stamp in files.stamps()]  # None, or name, size, ...
    return [files.where(clip) for clip in files.there if stamps[clip][1] < 2 * rows[clip] * width]


def _check_rows(
    check: str, files: FeatureFiles, rows: np.ndarray, durations: np.ndarray, findings: Findings
) -> None:
    """Rows against the clips' durations."""
    expected = durations * files.rate
    there = np.isin(np.arange(len(rows)), files.there) & (rows > 0)
    off = there & rows_off(rows, expected)
    for where, word in ((off & (rows < expected), "short"), (off & (rows > expected), "long")):
        if not where.any():
            continue
        clip = int(np.flatnonzero(where)[0])
        findings.warning(
            check, f"{np.count_nonzero(where)} of {np.count_nonzero(there)} clips have too {word} "
            f"features ({files.clip_uids[clip]}: {rows[clip]} rows, {durations[clip]:.1f} s need "
            f"{expected[clip]:.0f})",
            "another stride? say it in feature_card.json (data/README.md)",
        )  # fmt: skip


def check_disk(
    root: Path, cache: Path, task: Task, records: dict[str, Records],
    sizes: dict[str, FeatureSize], findings: Findings,
) -> None:  # fmt: skip
    """Whether the stores that the models build have room."""
    folder = next(path for path in (cache, *cache.absolute().parents) if path.is_dir())
    if not os.access(folder, os.W_OK):
        findings.error("disk", f"{folder}: can't be written", "name a folder with --cache_dir")
        return
    pooled = sum(len(own.clip_uids) for own in records.values()) * task.units
    tokens = sum(len(own.sentences) for own in records.values()) * TOKENS_PER_QUERY * TOKEN_BYTES
    copies = len({name.split("/")[0] for name in records}) or 1  # each data set has its stores
    vslnet = max((pooled * size.width * 2 for size in sizes.values()), default=0) + tokens
    reler = copies * sum(size.rows * size.width * 4 for size in sizes.values()) + tokens
    need, free = max(vslnet, reler), shutil.disk_usage(folder).free
    held = sum(file.stat().st_size for file in cache.glob("*/*")) if cache.is_dir() else 0
    what = (
        f"stores take up to {vslnet / 1e9:.2f} GB (VSLNet) or {reler / 1e9:.2f} GB (ReLER); "
        f"{folder} has {free / 1e9:.1f} GB free"
    )
    if need > free + held:
        findings.error("disk", what, "make room, or name another folder with --cache_dir")
    elif need > free:
        findings.warning("disk", f"{what}, and {held / 1e9:.2f} GB of stores", f"empty {cache}?")
    else:
        findings.ok("disk", what)
