"""Features written anew: all clips packed into one file, or cut out of whole videos into a folder.

Each is written under a temporary name and renamed once it is whole. Shapes: C clips, T rows of all
of them, F feature dim.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from utils.base.errors import UserError, in_brief
from utils.base.files import (
    TEMPORARY,
    atomic_path,
    file_stamp,
    remove_leftovers,
    temporary_prefix,
    write_json,
)
from utils.base.lazy import torch
from utils.base.tensor_files import save_atomically
from utils.features.cards import CARD_FILE, SHAPES_FILE, read_card, rows_off
from utils.features.files import FeatureFiles, in_precision, read_features
from utils.features.stores import take_room

PAGE = 4096  # bytes; rows of a packed file begin at a page
SLACK = 1 << 16  # bytes of a packed file besides rows and uids, at least

Bounds = dict[str, tuple[str, float, float]]  # clip uid -> video uid, start, end (s)


class VideoCuts(FeatureFiles):
    """Of clips the rows nearest to their bounds in the features of whole videos."""

    def __init__(self, folder: Path, bounds: Bounds):
        self.place = folder
        self.clip_uids = sorted(bounds)
        self.card, self.listed = read_card(folder), {}
        self._bounds = [bounds[uid] for uid in self.clip_uids]
        self._files = [folder / f"{video}.pt" for video, _, _ in self._bounds]
        present = {file for file in set(self._files) if file.is_file()}
        self.there = [clip for clip, file in enumerate(self._files) if file in present]

    def stamps(self) -> list:
        stamps = {file: file_stamp(file) for file in {self._files[clip] for clip in self.there}}
        return [[self.clip_uids[n], self._bounds[n], stamps[self._files[n]]] for n in self.there]

    def read(self, clip: int) -> np.ndarray:
        features = read_features(self._files[clip])
        end = self._bounds[clip][2]
        first, last = (round(second * self.rate) for second in self._bounds[clip][1:])
        first = max(first, 0)
        cut = features[first : max(last, first + 1)]
        if not len(cut) or rows_off(np.array(len(cut)), np.array(last - first)):
            raise UserError(
                f"{self.where(clip)} ends at row {last} ({end:.1f} s at {self.rate:g} rows a "
                f"second), the file has {len(features)}; is it cut off, or the stride another?"
            )
        return cut

    def where(self, clip: int) -> str:
        return f"{self._files[clip]}: clip {self.clip_uids[clip]}"


def write_packed(
    files: FeatureFiles, name: str, lengths: np.ndarray, width: int, file: Path, card: dict
) -> None:
    """Pack features into one HDF5 file in the layout that `PackedFeatures` reads.

    `lengths` (C,) and `width` are as `files.layout` says; the precision is the card's. Raises
    `UserError` naming what can't be used.
    """
    with atomic_path(file) as temporary:
        rows = _lay_out(temporary, files, lengths[files.there], width, card)
        files.copy_into(rows, lengths, f"packing {name} features")
        rows.flush()


def _lay_out(
    file: Path, files: FeatureFiles, lengths: np.ndarray, width: int, card: dict
) -> np.ndarray:
    """A packed file without values; its rows (T, F) in one piece, mapped to be written."""
    import h5py  # slow to import

    attributes = {
        key: value if isinstance(value, str | int | float) else json.dumps(value)
        for key, value in card.items()
    }
    shape, dtype = (int(lengths.sum()), width), np.dtype(card["dtype"]).newbyteorder("<")
    size = shape[0] * width * dtype.itemsize
    with file.open("wb") as stream:  # HDF5 does not survive a disk that it can't write to
        stream.write(bytes(SLACK))
        stream.truncate(size + SLACK)
    alignment = {"alignment_threshold": size, "alignment_interval": PAGE}
    try:
        if any("\0" in key for key in attributes):  # HDF5 would keep what stands before it
            raise ValueError("a name holds a NUL byte")
        with h5py.File(file, "w", locking=False, **alignment) as packed:
            packed.attrs.update(attributes)
            packed["clip_uids"] = [files.clip_uids[clip] for clip in files.there]
            packed["offsets"] = np.cumsum([0, *lengths])
            rows = packed.create_dataset("rows", shape, dtype)
            rows[-1] = 0  # now all rows have their place
            start = rows.id.get_offset()
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        if getattr(error, "errno", None):  # of the disk; else a name or text it has no room for
            raise
        raise UserError(
            f"{files.place}: its feature card can't be kept ({in_brief(error)}); correct the card"
        ) from None
    take_room(file)
    return np.memmap(file, dtype, "r+", start, shape)


def write_folder(
    files: FeatureFiles, name: str, lengths: np.ndarray, folder: Path, card: dict
) -> None:
    """Write features as a folder with one `.pt` a clip; goes on where it was stopped.

    Raises `UserError` naming what can't be used.
    """
    remove_leftovers(folder.parent)
    work = folder.with_name(f".{folder.name}.partial")
    if read_card(work).get("fingerprint") != card["fingerprint"]:
        shutil.rmtree(work, ignore_errors=True)
        write_json(work / CARD_FILE, card, indent=True)
    outputs = {clip: work / f"{files.clip_uids[clip]}.pt" for clip in files.there}
    files.there = [clip for clip in files.there if not outputs[clip].exists()]
    for clip, features in files.each(f"cutting {name} features"):
        rows = np.ascontiguousarray(in_precision(features, card["dtype"], files.where(clip)))
        save_atomically(torch.from_numpy(rows), outputs[clip])
    write_json(work / SHAPES_FILE, {file.stem: lengths[clip] for clip, file in outputs.items()})
    if not all(file.exists() for file in outputs.values()):
        raise UserError(f"{work}: was moved by another process; run the same command again")
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=temporary_prefix(folder.name), suffix=TEMPORARY
    ) as replaced:
        if folder.exists():
            folder.rename(Path(replaced) / folder.name)
        work.rename(folder)
