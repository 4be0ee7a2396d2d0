"""A zip made in volumes (`x.z01`, `x.z02`, ..., `x.zip`), read as if it were one file.

The published features come so, as `zip -s` makes them. The directory at the end of `x.zip` says on
which volume a file begins and where there; Python's `zipfile` wants places in the whole. So the
directory is written anew, and the volumes are read in a row, without a joined copy on the disk.

Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3.12 to 4.3.16 and 4.5.3.
"""

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

ENTRY = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")
EXTRA_64 = 1
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF  # the value stands in the extra field


def in_order(files: Sequence[Path]) -> list[Path]:
    """The volumes in the order of their content, if these files are some: `.zip` is the last."""
    numbered = [file for file in files if re.fullmatch(r"\.z\d+", file.suffix)]
    last = [file for file in files if file.suffix == ".zip"]
    if not numbered or len(last) != 1 or len(numbered) + 1 != len(files):
        return []
    return sorted(numbered, key=lambda file: int(file.suffix[2:])) + last


def directory_of(stream: BinaryIO, sizes: Sequence[int]) -> tuple[int, bytes]:
    """Where the directory of joined volumes begins, and one for the whole that can replace it.

    Args:
        stream: the volumes in a row.
        sizes: bytes of each volume.

    Raises:
        BadZipFile: there is no directory at the end, or it names volumes that are not there.
    """
    begins = [sum(sizes[:number]) for number in range(len(sizes))]

    def place(volume: int, offset: int) -> int:
        if volume >= len(begins):
            raise BadZipFile(f"volume {volume + 1} of it is missing")
        return begins[volume] + offset

    whole = sum(sizes)
    tail_begin = max(0, whole - END.size - FULL_16 - LOCATOR_64.size)
    stream.seek(tail_begin)
    tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < END.size:
        raise BadZipFile("its last volume, .zip, has no end mark")
    _, _, volume, _, entries, size, offset, _ = END.unpack_from(tail, at)
    locator = at - LOCATOR_64.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, end_volume, end_offset, _ = LOCATOR_64.unpack_from(tail, locator)
        stream.seek(place(end_volume, end_offset))
        *_, volume, _, entries, size, offset = END_64.unpack(stream.read(END_64.size))
    begin = place(volume, offset)
    stream.seek(begin)
    old = stream.read(size)
    new, at = [], 0
    for _ in range(entries):
        if old[at : at + 4] != b"PK\1\2" or len(old) - at < ENTRY.size:
            raise BadZipFile("its directory is damaged")
        fields = list(ENTRY.unpack_from(old, at))
        name_size, extra_size, comment_size = fields[10:13]
        name = old[at + ENTRY.size :][:name_size]
        extra = old[at + ENTRY.size + name_size :][:extra_size]
        packed, plain, volume, offset = fields[8], fields[9], fields[13], fields[16]
        large = iter(_large_values(extra))
        plain = next(large) if plain == FULL_32 else plain
        packed = next(large) if packed == FULL_32 else packed
        offset = next(large) if offset == FULL_32 else offset
        volume = next(large) if volume == FULL_16 else volume
        values = struct.pack("<2H3Q", EXTRA_64, 24, plain, packed, place(volume, offset))
        fields[8:10], fields[10:14], fields[16] = [FULL_32] * 2, [name_size, 28, 0, 0], FULL_32
        new.append(ENTRY.pack(*fields) + name + values)
        at += ENTRY.size + name_size + extra_size + comment_size
    directory = b"".join(new)
    counts = entries, entries, len(directory), begin
    directory += END_64.pack(b"PK\6\6", END_64.size - 12, 45, 45, 0, 0, *counts)
    directory += LOCATOR_64.pack(b"PK\6\7", 0, begin + len(directory) - END_64.size, 1)
    directory += END.pack(b"PK\5\6", 0, 0, FULL_16, FULL_16, FULL_32, FULL_32, 0)
    return begin, directory


def _large_values(extra: bytes) -> list[int]:
    """Plain size, packed size and place (8 bytes each) and volume (4), as far as they are there."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        content = extra[at + 4 :][:size]
        if kind == EXTRA_64:
            values = list(struct.unpack_from(f"<{len(content) // 8}Q", content))
            if len(content) % 8 == 4:
                values.append(struct.unpack("<I", content[-4:])[0])
            return values
        at += 4 + size
    return []
