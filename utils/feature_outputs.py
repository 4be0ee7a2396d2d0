"""Where prepared features go: one packed file, or a folder of `.pt`.

An output is filled under a hidden name beside its final one, and renamed once it is whole.
Shapes: C clips, F feature dim.
"""

import json
import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.checkpoints import save_atomically
from utils.errors import UserError, in_brief
from utils.feature_files import CARD_FILE, SHAPES_FILE, PackedFeatures, read_card
from utils.files import write_json

PAGE = 4096  # rows of a packed file begin at a page
PLAIN = (str, int, float)  # what an attribute holds as it is


class Source(NamedTuple):
    """The rows [first, stop) of a file are the features of a clip."""

    uid: str
    file: Path
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.first

    def mark(self) -> str:
        """What changes when the clip's features do."""
        status = self.file.stat()
        place = f"{self.file.name} {self.first}-{self.stop}"
        return f"{place} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True)
class Output(ABC):
    """Where the rows of clips go."""

    final: Path  # the name it gets when it is whole
    dtype: str  # float16 or float32
    width: int  # F

    @property
    def work(self) -> Path:
        """Its name until then."""
        return self.final.with_name(f".{self.final.name}.partial")

    @property
    def journal(self) -> Path:
        """Which clips are done."""
        return self.final.with_name(f".{self.final.name}.journal")

    @abstractmethod
    def made_from(self) -> str | None:
        """Fingerprint of what the output that is there was made from, if it was made here."""

    @abstractmethod
    def is_begun(self) -> bool:
        """Whether there is work that can be continued."""

    @abstractmethod
    def create(self, sources: list[Source]) -> None:
        """Begin anew."""

    @abstractmethod
    def places(self, sources: list[Source]) -> list[int]:
        """Where the rows of each clip go."""

    @abstractmethod
    def put(self, uid: str, place: int, rows: np.ndarray) -> None:
        """Write the rows (n, F) of a clip."""

    @abstractmethod
    def sync(self) -> None:
        """Bring what was put to the disk."""

    @abstractmethod
    def finish(self, sources: list[Source], card: dict) -> None:
        """Give what is now whole its final name."""


class PackedOutput(Output):
    """One HDF5 file with all rows in one piece, in the layout that `PackedFeatures` reads."""

    def made_from(self) -> str | None:
        return PackedFeatures(self.final, []).card.get("fingerprint")

    def is_begun(self) -> bool:
        try:
            return bool(PackedFeatures(self.work, []).mapped.size)
        except UserError:  # not there, or killed while its card was written
            return False

    def create(self, sources: list[Source]) -> None:
        self.work.unlink(missing_ok=True)
        lengths = [source.rows for source in sources]
        size = sum(lengths) * self.width * np.dtype(self.dtype).itemsize
        free = shutil.disk_usage(self.final.parent).free
        if free < size:
            raise UserError(
                f"{self.final.parent}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} are free"
            )
        try:
            self._lay_out(sources, lengths, size)
        except RuntimeError as error:  # what h5py says of a file system's limits
            raise UserError(
                f"{self.work}: can't make a file of {size} bytes ({in_brief(error)})"
            ) from None

    def _lay_out(self, sources: list[Source], lengths: list[int], size: int) -> None:
        """Make the room for all rows, one piece from a page on; workers fill it."""
        import h5py  # slow to import

        alignment = {"alignment_threshold": size, "alignment_interval": PAGE}
        with h5py.File(self.work, "w", **alignment) as packed:
            packed["clip_uids"] = [source.uid for source in sources]
            packed["offsets"] = np.cumsum([0, *lengths])
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((sum(lengths), self.width))
            kind = h5py.h5t.py_create(np.dtype(self.dtype).newbyteorder("<"))
            h5py.h5d.create(packed.id, b"rows", kind, space, layout)

    def places(self, sources: list[Source]) -> list[int]:
        begin = PackedFeatures(self.work, []).mapped.offset
        first = np.cumsum([0, *(source.rows for source in sources[:-1])])
        return (begin + first * self.width * np.dtype(self.dtype).itemsize).tolist()

    def put(self, uid: str, place: int, rows: np.ndarray) -> None:
        with self.work.open("r+b") as file:
            file.seek(place)
            file.write(rows)

    def sync(self) -> None:
        with self.work.open("rb") as file:
            os.fsync(file.fileno())

    def finish(self, sources: list[Source], card: dict) -> None:
        import h5py

        said = {k: v if isinstance(v, PLAIN) else json.dumps(v) for k, v in card.items()}
        try:
            if any("\0" in name for name in said):  # HDF5 would keep what stands before it
                raise ValueError("a name holds a NUL byte")
            with h5py.File(self.work, "r+") as packed:
                packed.attrs.update(said)
        except (RuntimeError, ValueError, TypeError) as error:  # a name or text it has no room for
            raise UserError(
                f"{self.work}: can't keep this feature card ({in_brief(error)}); correct the card"
            ) from None
        uids = [source.uid for source in sources]
        found = PackedFeatures(self.work, uids).lengths.tolist()
        if found != [source.rows for source in sources]:
            raise UserError(f"{self.work}: was changed by something else; delete it, begin again")
        self.sync()
        self.work.replace(self.final)


class FolderOutput(Output):
    """A folder with one `.pt` a clip, the list of their rows and their feature card."""

    def made_from(self) -> str | None:
        return read_card(self.final).get("fingerprint")

    def is_begun(self) -> bool:
        return self.work.is_dir()

    def create(self, sources: list[Source]) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def places(self, sources: list[Source]) -> list[int]:
        return [0] * len(sources)

    def put(self, uid: str, place: int, rows: np.ndarray) -> None:
        save_atomically(torch.from_numpy(rows), self.work / f"{uid}.pt")

    def sync(self) -> None:
        """Each file is brought there as it is written."""

    def finish(self, sources: list[Source], card: dict) -> None:
        for left in self.work.glob(".*.tmp"):  # by a process that was killed
            left.unlink()
        write_json(self.work / SHAPES_FILE, {source.uid: source.rows for source in sources})
        write_json(self.work / CARD_FILE, card, indent=True)
        old = self.final.with_name(f".{self.final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.replace(old)
        self.work.replace(self.final)
        shutil.rmtree(old, ignore_errors=True)
