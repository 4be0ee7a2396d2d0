"""Splits as both models want them: the columns of a prepared file, less what can't be used."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from utils.checkpoints import find_checkpoint
from utils.errors import UserError, warn
from utils.records import Records, read_records, subsample
from utils.training_options import TrainingOptions

NAMED = 3  # clips named in a message


def read_split(
    data_root: str | Path,
    task: str,
    name: str,
    scaling_clips: str | None = None,
    zeroshot_clips: str | None = None,
) -> tuple[Records, int]:
    """The columns of `<data_root>/dataset/<task>/<name>.json`, and how many queries it lists.

    `scaling_clips` and `zeroshot_clips` are lists of clips whose narrations, or NLQ queries, are
    kept (see `utils.records.subsample`). Raises `UserError` if the file is not there.
    """
    file = Path(data_root) / "dataset" / task / f"{name}.json"
    if not file.is_file():
        folder = file.parent.parent
        there = sorted(path.name for path in folder.glob("*") if path.is_dir())
        raise UserError(
            f"{file}: no such file; make it with utils/prepare_ego4d_dataset.py "
            f"(data sets in {folder}: {', '.join(there) or 'none'})"
        )
    records = read_records(file)
    wanted = subsample(records, scaling_clips, zeroshot_clips)
    if not len(wanted):
        raise UserError(f"{file}: no queries in this split, nothing to do")
    return wanted, len(records)


def input_files(options: TrainingOptions, *features: str, start: str | None) -> list[Path]:
    """The small files that say what a training run has read; `start` is the run it begins with."""
    root = Path(options.data_root)
    files = [root / "dataset" / options.task / f"{name}.json" for name in ("train", "val")]
    cards = ("feature_shapes.json", "feature_card.json")
    files += [root / "features" / name / card for name in features for card in cards]
    lists = (options.scaling_subsample_clips, options.zeroshot_subsample_clips)
    files += [Path(clips) for clips in lists if clips is not None]
    return files if start is None else [*files, find_checkpoint(start)]


def keep_some(records: Records, wanted: np.ndarray, name: str) -> Records:
    """The wanted queries (R,) bool; a `UserError` if none of the split is left."""
    if not wanted.any():
        raise UserError(f"{name}: no query of this split has a window to use, nothing to do")
    return records.select(wanted)


def keep_complete(
    records: Records, lengths: Mapping[str, np.ndarray], name: str, tolerant: bool
) -> Records:
    """The queries whose clips have all features; the others are left out, or an error.

    `lengths` gives, for each feature, the rows (C,) of each clip, 0 where it has none. Raises
    `UserError` if clips lack features and `tolerant` is off, or if nothing is left.
    """
    used = np.unique(records.clip)
    lacking = [(clip, kind) for kind, rows in lengths.items() for clip in used[rows[used] == 0]]
    if not lacking:
        return records
    lost = np.isin(records.clip, [clip for clip, _ in lacking])
    said = (
        f"{name}: {len({clip for clip, _ in lacking})} clips with {int(lost.sum())} of "
        f"{len(records)} queries lack features: "
        + named(f"{records.clip_uids[clip]} ({kind})" for clip, kind in lacking)
    )
    if not tolerant:
        raise UserError(f"{said}; add the files, or predict the rest with --allow_missing")
    if lost.all():
        raise UserError(f"{said}; nothing is left")
    warn(f"{said}; they are left out")
    return records.select(~lost)


def named(things: Iterable[str]) -> str:
    """The first few of the things, for a message."""
    first = list(islice(things, NAMED + 1))
    return ", ".join(first[:NAMED]) + (", ..." if len(first) > NAMED else "")
