"""Video features: read once from what a user has (see files.py), then mapped.

`open_features` joins the rows of a split's clips into one mapped array, a store (see stores.py),
checked while it is built. Pooled features are in pooled.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.base.errors import UserError, warn
from utils.base.files import fingerprint
from utils.data.records import Records, keep_complete
from utils.features.files import FeatureFiles, FeatureFolder, folder_stamp
from utils.features.packed import PackedFeatures
from utils.features.stores import create_array, map_array, open_store

FORMAT = 3  # raise when what is stored changes


@dataclass(frozen=True)
class FeatureStore:
    """Feature rows of C clips, joined into one mapped array; a clip without a file has none."""

    lengths: np.ndarray  # (C,) rows
    offsets: np.ndarray  # (C,) first row of each clip
    joined: np.ndarray  # (T, F) half or single precision

    @property
    def width(self) -> int:
        """F."""
        return self.joined.shape[1]

    def rows(self, clip: int) -> np.ndarray:
        """Rows of one clip (n, F): a view, nothing is copied."""
        return self.joined[self.offsets[clip] : self.offsets[clip] + self.lengths[clip]]


def feature_names(data_root: Path) -> list[str]:
    """The features under a data root, in folders or packed."""
    paths = (data_root / "features").glob("[!.]*")
    return sorted({path.stem for path in paths if path.is_dir() or path.suffix == ".h5"})


def find_features(data_root: Path, name: str, clip_uids: list[str]) -> FeatureFiles:
    """The files of a feature; raises `UserError` if there are none, or none of these clips."""
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"feature '{name}' must be a plain folder name")
    folder, packed = (data_root / "features" / end for end in (name, f"{name}.h5"))
    files: FeatureFiles
    if packed.is_file():
        files = PackedFeatures(packed, clip_uids)
        packed_from = files.card.get("folder_stamp")
        if packed_from and folder.is_dir() and packed_from != folder_stamp(folder):
            warn(
                f"{packed} is read, but was packed from other files than lie in {folder} now; pack "
                "again with utils/prepare_features.py --overwrite, or remove one of the two"
            )
    elif folder.is_dir():
        files = FeatureFolder(folder, clip_uids)
    else:
        names = ", ".join(feature_names(data_root)) or "none"
        raise UserError(
            f"{folder}: no such features (there: {names}); see data/README.md for where they come "
            "from"
        )
    if not files.present:
        first = f" ({clip_uids[0]}, ...)" if clip_uids else ""
        raise UserError(
            f"{files.path}: holds features of none of the {len(clip_uids)} clips wanted{first}"
        )
    return files


def open_features(
    data_root: Path,
    name: str,
    clip_uids: list[str],
    cache: Path,
    durations: np.ndarray | None = None,
) -> FeatureStore:
    """All rows of the clips' features; built once, then mapped. A packed file is mapped as it is.

    `durations` (C,) seconds are compared with rows. Raises `UserError` if no clip has features, or
    some can't be used.
    """
    files = find_features(data_root, name, clip_uids)
    open_files = _map_packed if isinstance(files, PackedFeatures) else _join
    store = open_files(files, name, cache)
    files.check_width(store.width)
    check_durations(files, store.lengths, durations)
    return store


def _map_packed(files: PackedFeatures, name: str, cache: Path) -> FeatureStore:
    """The packed file itself; a store without arrays says that its values were checked."""

    def check(_: Path) -> dict:
        for _ in files.each(f"checking {name} features"):
            pass
        return {"feature": name, "checked": str(files.path)}

    key = fingerprint(FORMAT, name, "checked", files.stamps())
    open_store(cache, f"checked-{name}", key, check)
    return FeatureStore(files.lengths, files.offsets, files.mapped)


def _join(files: FeatureFiles, name: str, cache: Path) -> FeatureStore:
    """A store of all rows, in the order of the clips that have any."""

    def build(folder: Path) -> dict:
        lengths, width, dtype = files.layout()
        rows = create_array(folder / "rows.npy", (lengths.sum(), width), dtype)
        files.copy_into(rows, lengths, f"joining {name} features")
        rows.flush()
        np.save(folder / "lengths.npy", lengths)
        return {"feature": name, "clips": len(files.present)}

    key = fingerprint(FORMAT, name, "rows", files.stamps())
    folder = open_store(cache, f"rows-{name}", key, build)
    joined, lengths = map_array(folder / "rows.npy"), map_array(folder / "lengths.npy")
    return FeatureStore(lengths, np.cumsum(lengths) - lengths, joined)


def open_complete(
    data_root: Path, names: Sequence[str], records: Records, cache: Path, split: str, tolerant: bool
) -> tuple[Records, list[FeatureStore]]:
    """The queries whose clips have all named features, and the features; see `keep_complete`."""
    stores = {
        name: open_features(data_root, name, records.clip_uids, cache, records.clip_seconds)
        for name in names
    }
    lengths = {name: store.lengths for name, store in stores.items()}
    return keep_complete(records, lengths, split, tolerant), list(stores.values())


def check_durations(files: FeatureFiles, rows: np.ndarray, durations: np.ndarray | None) -> None:
    """Warn of rows that do not fit the clips' durations: they mean another stride."""
    misfits = [] if durations is None else files.misfits(rows, durations)
    if misfits:
        warn(
            f"{files.name}: rows of {len(misfits)} of {len(files.present)} clips do not fit their "
            f"durations ({misfits[0]}); is the stride another?"
        )
