"""Packed features: all clips of a feature in one HDF5 file, read and written.

`rows` (T, F) contiguous, half or single precision; `clip_uids` (C,); `offsets` (C + 1,), clip c has
the rows `[offsets[c], offsets[c + 1])`; the feature card as attributes of the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.base.errors import UserError, in_brief
from utils.base.files import atomic_path, file_stamp
from utils.features.cards import check_card
from utils.features.files import FeatureFiles
from utils.features.stores import take_room

if TYPE_CHECKING:
    import h5py

TYPES = (np.dtype("<f2"), np.dtype("<f4"))
SAMPLES = 256  # of the file's content, in its stamp
PAGE = 4096  # bytes; rows begin at a page
SLACK = 1 << 16  # bytes of a file besides rows and uids, at least


class PackedFeatures(FeatureFiles):
    """One HDF5 file, mapped."""

    def __init__(self, file: Path, clip_uids: list[str]):
        self.path, self.clip_uids = file, clip_uids
        packed_uids, packed_offsets = self._open()
        index = {uid: n for n, uid in enumerate(packed_uids)}
        if len(index) < len(packed_uids):
            raise UserError(f"{file}: clip_uids holds a clip twice; make it again")
        numbers = np.array([index.get(uid, -1) for uid in clip_uids], np.int64)
        self.present = np.flatnonzero(numbers >= 0).tolist()
        self.offsets = packed_offsets[numbers]  # (C,)
        # (C,) rows, 0 for a clip without features.
        self.lengths = np.where(numbers >= 0, packed_offsets[numbers + 1] - self.offsets, 0)

    def _open(self) -> tuple[list[str], np.ndarray]:
        """Read the card, map the rows, and return the uids and offsets of all clips in the file."""
        import h5py  # slow to import

        file = self.path
        try:
            with h5py.File(file, "r", locking=False) as packed:  # not all disks give locks
                rows = _inside(packed, "rows", 2)
                packed_uids = _inside(packed, "clip_uids", 1).asstr()[:].tolist()
                packed_offsets = _inside(packed, "offsets", 1)[:]
                # Arrays become lists: no number equals them.
                self.card = {
                    name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
                    for name, value in packed.attrs.items()
                }
                start, shape, dtype = rows.id.get_offset(), rows.shape, rows.dtype
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}: not a packed feature file, or cut off ({in_brief(error)}); make it again"
            ) from None
        check_card(self.card, file)
        if dtype not in TYPES:
            raise UserError(f"{file}: rows must be float16 or float32, are {dtype}")
        if (
            packed_offsets.dtype.kind not in "iu"
            or len(packed_offsets) != len(packed_uids) + 1
            or (packed_offsets[1:] < packed_offsets[:-1]).any()
            or not 0 <= packed_offsets[0] <= packed_offsets[-1] <= shape[0]
        ):
            raise UserError(
                f"{file}: offsets must rise from 0 to the number of rows, one more than there are "
                "clip_uids; make it again"
            )
        self.mapped = np.memmap(file, dtype, "r", start, shape)  # (T, F) rows of all clips in it
        return packed_uids, packed_offsets.astype(np.int64)

    def stamps(self) -> list:
        return [file_stamp(self.path, SAMPLES), str(self.card), self.clip_uids]

    def read(self, clip: int) -> np.ndarray:
        first = self.offsets[clip]
        return self.mapped[first : first + self.lengths[clip]]


def _inside(packed: h5py.File, name: str, dimensions: int) -> h5py.Dataset:
    """A data set that lies in the file itself, in one piece; raises `ValueError` if not."""
    import h5py

    if not isinstance(packed.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is not in the file itself")  # links are not followed
    dataset = packed[name]
    if not isinstance(dataset, h5py.Dataset) or len(dataset.shape or ()) != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions")
    start = dataset.id.get_offset()
    if start is None:
        raise ValueError(f"{name} must be contiguous, and not empty")
    if start + dataset.nbytes > Path(packed.filename).stat().st_size:
        raise ValueError(f"{name} is longer than the file")
    return dataset


def write_packed(files: FeatureFiles, lengths: np.ndarray, file: Path, card: dict) -> None:
    """Pack features into one HDF5 file in the layout that `PackedFeatures` reads.

    `lengths` (C,) are as `files.layout` says; width and precision are the card's. Raises
    `UserError` naming what can't be used.
    """
    with atomic_path(file) as temporary:
        rows = _lay_out(temporary, files, lengths[files.present], card)
        files.copy_into(rows, lengths, f"packing {file.stem} features")
        rows.flush()


def _lay_out(file: Path, files: FeatureFiles, lengths: np.ndarray, card: dict) -> np.ndarray:
    """A packed file without values; its rows (T, F) in one piece, mapped to be written."""
    import h5py  # slow to import

    attributes = {
        key: value if isinstance(value, str | int | float) else json.dumps(value)
        for key, value in card.items()
    }
    shape = int(lengths.sum()), card["width"]
    dtype = np.dtype(card["dtype"]).newbyteorder("<")
    size = shape[0] * shape[1] * dtype.itemsize
    with file.open("wb") as stream:  # HDF5 does not survive a disk that it can't write to
        stream.write(bytes(SLACK))
        stream.truncate(size + SLACK)
    alignment = {"alignment_threshold": size, "alignment_interval": PAGE}
    try:
        with h5py.File(file, "w", locking=False, **alignment) as packed:
            packed.attrs.update(attributes)
            packed["clip_uids"] = [files.clip_uids[clip] for clip in files.present]
            packed["offsets"] = np.cumsum([0, *lengths])
            rows = packed.create_dataset("rows", shape, dtype)
            rows[-1] = 0  # now all rows have their place
            start = rows.id.get_offset()
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        if getattr(error, "errno", None):  # of the disk; else a name or text it has no room for
            raise
        raise UserError(
            f"{files.path}: its feature card can't be kept ({in_brief(error)}); correct the card"
        ) from None
    take_room(file)
    return np.memmap(file, dtype, "r+", start, shape)
