"""Video features: read once from what a user has (see files.py), then mapped.

`open_features` joins the rows of a split's clips into one mapped array; `pooled_features` keeps
them pooled to a model's units. Both are stores (see stores.py), checked while they are built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.base.errors import UserError, warn
from utils.base.files import fingerprint
from utils.base.lazy import torch
from utils.data.records import Records, keep_complete
from utils.features.files import FeatureFiles, FeatureFolder, folder_stamp
from utils.features.packed import PackedFeatures
from utils.features.stores import create_array, map_array, open_store
from utils.features.tensors import resident, take, to_device

FORMAT = 3  # raise when what is stored changes


def pool_boundaries(rows: int, units: int) -> np.ndarray:
    """First row of each unit, and the end: (units + 1,) int; rounding is half to even."""
    edges = np.round(np.arange(units + 1) / units * rows).astype(np.int64)
    return np.minimum(edges, rows - 1)


def pool_rows(features: np.ndarray, units: int) -> np.ndarray:
    """Mean of each unit's rows: (rows, F) -> (min(rows, units), F) float32.

    Features that fit are left as they are. Unit k covers rows `[b_k, b_{k+1})` of the boundaries,
    or row `b_k` alone where that is empty; since boundaries stop at the last row, as published, the
    last row counts only there.
    """
    rows = len(features)
    if rows <= units:
        return np.asarray(features, dtype=np.float32)
    edges = pool_boundaries(rows, units)
    counts = np.maximum(np.diff(edges), 1)
    first = np.cumsum(counts) - counts
    members = np.arange(counts.sum()) + np.repeat(edges[:-1] - first, counts)
    # A bag of rows per unit: about twenty times as fast as `np.add.reduceat`.
    table = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    means = torch.nn.functional.embedding_bag(
        torch.from_numpy(members), table, torch.from_numpy(first), mode="mean"
    )
    return means.numpy()


@dataclass(frozen=True)
class FeatureStore:
    """Feature rows of C clips, joined into one mapped array; a clip without a file has none."""

    clip_uids: list[str]
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


@dataclass(frozen=True)
class PooledFeatures:
    """Features of C clips pooled to at most U units, one block; zeros beyond a clip's units."""

    clip_uids: list[str]
    rows: np.ndarray  # (C,) before pooling; 0 without a file
    pooled: np.ndarray  # (C, U, F) half or single precision
    folder: Path  # of the store
    table: torch.Tensor  # the same as `pooled`, where batches are gathered from

    def to(self, device: torch.device, policy: str) -> PooledFeatures:
        """The same features, gathered from where `resident` puts them."""
        return replace(self, table=resident(self.pooled, device, policy))

    @property
    def lengths(self) -> np.ndarray:
        """(C,) units, min(U, rows)."""
        return np.minimum(self.rows, self.pooled.shape[1])

    @property
    def width(self) -> int:
        """F."""
        return self.pooled.shape[2]

    def gather(
        self, clips: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, V, F) float32 of the clips numbered, and their mask (B, V) float32."""
        lengths = self.lengths[clips]
        longest = int(lengths.max())
        mask = torch.from_numpy(np.arange(longest) < lengths[:, None])
        return take(self.table, clips, device, longest).float(), to_device(mask, device).float()

    def randomised(self, seed: int) -> PooledFeatures:
        """The same clips with random features: what a model knows without seeing (ablation).

        A clip's features follow from its uid and the seed; they are a store too.
        """

        def build(folder: Path) -> dict:
            random = create_array(folder / "pooled.npy", self.pooled.shape, np.float16)
            clips = zip(self.clip_uids, self.lengths, random, strict=True)
            for uid, length, units in tqdm(clips, "drawing random features", len(random), False):
                digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
                draw = np.random.default_rng([seed, int.from_bytes(digest)])
                units[:length] = draw.standard_normal((length, self.width), np.float32)
            random.flush()
            return {"random features for": self.folder.name, "seed": seed}

        key = fingerprint(FORMAT, self.folder.name, seed)
        folder = open_store(self.folder.parent, "random", key, build)
        pooled = map_array(folder / "pooled.npy")
        return replace(self, pooled=pooled, folder=folder, table=resident(pooled))


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
        paths = folder.parent.glob("[!.]*")
        names = sorted({path.stem for path in paths if path.is_dir() or path.suffix == ".h5"})
        raise UserError(
            f"{folder}: no such features (there: {', '.join(names) or 'none'}); see data/README.md "
            "for where they come from"
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
    packed = isinstance(files, PackedFeatures)

    def build(folder: Path) -> dict:
        if packed:
            for _ in files.each(f"checking {name} features"):
                pass
            return {"feature": name, "checked": str(files.path)}
        lengths, width, dtype = files.layout(name)
        rows = create_array(folder / "rows.npy", (lengths.sum(), width), dtype)
        files.copy_into(rows, lengths, f"joining {name} features")
        rows.flush()
        np.save(folder / "lengths.npy", lengths)
        return {"feature": name, "clips": len(files.present)}

    role = "checked" if packed else "rows"
    key = fingerprint(FORMAT, name, role, files.stamps())
    folder = open_store(cache, f"{role}-{name}", key, build)
    if packed:
        store = FeatureStore(clip_uids, files.lengths, files.offsets, files.mapped)
    else:
        joined, lengths = map_array(folder / "rows.npy"), map_array(folder / "lengths.npy")
        # Rows lie in the order of the clips that have any.
        store = FeatureStore(clip_uids, lengths, np.cumsum(lengths) - lengths, joined)
    files.check_width(store.width)
    check_durations(files, name, store.lengths, durations)
    return store


def open_complete(
    data_root: Path, names: Sequence[str], records: Records, cache: Path, split: str, tolerant: bool
) -> tuple[Records, list[FeatureStore]]:
    """The queries whose clips have all named features, and the features; see `keep_complete`."""
    seconds = records.num_frames / records.fps
    stores = {
        name: open_features(data_root, name, records.clip_uids, cache, durations=seconds)
        for name in names
    }
    lengths = {name: store.lengths for name, store in stores.items()}
    return keep_complete(records, lengths, split, tolerant), list(stores.values())


def pooled_features(
    data_root: Path,
    name: str,
    clip_uids: list[str],
    units: int,
    cache: Path,
    width: int | None = None,
    durations: np.ndarray | None = None,
    half: bool = True,
) -> PooledFeatures:
    """The clips' features pooled to at most `units`; built once, then mapped.

    `width` is compared with that of the features. `half` keeps them in half precision, unless a
    value is too large for it: for the many clips of training. Otherwise as `open_features`.
    """
    files = find_features(data_root, name, clip_uids)

    def build(folder: Path) -> dict:
        _pool_into(folder, name, files, units, width, np.float16 if half else np.float32)
        return {"feature": name, "clips": len(files.present), "units": units}

    key = fingerprint(FORMAT, name, units, half, files.stamps())
    folder = open_store(cache, f"pooled-{name}-{units}", key, build)
    rows, pooled = map_array(folder / "rows.npy"), map_array(folder / "pooled.npy")
    store = PooledFeatures(clip_uids, rows, pooled, folder, resident(pooled))
    files.check_width(store.width, width)
    check_durations(files, name, rows, durations)
    return store


def _pool_into(
    folder: Path, name: str, files: FeatureFiles, units: int, width: int | None, dtype: type
) -> None:
    """Write the store; in single precision after all if a value is too large for `dtype`."""
    rows = np.zeros(len(files.clip_uids), np.int64)
    pooled = None
    for clip, features in files.each(f"pooling {name} features", width):
        means = pool_rows(features, units)
        if dtype is not np.float32 and np.abs(means).max() > np.finfo(dtype).max:
            _pool_into(folder, name, files, units, width, np.float32)
            return
        if pooled is None:
            shape = (len(rows), units, means.shape[1])
            pooled = create_array(folder / "pooled.npy", shape, dtype)
        rows[clip] = len(features)
        pooled[clip, : len(means)] = means
    pooled.flush()
    np.save(folder / "rows.npy", rows)


def check_durations(
    files: FeatureFiles, name: str, rows: np.ndarray, durations: np.ndarray | None
) -> None:
    """Warn of rows that do not fit the clips' durations: they mean another stride."""
    misfits = [] if durations is None else files.misfits(rows, durations)
    if misfits:
        warn(
            f"{name}: rows of {len(misfits)} of {len(files.present)} clips do not fit their "
            f"durations ({misfits[0]}); is the stride another?"
        )
