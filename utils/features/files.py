"""Feature files as users have them.

A feature is a folder `<data_root>/features/<name>` with one tensor (rows, F) per clip,
`<clip_uid>.pt`, as published; or one packed file `<name>.h5` with all of them (see packed.py).
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.base.errors import NAMED, UserError
from utils.base.files import file_stamp, fingerprint
from utils.base.lazy import torch
from utils.base.machine import ahead
from utils.base.tensor_files import load_safely
from utils.features.cards import SHAPES_FILE, read_card, read_shapes, rows_off, rows_per_second

THREADS = 2  # read and check at once: more only wait for the disk


class FeatureFiles(ABC):
    """The features of C clips, wherever they lie."""

    path: Path  # folder or packed file
    clip_uids: list[str]  # C
    present: list[int]  # the numbers of the clips that have features
    card: dict  # frame_rate, stride, width...; may be empty
    listed: Mapping[str, int] = {}  # clip uid -> rows, if a file says so

    @abstractmethod
    def stamps(self) -> list:
        """Stamps of the clips' files, to notice that one was replaced."""

    @abstractmethod
    def read(self, clip: int) -> np.ndarray:
        """Features (rows, F) of one clip in half or single precision; `UserError` if unusable."""

    @property
    def name(self) -> str:
        """What the features are called in messages."""
        return self.path.stem

    @property
    def rate(self) -> float:
        """Rows per second."""
        return rows_per_second(self.card)

    def misfits(self, rows: np.ndarray, durations: np.ndarray) -> list[str]:
        """Clips whose rows (C,) do not fit their durations (C,) in seconds, and what would fit."""
        expected = durations * self.rate
        off = (rows > 0) & rows_off(rows, expected)
        return [
            f"{self.clip_uids[n]}: {rows[n]} rows, {durations[n]:.1f} s at {self.rate:g} rows a "
            f"second are {expected[n]:.0f}"
            for n in np.flatnonzero(off)
        ]

    def where(self, clip: int) -> str:
        """Name of a clip's features in messages."""
        return f"{self.path}: {self.clip_uids[clip]}"

    def each(
        self, action: str, expected_width: int | None = None, values: bool = True
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number and features (rows, F) of each clip present, with a progress bar.

        Without `values` only shapes are checked. Raises `UserError`, once all clips are checked,
        if some are empty, hold NaN or infinite values, have other rows than listed, or differ in
        width from one another or the expected one.
        """

        def attempt(clip: int) -> tuple[int, np.ndarray | UserError]:
            try:
                return clip, self._read_checked(clip, values)
            except UserError as fault:
                return clip, fault

        faults: list[str] = []
        width = None
        outcomes = ahead(attempt, self.present, THREADS)
        for clip, features in tqdm(outcomes, action, len(self.present), leave=False, unit="clip"):
            if isinstance(features, UserError):
                faults.append(str(features))
                continue
            if width is None:
                width, first = features.shape[1], clip
                self.check_width(width, expected_width)
            if features.shape[1] != width:
                faults.append(
                    f"{self.where(clip)}: features are {features.shape[1]} wide, those of "
                    f"{self.clip_uids[first]} are {width}; they must be of one kind"
                )
            elif not faults:
                yield clip, features
        if len(faults) == 1:
            raise UserError(faults[0])
        if faults:
            more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
            raise UserError(
                f"{len(faults)} of {len(self.present)} clips have features that can't be used: "
                f"{'; '.join(faults[:NAMED])}{more}"
            )

    def layout(self) -> tuple[np.ndarray, int, type]:
        """Rows of each clip (C,), their width, and the precision that holds all of them.

        Values are not read. Raises `UserError` as `each` does.
        """
        lengths, dtypes = np.zeros(len(self.clip_uids), np.int64), set()
        for clip, features in self.each(f"looking at {self.name} features", values=False):
            lengths[clip], width = features.shape
            dtypes.add(features.dtype.type)
        return lengths, width, np.float16 if dtypes == {np.float16} else np.float32

    def copy_into(self, rows: np.ndarray, lengths: np.ndarray, action: str) -> None:
        """Write the features of all clips, one after another, into an array `rows` (T, F).

        `lengths` (C,) are their rows, 0 for a clip without features.
        """
        ends = np.cumsum(lengths)
        for clip, features in self.each(action, rows.shape[1]):
            if len(features) != lengths[clip]:
                raise UserError(f"{self.where(clip)}: was replaced meanwhile; start again")
            target = rows[ends[clip] - lengths[clip] : ends[clip]]
            target[:] = in_precision(features, rows.dtype, self.where(clip))

    def check_width(self, width: int, expected_width: int | None = None) -> None:
        """Raises `UserError` if features are not as wide as expected, or as their card says."""
        if expected_width not in (None, width):
            raise UserError(
                f"{self.path}: features are {width} wide, --video_feature_dim says "
                f"{expected_width}; leave the option out, the width is read from the features"
            )
        card_width = self.card.get("width")
        if card_width not in (None, width):
            raise UserError(
                f"{self.path}: features are {width} wide, their feature card says {card_width}; "
                "correct the card, or fetch the features again"
            )

    def _read_checked(self, clip: int, values: bool) -> np.ndarray:
        features = self.read(clip)
        if not features.size:
            fault = f"features are empty, shape {features.shape}; extract it again"
            raise UserError(f"{self.where(clip)}: {fault}")
        if values and not (finite := np.isfinite(features)).all():
            row = int(np.flatnonzero(~finite.all(1))[0])
            fault = f"NaN or infinite values in row {row}; extract it again"
            raise UserError(f"{self.where(clip)}: {fault}")
        rows = self.listed.get(self.clip_uids[clip], len(features))
        if rows != len(features):
            raise UserError(
                f"{self.where(clip)}: has {len(features)} rows, {SHAPES_FILE} says {rows}; fetch "
                "the file again, or make a new list"
            )
        return features


class FeatureFolder(FeatureFiles):
    """One `.pt` file a clip."""

    def __init__(self, folder: Path, clip_uids: list[str]):
        self.path, self.clip_uids = folder, clip_uids
        entries = {entry.name: entry for entry in folder.iterdir()}
        self._files = [entries.get(f"{uid}.pt") for uid in clip_uids]
        self.present = [clip for clip, file in enumerate(self._files) if file is not None]
        self.card, self.listed = read_card(folder), read_shapes(folder)

    def stamps(self) -> list:
        return [
            [uid, file and file_stamp(file)]
            for uid, file in zip(self.clip_uids, self._files, strict=True)
        ]

    def read(self, clip: int) -> np.ndarray:
        return read_features(self._files[clip])

    def where(self, clip: int) -> str:
        return str(self._files[clip])


def read_features(file: Path) -> np.ndarray:
    """The tensor (rows, F) of one file, mapped if it is half or single precision, else single.

    Raises `UserError` if the file is missing, damaged or hostile, or holds something else.
    """
    features = load_safely(file, mmap=_can_be_mapped(file))
    if not torch.is_tensor(features):
        raise UserError(f"{file}: must be a tensor (rows, width), is {type(features).__name__}")
    if (
        features.layout != torch.strided
        or features.is_nested
        or features.is_meta
        or not features.is_floating_point()
        or features.dim() != 2
        or features.untyped_storage().nbytes() < features.numel() * features.element_size()
    ):
        raise UserError(
            f"{file}: must be a dense tensor (rows, width) of floating-point numbers, all of them "
            f"in the file; is {features.dim()}-dimensional, {features.dtype}, {features.layout}"
        )
    features = features.detach()
    return (features if features.dtype == torch.float16 else features.float()).numpy()


def clip_files(folder: Path) -> list[Path]:
    """The `.pt` files of a folder, by name."""
    return sorted(file for file in folder.glob("[!.]*.pt") if file.is_file())


def folder_stamp(folder: Path) -> str:
    """A stamp of all features in a folder, to notice that one was replaced."""
    return fingerprint([file_stamp(file) for file in clip_files(folder)])


def in_precision(features: np.ndarray, dtype: np.dtype | type, where: str) -> np.ndarray:
    """Features (rows, F) as `dtype`; raises `UserError` if a value is too large for it."""
    with np.errstate(over="ignore"):
        cast = features.astype(dtype, copy=False)
    if cast is not features and not np.isfinite(cast).all():
        largest = np.abs(features).max()
        raise UserError(f"{where}: {largest:g} is too large for {cast.dtype}; give --dtype float32")
    return cast


def _can_be_mapped(file: Path) -> bool:
    """Whether it is a zip archive of files as they are, not compressed.

    `torch.save` wrote others before version 1.6; files that were zipped again may be compressed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
    except Exception:  # the parser of a damaged file may trip over anything; so will the reader
        return False
