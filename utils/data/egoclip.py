"""Read EgoClip's narrations: `egoclip.csv`, which is tab-separated and has 3.85 M rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from tqdm import tqdm

from utils.base.cores import usable_cores
from utils.base.errors import UserError, in_brief
from utils.base.files import open_text
from utils.base.lazy import polars as pl
from utils.base.machine import ahead
from utils.data.narrations import Narrations, RowBlock, faulty, join_blocks, sort_out

COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")
BLOCK = 1 << 23  # bytes read at a time; a longer line is skipped
TAB = "\0"  # replaces a tab inside quotes while lines are split


def read_narrations(path: str | Path, video_uids: Sequence[str]) -> Narrations:
    """Read EgoClip's narrations of `video_uids` (distinct).

    Fields in double quotes are read as in pandas, if the quotes are closed on the same line.
    Malformed rows are skipped and counted by fault.

    Raises:
        UserError: the file or one of its columns is missing, or all rows are malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch the EgoClip narrations, or see --data_root")
    columns, videos = _header(path), pl.Enum(list(video_uids))
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, mininterval=0.5)
    with bar, path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:

        def read(part: slice) -> tuple[RowBlock, int]:
            length = part.stop - part.start
            if length > BLOCK:
                return RowBlock([], faulty({0: f"more than {BLOCK >> 20} MiB"}), 0, 1), part.stop
            # Unlike a slice of `content`, pread releases the GIL.
            lines = os.pread(file.fileno(), length, part.start)
            return parse_block(path, lines, columns, videos), part.stop

        def blocks() -> Iterator[RowBlock]:
            for block, end in ahead(read, _blocks(content), usable_cores()):
                bar.update(end - bar.n)
                yield block

        return join_blocks(blocks(), video_uids, str(path), 2, "line")


def _header(path: Path) -> list[str]:
    with open_text(path) as file:
        line = file.readline(1 << 16).rstrip("\r\n")
    columns = [name.strip('"') for name in line.split("\t")]
    if missing := [name for name in COLUMNS if name not in columns]:
        remedy = "NaQ is made from EgoClip's egoclip.csv"
        if line.lstrip().startswith(("{", "[")):
            raise UserError(f"{path}: JSON, such as Ego4D's narration.json: give its --format")
        if all(name in line for name in COLUMNS):
            raise UserError(f"{path}: its columns are not separated by tabs; {remedy}, as released")
        raise UserError(f"{path}: column {', '.join(missing)} is missing from its header")
    return columns


def _blocks(content: mmap) -> Iterator[slice]:
    """Slices of complete lines after the first one; a long line is a slice of its own."""
    start = content.find(b"\n") + 1 or len(content)
    while start < len(content):
        end = content.rfind(b"\n", start, start + BLOCK) + 1
        end = end or content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield slice(start, end)
        start = end


def parse_block(path: Path, content: bytes, columns: list[str], videos: pl.Enum) -> RowBlock:
    content, line_faults = _plain_fields(content)
    # An additional column detects rows with too many fields.
    names = [str(number) for number in range(len(columns) + 1)]
    needed = [names[columns.index(name)] for name in COLUMNS]
    try:
        fields = pl.read_csv(
            b"\n".join(("\t".join(names).encode(), content)),
            schema=dict.fromkeys(names, pl.String),
            columns=[*needed, names[-1]],
            separator="\t",
            quote_char=None,
            encoding="utf8-lossy",
            empty_string_is_null=False,
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: damaged ({in_brief(error)}); fetch it again") from None
    video, start, end, text, surplus = fields.get_columns()
    start, end = _seconds(start), _seconds(end)
    if TAB.encode() in content:
        text = text.str.replace_all(TAB, "\t", literal=True)
    blank = fields.select(pl.all_horizontal(pl.all() == "")).to_series()
    table = pl.DataFrame({"video": video, "start": start, "end": end, "text": text})
    block = sort_out(table, videos, {"": blank, "a field too many": surplus != ""})
    return block._replace(malformed=pl.concat([block.malformed, faulty(line_faults)]))


def _plain_fields(content: bytes) -> tuple[bytes, dict[int, str]]:
    """Remove quotes around fields; lines that can't be split become blank, and have a fault.

    A tab inside quotes becomes `TAB`. A quote inside an unquoted field is text.
    """
    has_nul = b"\0" in content
    has_quotes = b'\t"' in content or b'\n"' in content or content.startswith(b'"')
    if not has_nul and not has_quotes:
        return content, {}
    faults: dict[int, str] = {}
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        if has_nul and b"\0" in line:
            faults[number] = "a NUL byte"
        elif b'"' in line and (b'\t"' in line or line.startswith(b'"')):
            # With an open quote both rows are read as one.
            text = line.decode("utf-8", "replace").removesuffix("\r") + "\n"
            try:
                rows = list(csv.reader([text, "end"], delimiter="\t"))
            except csv.Error:  # a field of more than 131,072 characters
                rows = []
            if len(rows) == 2:
                fields = [field.replace("\t", TAB) for field in rows[0]]
                lines[number] = "\t".join(fields).encode()
            else:
                faults[number] = "a quote that is not closed"
    for number in faults:
        lines[number] = b""
    return b"\n".join(lines), faults


def _seconds(column: pl.Series) -> pl.Series:
    """Times as numbers, null where they are invalid."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():  # perhaps surrounded by spaces
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers
