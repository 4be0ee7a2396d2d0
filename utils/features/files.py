"""Feature files as users have them, and what is wrong with those that can't be used.

A feature is a folder `<data_root>/features/<name>` with one tensor (rows, F) per clip,
`<clip_uid>.pt`, as published; or one packed file `<name>.h5` with all of them, which is preferred:
`rows` (T, F) contiguous, half or single precision; `clip_uids` (C,); `offsets` (C + 1,), clip c has
the rows `[offsets[c], offsets[c + 1])`; the feature card as attributes of the file.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.base.errors import UserError, in_brief, warn
from utils.base.files import file_stamp, fingerprint
from utils.base.lazy import torch
from utils.base.machine import ahead
from utils.base.tensor_files import is_plain, load_safely
from utils.features.cards import (
    SHAPES_FILE,
    check_card,
    read_card,
    read_shapes,
    rows_per_second,
)

PACKED_TYPES = (np.dtype("<f2"), np.dtype("<f4"))
PACKED_SAMPLES = 256  # of a packed file's content, in its stamp
NAMED = 3  # faults named in a message
THREADS = 2  # read and check at once: more only wait for the disk


class FeatureFiles(ABC):
    """The features of the wanted clips, wherever they lie."""

    place: Path  # folder or packed file
    clip_uids: list[str]  # the wanted clips
    there: list[int]  # the numbers of those that have features
    card: dict  # frame_rate, stride, width...; may be empty
    listed: dict  # clip uid -> rows, as `feature_shapes.json` has them

    @abstractmethod
    def stamps(self) -> list:
        """What changes when the files of the wanted clips do."""

    @abstractmethod
    def read(self, clip: int) -> np.ndarray:
        """Features (rows, F) of one clip in half or single precision; `UserError` if unusable."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return rows_per_second(self.card)

    def each(
        self, action: str, width: int | None = None, values: bool = True
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number and features (rows, F) of each clip there, with a progress bar.

        Raises `UserError` naming the first faults if clips are empty, hold NaN or infinite values,
        or differ in width from `width` or from one another; from the first fault on, clips are only
        checked. Without `values` only shapes are read and checked.
        """
        faults: list[str] = []

        def read(clip: int) -> tuple[int, np.ndarray] | UserError:
            try:
                features = self.read(clip)
                if not features.size:
                    raise UserError(
                        f"{self.where(clip)}: features are empty, shape {features.shape}; extract "
                        "it again"
                    )
                if values:
                    _check_finite(features, self.where(clip))
                if misfit := self._misfit(clip, len(features)):
                    raise UserError(misfit)
                return clip, features
            except UserError as fault:
                return fault

        first = None
        done = ahead(read, self.there, THREADS)
        for outcome in tqdm(done, action, len(self.there), leave=False, unit="clip"):
            if isinstance(outcome, UserError):
                faults.append(str(outcome))
                continue
            clip, features = outcome
            found = features.shape[1]
            if first is None:
                self._check_width(found, width)
                first = clip, found
            if found != first[1]:
                faults.append(
                    f"{self.where(clip)}: features are {found} wide, those of "
                    f"{self.clip_uids[first[0]]} are {first[1]}; they must be of one kind"
                )
            elif not faults:
                yield outcome
        self._refuse(faults)

    def layout(self, name: str, width: int | None = None) -> tuple[np.ndarray, int, type]:
        """Rows of each clip (C,), their width, and the precision that holds all of them.

        Values are not read. Raises `UserError` as `each` does.
        """
        lengths, half = np.zeros(len(self.clip_uids), np.int64), True
        for clip, features in self.each(f"looking at {name} features", width, values=False):
            lengths[clip], found = features.shape
            half = half and features.dtype == np.float16
        return lengths, found, np.float16 if half else np.float32

    def copy_into(self, rows: np.ndarray, lengths: np.ndarray, action: str) -> None:
        """Write the features of all clips, one after another, into an array `rows` (T, F).

        `lengths` (C,) are their rows, 0 for a clip that is not there.
        """
        ends = np.cumsum(lengths)
        for clip, features in self.each(action, rows.shape[1]):
            place = rows[ends[clip] - lengths[clip] : ends[clip]]
            if len(features) != len(place):
                raise UserError(f"{self.where(clip)}: was replaced meanwhile; start again")
            place[:] = in_precision(features, rows.dtype, self.where(clip))

    def check(self, rows: np.ndarray, found: int, wanted: int | None) -> None:
        """Compare rows (C,) and width of a store with what is said of them.

        Raises `UserError` if the width is not the wanted one, or not the card's, or if the rows of
        clips are not those listed.
        """
        self._check_width(found, wanted)
        self._refuse(list(filter(None, (self._misfit(clip, rows[clip]) for clip in self.there))))

    def where(self, clip: int) -> str:
        """What to call a clip's features in a message."""
        return f"{self.place}: {self.clip_uids[clip]}"

    def _refuse(self, faults: list[str]) -> None:
        if len(faults) == 1:
            raise UserError(faults[0])
        if faults:
            more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
            raise UserError(
                f"{len(faults)} of {len(self.there)} clips have features that can't be used: "
                + "; ".join(faults[:NAMED])
                + more
            )

    def _misfit(self, clip: int, rows: int) -> str | None:
        listed = self.listed.get(self.clip_uids[clip], rows)
        if listed == rows:
            return None
        return (
            f"{self.where(clip)}: has {rows} rows, {SHAPES_FILE} says {listed}; fetch the file "
            "again, or make the list anew"
        )

    def _check_width(self, found: int, wanted: int | None) -> None:
        if wanted is not None and wanted != found:
            raise UserError(
                f"{self.place}: features are {found} wide, --video_feature_dim says {wanted}; "
                "leave the option out, the width is read from the features"
            )
        said = self.card.get("width") or found
        if said != found:
            raise UserError(
                f"{self.place}: features are {found} wide, their feature card says {said}; "
                "correct the card, or fetch the features again"
            )


class FeatureFolder(FeatureFiles):
    """One `.pt` file a clip."""

    def __init__(self, folder: Path, clip_uids: list[str]):
        self.place = folder
        self.clip_uids = clip_uids
        files = {entry.name: entry for entry in folder.iterdir()}
        self._files = [files.get(f"{uid}.pt") for uid in clip_uids]
        self.there = [clip for clip, file in enumerate(self._files) if file is not None]
        self.listed, self.card = read_shapes(folder), read_card(folder)

    def stamps(self) -> list:
        return [
            [uid, file and file_stamp(file)]
            for uid, file in zip(self.clip_uids, self._files, strict=True)
        ]

    def read(self, clip: int) -> np.ndarray:
        return read_features(Path(self._files[clip]))

    def where(self, clip: int) -> str:
        return str(self._files[clip])


class PackedFeatures(FeatureFiles):
    """One HDF5 file, mapped."""

    def __init__(self, file: Path, clip_uids: list[str]):
        self.place = file
        self.clip_uids = clip_uids
        self.listed = {}
        import h5py  # slow to import

        try:
            with h5py.File(file, "r", locking=False) as packed:  # not all disks give locks
                rows = packed["rows"]
                uids = packed["clip_uids"].asstr()[:].tolist()
                offsets = np.asarray(packed["offsets"], np.int64)
                self.card = {name: _plain(value) for name, value in packed.attrs.items()}
                start, shape, kind = rows.id.get_offset(), rows.shape, rows.dtype
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}: not a packed feature file, or cut off ({in_brief(error)}); make it again"
            ) from None
        check_card(self.card, file)
        if len(shape) != 2 or kind not in PACKED_TYPES or start is None:
            raise UserError(
                f"{file}: rows must be (rows, width), contiguous, float16 or float32; they are "
                f"{shape}, {'in chunks' if start is None else 'contiguous'}, {kind}"
            )
        if len(offsets) != len(uids) + 1 or (np.diff(offsets) < 0).any() or offsets[0] < 0:
            raise UserError(f"{file}: offsets must rise, one more than there are clip_uids")
        if (
            offsets[-1] > shape[0]
            or start + shape[0] * shape[1] * kind.itemsize > file.stat().st_size
        ):
            raise UserError(f"{file}: has fewer rows than its offsets say; make it again")
        self.mapped = np.memmap(file, kind, "r", start, shape)  # (T, F) rows of all clips in it
        number = {uid: n for n, uid in enumerate(uids)}
        if len(number) < len(uids):
            raise UserError(f"{file}: clip_uids holds a clip twice; make it again")
        places = [number.get(uid) for uid in clip_uids]
        self.there = [clip for clip, place in enumerate(places) if place is not None]
        self.offsets = np.array([0 if p is None else offsets[p] for p in places])  # (C,)
        ends = np.array([0 if p is None else offsets[p + 1] for p in places])
        self.lengths = ends - self.offsets  # (C,) rows, 0 for a clip that is not there

    def stamps(self) -> list:
        return [file_stamp(self.place, PACKED_SAMPLES), str(self.card), self.clip_uids]

    def read(self, clip: int) -> np.ndarray:
        first = self.offsets[clip]
        return self.mapped[first : first + self.lengths[clip]]


def find_features(data_root: Path, name: str, clip_uids: list[str]) -> FeatureFiles:
    """The feature of that name; a `UserError` if there is none, or none of any wanted clip."""
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"feature '{name}' must be a plain folder name")
    features = data_root / "features"
    files: FeatureFiles
    if (features / f"{name}.h5").is_file():
        files = PackedFeatures(features / f"{name}.h5", clip_uids)
        made_from = files.card.get("folder_stamp")
        if made_from and (features / name).is_dir() and made_from != folder_stamp(features / name):
            warn(
                f"{files.place} is read, but was packed from other files than lie in "
                f"{features / name} now; pack anew with utils/prepare_features.py --overwrite, or "
                "take one of the two away"
            )
    elif (features / name).is_dir():
        files = FeatureFolder(features / name, clip_uids)
    else:
        known = {p.name for p in features.glob("[!.]*") if p.is_dir()}
        known |= {p.stem for p in features.glob("[!.]*.h5")}
        raise UserError(
            f"{features / name}: no such features (there: {', '.join(sorted(known)) or 'none'}); "
            "see data/README.md for where they come from"
        )
    if not files.there:
        wanted = f" ({clip_uids[0]}, ...)" if clip_uids else ""
        raise UserError(
            f"{files.place}: holds features of none of the {len(clip_uids)} clips wanted{wanted}"
        )
    return files


def read_features(file: Path) -> np.ndarray:
    """The tensor (rows, F) of one file, mapped if it is half or single precision, else single.

    Raises `UserError` if the file is missing, torn or hostile, or holds something else.
    """
    features = load_safely(file, mmap=file.is_file() and _can_be_mapped(file))
    if not torch.is_tensor(features) or not features.is_floating_point():
        kind = "an integer tensor" if torch.is_tensor(features) else type(features).__name__
        raise UserError(f"{file}: must be a tensor of numbers (rows, width), is {kind}")
    if not is_plain(features):
        raise UserError(f"{file}: must be a dense tensor with its values; save it again as one")
    if features.untyped_storage().nbytes() < features.numel() * features.element_size():
        raise UserError(
            f"{file}: holds fewer numbers than its shape {tuple(features.shape)} says; save it "
            "again as .contiguous()"
        )
    if features.ndim != 2:
        shape = tuple(features.shape)
        raise UserError(f"{file}: is not a tensor (rows, width), but of shape {shape}")
    features = features.detach()
    return (features if features.dtype == torch.float16 else features.float()).numpy()


def clip_files(folder: Path) -> list[Path]:
    """The `.pt` files of a folder, by name."""
    return sorted(file for file in folder.glob("[!.]*.pt") if file.is_file())


def folder_stamp(folder: Path) -> str:
    """What changes when any feature in a folder does."""
    return fingerprint([file_stamp(file) for file in clip_files(folder)])


def in_precision(features: np.ndarray, dtype: np.dtype | type, where: object) -> np.ndarray:
    """Features (rows, F) as `dtype`; a `UserError` if a value is too large for it."""
    with np.errstate(over="ignore"):
        cast = features.astype(dtype, copy=False)
    if cast is not features and not np.isfinite(cast).all():
        largest = np.abs(features).max()
        raise UserError(f"{where}: {largest:g} is too large for {cast.dtype}; give --dtype float32")
    return cast


def _can_be_mapped(file: Path) -> bool:
    """Whether it is a zip archive of files as they are, not compressed.

    Files of `torch.save` before version 1.6 are none; those that were zipped again may be packed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
    except Exception:  # the parser of a damaged file may trip over anything; so will the reader
        return False


def _check_finite(features: np.ndarray, where: str) -> None:
    finite = np.isfinite(features)
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(1))[0])
        raise UserError(f"{where}: NaN or infinite values in row {row}; extract it again")


def _plain(value: object) -> object:
    """An HDF5 attribute as a plain Python value."""
    return value.item() if isinstance(value, np.generic) else value
