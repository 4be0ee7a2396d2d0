"""Video features: read once from what a user has, then mapped.

A feature is a folder `<data_root>/features/<name>` with one tensor (rows, F) per clip,
`<clip_uid>.pt`, as published. `open_features` joins the rows of the wanted clips into one mapped
array; `pooled_features` keeps them pooled to a model's units. Both are stores (see stores.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.checkpoints import load_safely
from utils.errors import UserError, warn
from utils.files import fingerprint, read_json
from utils.pooling import pool_rows
from utils.stores import create_array, map_array, open_store
from utils.tasks import ROWS_PER_SECOND

FORMAT = 1  # raise when what is stored changes
SHAPES_FILE, CARD_FILE = "feature_shapes.json", "feature_card.json"
HALF_MAX = np.finfo(np.float16).max


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

    @property
    def missing(self) -> list[str]:
        """Clips without a feature file."""
        return [uid for uid, n in zip(self.clip_uids, self.lengths, strict=True) if not n]

    def rows(self, clip: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of one clip (n, F): a view, nothing is copied."""
        stop = self.lengths[clip] if stop is None else min(stop, self.lengths[clip])
        return self.joined[self.offsets[clip] + start : self.offsets[clip] + stop]


@dataclass(frozen=True)
class PooledFeatures:
    """Features of C clips pooled to at most U units, one block; zeros beyond a clip's units."""

    clip_uids: list[str]
    lengths: np.ndarray  # (C,) units, min(U, rows); 0 without a file
    pooled: np.ndarray  # (C, U, F) half or single precision

    @property
    def width(self) -> int:
        """F."""
        return self.pooled.shape[2]

    @property
    def missing(self) -> list[str]:
        """Clips without a feature file."""
        return [uid for uid, n in zip(self.clip_uids, self.lengths, strict=True) if not n]

    def gather(
        self, clips: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, V, F) float32 of the clips numbered, and their mask (B, V) float32."""
        lengths = self.lengths[clips]
        longest = int(lengths.max())
        block = torch.from_numpy(self.pooled[clips, :longest])
        mask = torch.from_numpy(np.arange(longest) < lengths[:, None])
        return block.to(device).float(), mask.to(device).float()

    def randomised(self, seed: int) -> "PooledFeatures":
        """The same clips with random features: what a model knows without seeing (ablation)."""
        draw = np.random.default_rng(seed)
        pooled = np.empty(self.pooled.shape, np.float16)
        for clip, length in enumerate(self.lengths):
            pooled[clip, :length] = draw.standard_normal((length, self.width), np.float32)
            pooled[clip, length:] = 0
        return replace(self, pooled=pooled)


def open_features(
    data_root: Path,
    name: str,
    clip_uids: list[str],
    cache: Path,
    width: int | None = None,
    durations: np.ndarray | None = None,
) -> FeatureStore:
    """All rows of the clips' features; built once, then mapped.

    `width` is checked against the features' own; `durations` (C,) seconds against their rows.
    Raises `UserError` for features that are missing as a whole, or broken.
    """
    source = _Source(data_root, name, clip_uids)

    def build(folder: Path) -> dict:
        lengths = np.zeros(len(clip_uids), np.int64)
        total = sum(source.rows(clip) for clip in source.there)
        joined = None
        at = 0
        for clip, features in source.read(f"joining {name} features"):
            if joined is None:
                shape = (total, features.shape[1])
                joined = create_array(folder / "rows.npy", shape, np.float32)
            lengths[clip] = len(features)
            joined[at : at + len(features)] = features
            at += len(features)
        joined.flush()
        np.save(folder / "lengths.npy", lengths)
        return {"feature": name, "clips": len(source.there), "rows": total}

    folder = open_store(cache, f"rows-{name}", source.key("rows"), build)
    lengths = map_array(folder / "lengths.npy")
    # Rows lie in the order of the clips that have any.
    offsets = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
    store = FeatureStore(clip_uids, lengths, offsets, map_array(folder / "rows.npy"))
    _check_width(source.folder, store.width, width)
    _check_durations(source, store.lengths, durations)
    return store


def pooled_features(
    data_root: Path,
    name: str,
    clip_uids: list[str],
    units: int,
    cache: Path,
    width: int | None = None,
    durations: np.ndarray | None = None,
) -> PooledFeatures:
    """The clips' features pooled to at most `units`; built once, then mapped.

    Kept in half precision, unless a value is too large for it. Checks and errors as for
    `open_features`.
    """
    source = _Source(data_root, name, clip_uids)

    def build(folder: Path) -> dict:
        try:
            _pool_into(folder, source, units, np.float16)
        except OverflowError:
            _pool_into(folder, source, units, np.float32)
        return {"feature": name, "clips": len(source.there), "units": units}

    folder = open_store(cache, f"pooled-{name}-{units}", source.key(units), build)
    rows = map_array(folder / "lengths.npy")
    pooled = map_array(folder / "pooled.npy")
    _check_width(source.folder, pooled.shape[2], width)
    _check_durations(source, rows, durations)
    return PooledFeatures(clip_uids, np.minimum(rows, units), pooled)


def _pool_into(folder: Path, source: "_Source", units: int, dtype: type) -> None:
    rows = np.zeros(len(source.clip_uids), np.int64)
    pooled = None
    for clip, features in source.read(f"pooling {source.name} features"):
        if pooled is None:
            shape = (len(rows), units, features.shape[1])
            pooled = create_array(folder / "pooled.npy", shape, dtype)
        rows[clip] = len(features)
        means = pool_rows(features, units)
        if dtype is np.float16 and np.abs(means).max() > HALF_MAX:
            raise OverflowError
        pooled[clip, : len(means)] = means
    pooled.flush()
    np.save(folder / "lengths.npy", rows)


class _Source:
    """The feature files of the wanted clips, and their checks."""

    def __init__(self, data_root: Path, name: str, clip_uids: list[str]):
        if Path(name).name != name:
            raise UserError(f"feature '{name}' must be a plain folder name")
        self.name = name
        self.clip_uids = clip_uids
        self.folder = data_root / "features" / name
        if not self.folder.is_dir():
            known = sorted(p.name for p in (data_root / "features").glob("*") if p.is_dir())
            raise UserError(
                f"{self.folder}: no such features (there: {', '.join(known) or 'none'}); "
                "see data/README.md for where they come from"
            )
        files = {entry.name: entry for entry in self.folder.iterdir()}
        self.files = [files.get(f"{uid}.pt") for uid in clip_uids]
        self.there = [clip for clip, file in enumerate(self.files) if file is not None]
        if not self.there:
            raise UserError(
                f"{self.folder}: holds features of none of the {len(clip_uids)} clips wanted "
                f"({clip_uids[0]}.pt, ...)"
            )
        shapes = self.folder / SHAPES_FILE
        self.shapes = read_json(shapes) if shapes.is_file() else {}
        if not isinstance(self.shapes, dict):
            raise UserError(f"{shapes}: must map clip uids to numbers of rows")

    def key(self, kind: object) -> str:
        """A fingerprint of the clips, in order, and of their files."""
        stamps = []
        for uid, file in zip(self.clip_uids, self.files, strict=True):
            status = file.stat() if file is not None else None
            stamps.append([uid, status and status.st_size, status and status.st_mtime_ns])
        return fingerprint(FORMAT, self.name, kind, stamps)

    def rows(self, clip: int) -> int:
        """Rows of one clip, looked up without reading them where possible."""
        known = self.shapes.get(self.clip_uids[clip])
        return known if isinstance(known, int) else len(self._load(clip))

    def read(self, action: str) -> Iterable[tuple[int, np.ndarray]]:
        """The number and the features (rows, F) float32 of each clip that has a file, checked."""
        width = None
        for clip in tqdm(self.there, desc=action, unit="clip", leave=False):
            features = self._load(clip)
            file = self.files[clip]
            width = width or features.shape[1]
            if features.shape[1] != width:
                raise UserError(
                    f"{file}: features are {features.shape[1]} wide, those of "
                    f"{self.clip_uids[self.there[0]]} are {width}; they must be of one kind"
                )
            listed = self.shapes.get(self.clip_uids[clip], len(features))
            if listed != len(features):
                raise UserError(
                    f"{file}: has {len(features)} rows, {SHAPES_FILE} says {listed}; "
                    "fetch the file again, or make the list anew"
                )
            if not np.isfinite(features).all():
                row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
                raise UserError(f"{file}: NaN or infinite values in row {row}; extract it again")
            yield clip, features

    def _load(self, clip: int) -> np.ndarray:
        file = self.files[clip]
        features = load_safely(file)
        if not torch.is_tensor(features) or not features.is_floating_point():
            kind = "an integer tensor" if torch.is_tensor(features) else type(features).__name__
            raise UserError(f"{file}: must be a tensor of numbers (rows, width), is {kind}")
        if features.ndim != 2 or 0 in features.shape:
            shape = "empty" if 0 in features.shape else "not a tensor (rows, width)"
            raise UserError(f"{file}: features are {shape}, shape {tuple(features.shape)}")
        return features.float().numpy()


def _check_width(folder: Path, found: int, wanted: int | None) -> None:
    if wanted is not None and wanted != found:
        raise UserError(
            f"{folder}: features are {found} wide, --video_feature_dim says {wanted}; leave the "
            "option out, the width is read from the features"
        )


def _check_durations(source: _Source, rows: np.ndarray, durations: np.ndarray | None) -> None:
    """Rows that do not fit the clips' durations mean another stride: say so before training."""
    if durations is None:
        return
    card = source.folder / CARD_FILE
    content = read_json(card) if card.is_file() else {}
    rate = ROWS_PER_SECOND
    if content.get("frame_rate") and content.get("stride"):
        rate = content["frame_rate"] / content["stride"]
    expected = durations * rate
    off = (rows > 0) & (np.abs(rows - expected) > np.maximum(2, 0.05 * expected))
    if off.any():
        clip = int(np.flatnonzero(off)[0])
        warn(
            f"{source.name}: rows of {int(off.sum())} of {int((rows > 0).sum())} clips do not fit "
            f"their durations ({source.clip_uids[clip]}: {rows[clip]} rows, but "
            f"{durations[clip]:.1f} s at {rate:g} rows a second are {expected[clip]:.0f}); "
            "is the stride another?"
        )
