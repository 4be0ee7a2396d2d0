"""Archives from elsewhere: parts joined, wanted files extracted, nothing else let in.

Zip, tar and tar.gz are read by Python's own libraries; of an archive in parts (`x.zip.part-aa`,
`x.zip.001`, as `split` makes them, or `x.zip`, `x.z01`, as `zip -s` does) the parts are read in a
row, without a joined copy on the disk.
"""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from utils.base.errors import UserError, in_brief
from utils.base.tables import show_size
from utils.download.fetch import check_space
from utils.download.volumes import directory_of, in_order

BLOCK = 1 << 20  # bytes read at once
LONGEST_READ = 16 << 20  # bytes that `tarfile` may want at once: no honest header is longer
ZIP, SPANNED_ZIP, GZIP, TAR = "zip", "spanned zip", "gzip", "tar"
MARK = 4  # bytes before the first file of a zip in volumes
BEGINNINGS = {b"PK\x03\x04": ZIP, b"PK\x05\x06": ZIP, b"PK\x07\x08": SPANNED_ZIP}


@dataclass(frozen=True)
class Limits:
    """What an honest archive does not exceed."""

    size: int = 4 << 40  # bytes of all files together
    files: int = 1_000_000
    ratio: int = 100  # of the size of all files to that of the archive


@dataclass(frozen=True)
class _Member:
    path: str
    size: int  # bytes, as declared
    is_plain: bool  # a file, not a link or device
    open: Callable[[], BinaryIO]


def extract(
    files: Sequence[Path],
    folder: Path,
    wanted: Callable[[str], bool],
    limits: Limits = Limits(),
) -> list[str]:
    """Put the wanted files of archives into an existing folder, without the folders they lie in.

    A file that begins like an archive is one; those that follow it and don't are its further parts.

    Args:
        files: archives, the parts of each in order.
        wanted: whether a file is, by its path in the archive; others are left out.

    Returns: the names of the files extracted.

    Raises:
        UserError: something in an archive leads out of the folder, is a link or a device, comes
            twice, or is larger than declared or allowed; the archive is damaged or lacks a part; or
            the disk is too full. What was extracted by then stays for the caller to delete.
    """
    names: dict[str, None] = {}
    for parts in _archives(files):
        try:
            _extract_one(parts, folder, wanted, limits, names)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # the parser of a damaged file may trip over anything
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise  # of the disk, not of the archive
            raise UserError(
                f"{parts[0]}: damaged or cut off, or one of its {len(parts)} parts is missing or "
                f"out of order ({in_brief(error, 100)}); delete it and fetch "
                "it again"
            ) from None
    return list(names)


def _archives(files: Sequence[Path]) -> list[list[Path]]:
    """Files in groups, each the parts of one archive."""
    if volumes := in_order(files):
        return [volumes]
    groups: list[list[Path]] = []
    for file in files:
        kind = _kind(file)
        if kind == SPANNED_ZIP:
            raise UserError(
                f"{file}: a zip made in volumes; give all of them, named NAME.zip, NAME.z01, "
                "NAME.z02 and so on"
            )
        if kind is not None:
            groups.append([file])
        elif groups:
            groups[-1].append(file)
        else:
            raise UserError(
                f"{file}: not a zip, tar or tar.gz archive, nor the first part of one; give the "
                "parts in order"
            )
    return groups


def _kind(file: Path) -> str | None:
    with file.open("rb") as stream:
        head = stream.read(512)
    if head[:3] == b"\x1f\x8b\x08":
        return GZIP
    return TAR if head[257:262] == b"ustar" else BEGINNINGS.get(head[:4])


def _extract_one(
    parts: list[Path],
    folder: Path,
    wanted: Callable[[str], bool],
    limits: Limits,
    names: dict[str, None],
) -> None:
    """One archive; `names` are those extracted so far, of this and other archives."""
    archive = parts[0]
    kind, joined = _kind(archive), _Joined(parts)
    if kind == SPANNED_ZIP:
        joined.replace_end(*directory_of(joined, joined.sizes))
    with io.BufferedReader(joined, BLOCK) as stream:
        packed = stream.seek(0, io.SEEK_END)
        most = min(limits.size, limits.ratio * packed)
        stream.seek(0)
        read = _zip_members if kind in (ZIP, SPANNED_ZIP) else _tar_members
        whole = 0
        with tqdm(
            desc=f"extracting {archive.name}", total=packed, unit="B", unit_scale=True, leave=False
        ) as bar:
            for number, member in enumerate(read(stream, archive, most)):
                whole += member.size
                _check_member(member, archive)
                if member.size < 0 or whole > most:
                    raise UserError(
                        f"{archive}: refused: {show_size(packed)} that say they hold more than "
                        f"{show_size(most)}"
                    )
                if number >= limits.files:
                    raise UserError(f"{archive}: refused: holds more than {limits.files} files")
                name = member.path.rsplit("/", 1)[-1]
                # macOS puts a "._x" beside each x.
                if name.startswith("._") or not wanted(member.path):
                    continue
                if name in names:
                    raise UserError(f"{archive}: refused: holds two files named {name}")
                names[name] = None
                check_space(folder, member.size, f"extracting {archive.name}")
                _write(member, folder / name, archive)
                bar.update(max(stream.tell() - bar.n, 0))


def _check_member(member: _Member, archive: Path) -> None:
    path = member.path
    steps = path.split("/")
    if path.startswith("/") or ".." in steps or "\\" in path or ":" in steps[0] or "\0" in path:
        raise UserError(f"{archive}: refused: {path[:100]!r} in it leads out of the folder")
    if not member.is_plain:
        raise UserError(f"{archive}: refused: {path[:100]!r} in it is a link or no plain file")


def _write(member: _Member, path: Path, archive: Path) -> None:
    """Copy a member's content, which must be as long as declared."""
    written = 0
    with member.open() as source, path.open("xb") as target:
        while block := source.read(BLOCK):
            written += len(block)
            if written > member.size:
                break
            target.write(block)
    if written != member.size:
        raise UserError(
            f"{archive}: refused: {member.path[:100]!r} in it hasn't the {member.size} bytes that "
            "are declared"
        )


def _zip_members(stream: BinaryIO, archive: Path, most: int) -> Iterator[_Member]:
    with zipfile.ZipFile(stream) as content:
        # Of a zip that is cut off, the directory of a zip stored within would be found: `.pt` files
        # are such.
        if min((info.header_offset for info in content.infolist()), default=0) > MARK:
            raise zipfile.BadZipFile("its end is missing")
        for info in content.infolist():
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{archive}: packed in an unusual way; make a plain zip of it")
            if info.flag_bits & 1:
                raise UserError(f"{archive}: needs a password; make a zip without one")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() and kind in (0, stat.S_IFDIR):
                yield _Member(info.filename + ".", 0, True, io.BytesIO)
                continue
            plain = kind in (0, stat.S_IFREG) and not info.is_dir()
            yield _Member(
                info.filename, info.file_size, plain, lambda info=info: content.open(info)
            )


def _tar_members(stream: BinaryIO, archive: Path, most: int) -> Iterator[_Member]:
    kind = _kind(archive)
    source = gzip.GzipFile(fileobj=stream) if kind == GZIP else stream
    careful = _Careful(source, most + LONGEST_READ)
    with tarfile.open(fileobj=careful, mode="r:", errorlevel=2) as content:
        for member in content:
            content.members.clear()  # it would keep them all
            if member.isdir():
                yield _Member(member.name + "/.", 0, True, io.BytesIO)
                continue
            plain = member.isreg() and not member.issparse()
            yield _Member(
                member.name, member.size, plain, lambda member=member: content.extractfile(member)
            )
        # It takes a damaged header for the end; the true end is a block of zeros.
        careful.seek(content.offset)
        if careful.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")
        while source.read(BLOCK):  # so that the checksum of the whole is looked at
            pass


class _Careful:
    """A file for `tarfile` that is not read endlessly, in giant pieces, or without a limit."""

    def __init__(self, source: BinaryIO, most: int):
        self._source = source
        self._most = most
        self._ends = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_READ:
            raise tarfile.ReadError("a header of impossible size")
        content = self._source.read(size)
        self._ends = 0 if content or not size else self._ends + 1
        if self._ends > 3:
            raise tarfile.ReadError("ends too early")
        return content

    def seek(self, place: int) -> int:
        # Skipped content is unpacked too.
        if not 0 <= place <= self._most:
            raise tarfile.ReadError("content of impossible size")
        return self._source.seek(place)

    def tell(self) -> int:
        return self._source.tell()


class _Joined(io.RawIOBase):
    """Files read as if they were one, whose end may be replaced."""

    def __init__(self, parts: Sequence[Path]):
        self._parts = list(parts)
        self.sizes = [part.stat().st_size for part in self._parts]
        self._length = sum(self.sizes)  # of what is read from files
        self._end = b""
        self._place = 0
        self._opened: tuple[int, BinaryIO] | None = None  # the part that was read last

    def replace_end(self, begin: int, content: bytes) -> None:
        """Let the content stand where the files' own does from `begin` on."""
        self._length, self._end = begin, content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        whole = self._length + len(self._end)
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: whole}
        if origin[whence] + place < 0:
            raise ValueError("a place before the beginning")
        self._place = origin[whence] + place
        return self._place

    def readinto(self, buffer: memoryview) -> int:
        if self._place >= self._length:
            content = self._end[self._place - self._length :][: len(buffer)]
            buffer[: len(content)] = content
            self._place += len(content)
            return len(content)
        begin = 0
        for number, size in enumerate(self.sizes):
            if self._place < begin + size:
                file = self._open(number)
                file.seek(self._place - begin)
                count = file.readinto(memoryview(buffer)[: self._length - self._place])
                self._place += count
                return count
            begin += size
        return 0

    def close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
        super().close()

    def _open(self, number: int) -> BinaryIO:
        if self._opened is None or self._opened[0] != number:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = number, self._parts[number].open("rb", buffering=0)
        return self._opened[1]
