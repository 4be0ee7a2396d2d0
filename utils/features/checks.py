"""Features and disk before a long run: what is missing, damaged, or will have no room."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.base.errors import named
from utils.base.tables import Findings, show_size
from utils.base.tasks import FEATURES
from utils.data.records import Records
from utils.features.mapped import find_features

SAMPLE = 64  # clips of a feature whose values are read without `thorough`
TOKENS_PER_QUERY, TOKEN_BYTES = 12, 768 * 2  # of a text encoder, about


def check_features(
    check: str, root: Path, name: str, clips: dict[str, float], thorough: bool,
    remedy: Callable[[str], str], findings: Findings,
) -> int:  # fmt: skip
    """Check a feature's files against the clips (uid -> seconds): missing, misfit, damaged.

    The values of a sample are read, or of all clips if `thorough`. `remedy` says how features of a
    name are fetched. Returns the bytes that all rows take in single precision.
    """
    uids = list(clips)
    files = findings.tried(check, find_features, root, name, uids)
    if files is None:
        return 0
    missing = sorted(set(uids) - {uids[clip] for clip in files.present})
    if missing:
        what = f"{len(missing)} of {len(uids)} clips have none ({named(missing)})"
        findings.error(check, what, f"{remedy(name)}; --allow_missing predicts the other clips")
    layout = findings.tried(check, files.layout)
    if layout is None:
        return 0
    rows, width, _ = layout
    if FEATURES.get(name, width) != width:
        what = f"are {width} wide, the published ones {FEATURES[name]}"
        findings.warning(check, what, "a published checkpoint will not fit them")
    if misfits := files.misfits(rows, np.array([clips[uid] for uid in uids])):
        count = f"rows of {len(misfits)} of {len(files.present)} clips"
        findings.warning(
            check, f"{count} do not fit their durations ({named(misfits)})",
            "another stride? say it in feature_card.json (data/README.md)",
        )  # fmt: skip
    present = len(files.present)
    count = present if thorough else min(SAMPLE, present)
    steps = np.linspace(0, present - 1, count).round().astype(int)
    files.present = [files.present[step] for step in steps]
    action = f"reading {count} of {present} {name} features"
    if findings.tried(check, lambda: [clip for clip, _ in files.each(action)]) is not None:
        read = "all" if thorough else f"{count} (--thorough reads all)"
        findings.ok(check, f"{present} clips, {width} wide; read {read}")
    return 4 * width * int(rows.sum())


def check_disk(
    cache: Path, records: dict[str, Records], feature_bytes: int, findings: Findings
) -> None:
    """Check whether the disk has room for the stores that models build of these data.

    `records` are of `<data set>/<split>`; each data set has stores of its own.
    """
    folder = next(path for path in (cache, *cache.absolute().parents) if path.is_dir())
    data_sets = {name.split("/")[0] for name in records}
    sentences = sum(len(columns.sentences) for columns in records.values())
    needed = sentences * TOKENS_PER_QUERY * TOKEN_BYTES + (len(data_sets) or 1) * feature_bytes
    present = sum(file.stat().st_size for file in cache.glob("*/*"))
    free = shutil.disk_usage(folder).free
    what = f"stores take up to {show_size(needed)}; {folder} has {show_size(free)} free"
    if not os.access(folder, os.W_OK):
        findings.error("disk", f"{folder}: can't be written", "name a folder with --cache_dir")
    elif needed > free + present:
        findings.error("disk", what, "make room, or name another folder with --cache_dir")
    else:
        findings.ok("disk", what)
