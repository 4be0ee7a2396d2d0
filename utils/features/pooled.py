"""Video features pooled to a model's units: a store (see stores.py), checked while it is built."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.base.files import fingerprint
from utils.base.lazy import torch
from utils.features.files import FeatureFiles
from utils.features.mapped import check_durations, find_features
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
class PooledFeatures:
    """Features of C clips pooled to at most U units, one block; zeros beyond a clip's units."""

    lengths: np.ndarray  # (C,) units, 0 without a file
    table: torch.Tensor  # (C, U, F) half or single precision, where batches are gathered from

    def to(self, device: torch.device, policy: str) -> PooledFeatures:
        """The same features, gathered from where `resident` puts them."""
        return replace(self, table=resident(self.table.numpy(), device, policy))

    @property
    def width(self) -> int:
        """F."""
        return self.table.shape[2]

    def gather(
        self, clips: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, V, F) float32 of the clips numbered, and their mask (B, V) float32."""
        lengths = self.lengths[clips]
        longest = int(lengths.max())
        mask = torch.from_numpy(np.arange(longest) < lengths[:, None])
        return take(self.table, clips, device, longest).float(), to_device(mask, device).float()


def pooled_features(
    data_root: Path,
    name: str,
    clip_uids: list[str],
    units: int,
    cache: Path,
    width: int | None = None,
    durations: np.ndarray | None = None,
    half: bool = True,
    random_seed: int | None = None,
) -> PooledFeatures:
    """The clips' features pooled to at most `units`; built once, then mapped.

    `width` is compared with that of the features. `half` keeps them in half precision, unless a
    value is too large for it: for the many clips of training. With a `random_seed` they are random
    instead: what a model knows without seeing (ablation). Otherwise as `open_features`.
    """
    files = find_features(data_root, name, clip_uids)

    def build(folder: Path) -> dict:
        _pool_into(folder, files, units, width, np.float16 if half else np.float32)
        return {"feature": name, "clips": len(files.present), "units": units}

    key = fingerprint(FORMAT, name, units, half, files.stamps())
    folder = open_store(cache, f"pooled-{name}-{units}", key, build)
    rows, pooled = map_array(folder / "rows.npy"), map_array(folder / "pooled.npy")
    files.check_width(pooled.shape[2], width)
    check_durations(files, rows, durations)
    lengths = np.minimum(rows, units)
    if random_seed is not None:
        pooled = _random_features(folder, clip_uids, lengths, pooled.shape, random_seed)
    return PooledFeatures(lengths, resident(pooled))


def _pool_into(
    folder: Path, files: FeatureFiles, units: int, width: int | None, dtype: type
) -> None:
    """Write the store; in single precision after all if a value is too large for `dtype`."""
    rows = np.zeros(len(files.clip_uids), np.int64)
    pooled = None
    for clip, features in files.each(f"pooling {files.name} features", width):
        means = pool_rows(features, units)
        if dtype is not np.float32 and np.abs(means).max() > np.finfo(dtype).max:
            _pool_into(folder, files, units, width, np.float32)
            return
        if pooled is None:
            shape = (len(rows), units, means.shape[1])
            pooled = create_array(folder / "pooled.npy", shape, dtype)
        rows[clip] = len(features)
        pooled[clip, : len(means)] = means
    pooled.flush()
    np.save(folder / "rows.npy", rows)


def _random_features(
    features: Path, clip_uids: list[str], lengths: np.ndarray, shape: tuple[int, ...], seed: int
) -> np.ndarray:
    """Random features (C, U, F) in place of those in the store `features`: a store, too.

    A clip's features follow from its uid and the seed.
    """

    def build(folder: Path) -> dict:
        random = create_array(folder / "pooled.npy", shape, np.float16)
        clips = zip(clip_uids, lengths, random, strict=True)
        for uid, length, units in tqdm(clips, "drawing random features", len(random), False):
            digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
            draw = np.random.default_rng([seed, int.from_bytes(digest)])
            units[:length] = draw.standard_normal((length, shape[2]), np.float32)
        random.flush()
        return {"random features for": features.name, "seed": seed}

    key = fingerprint(FORMAT, features.name, seed)
    return map_array(open_store(features.parent, "random", key, build) / "pooled.npy")
