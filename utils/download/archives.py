"""Zip archives in parts: files extracted without a joined copy on the disk.

An archive is whole, cut into pieces by `split`, or in volumes (`x.z01`, `x.z02`, ..., `x.zip`) as
`zip -s` makes them. The directory of the latter, at the end of `x.zip`, says in which volume a file
begins and where there; Python's `zipfile` counts from where the directory begins, so it is read
behind all volumes, and the places of files are corrected.

Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3.12 to 4.3.16 and 4.5.3.
"""

import io
import shutil
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from utils.base.errors import UserError, in_brief
from utils.base.files import atomic_write
from utils.download.fetch import check_space

BLOCK = 1 << 20  # bytes read at once
VOLUME_MARK = b"PK\7\10"  # precedes the first file of a zip in volumes
END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")
FULL_16 = 0xFFFF  # the most bytes of a comment; as a number of files: not said


@contextmanager
def open_archive(parts: Sequence[Path]) -> Iterator[zipfile.ZipFile]:
    """The archive that parts, in order, make up; of volumes, `.zip` may stand first.

    Raises:
        UserError: the archive, or what is read of it meanwhile, is damaged or lacks a part.
    """
    if len(parts) > 1:
        parts = sorted(parts, key=lambda part: part.suffix == ".zip")
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(part.open("rb", buffering=0)) for part in parts]
            stream = io.BufferedReader(Joined(files), BLOCK)
            mark = stream.read(len(VOLUME_MARK))
            if not mark.startswith(b"PK"):
                raise zipfile.BadZipFile("it begins otherwise")
            starts = [0, *accumulate(part.stat().st_size for part in parts)]
            if mark == VOLUME_MARK:
                files.append(io.BytesIO(_directory(stream, starts)))
                stream = io.BufferedReader(Joined(files), BLOCK)
            archive = stack.enter_context(zipfile.ZipFile(stream))
            if mark == VOLUME_MARK:
                for entry in archive.infolist():
                    entry.header_offset += starts[entry.volume] - starts[-1]
            # `.pt` files are zips too: of a zip that is cut off, the last one's directory is taken.
            offsets = [entry.header_offset for entry in archive.infolist()]
            if min(offsets, default=0) > len(VOLUME_MARK):
                raise zipfile.BadZipFile("its end is missing")
            yield archive
    except (UserError, OSError, MemoryError):  # of the machine, not of the archive
        raise
    except Exception as error:  # the parser of a damaged file may trip over anything
        raise UserError(
            f"{parts[0]}: not a zip archive, or damaged, cut off, or a part of it is missing or "
            f"out of order ({in_brief(error, 100)}); delete it and fetch it again"
        ) from None


def extract(archive: zipfile.ZipFile, files: dict[str, Path]) -> Iterator[Path]:
    """Extract the files with these names in the archive, each whole or not at all."""
    for name, file in tqdm(files.items(), desc="unpacking", unit="file", leave=False):
        check_space(file.parent, archive.getinfo(name).file_size, f"unpacking {file.name}")
        with archive.open(name) as packed, atomic_write(file) as unpacked:
            shutil.copyfileobj(packed, unpacked, BLOCK)
        yield file


class Joined(io.RawIOBase):
    """Files read as one."""

    def __init__(self, files: Sequence[BinaryIO]):
        self._files = files
        self._ends = list(accumulate(file.seek(0, io.SEEK_END) for file in files))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = (0, self._position, self._ends[-1])[whence] + offset
        if position < 0:
            raise ValueError("a position before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:
        number = bisect_right(self._ends, self._position)
        if number == len(self._files):
            return 0
        file, end = self._files[number], self._ends[number]
        file.seek(self._position - end, io.SEEK_END)
        count = file.readinto(memoryview(buffer)[: end - self._position])
        self._position += count
        return count


def _directory(stream: BinaryIO, starts: Sequence[int]) -> bytes:
    """The directory of a zip in volumes, with the end record of a whole one.

    Args:
        stream: the volumes in a row.
        starts: where in it each volume begins, and where the last one ends.
    """
    stream.seek(max(0, starts[-1] - END.size - FULL_16 - LOCATOR_64.size))
    tail = stream.read()
    end = tail.rindex(b"PK\5\6")
    *_, volume, _, _, size, offset, _ = END.unpack_from(tail, end)
    if tail[end - LOCATOR_64.size :].startswith(b"PK\6\7"):
        _, end_volume, end_offset, _ = LOCATOR_64.unpack_from(tail, end - LOCATOR_64.size)
        stream.seek(starts[end_volume] + end_offset)
        *_, volume, _, _, size, offset = END_64.unpack(stream.read(END_64.size))
    stream.seek(starts[volume] + offset)
    return stream.read(size) + END.pack(b"PK\5\6", 0, 0, FULL_16, FULL_16, size, 0, 0)
