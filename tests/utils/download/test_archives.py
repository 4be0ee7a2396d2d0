"""Zip archives in parts, and damaged ones."""

import io
import random
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.download.archives import extract, open_archive

FILES = {f"{name}.pt": random.Random(name).randbytes(70_000) for name in "abcd"}
FILES["empty.pt"] = b""
VOLUMES = ("x.zip", "x.z01", "x.z02", "x.z03")


def make_zip(files, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def unpack(folder, *contents):
    """The files of an archive in parts, by name."""
    parts = [folder / f"part{number}" for number in range(len(contents))]
    for part, content in zip(parts, contents, strict=True):
        part.write_bytes(content)
    return unpack_files(folder, parts)


def unpack_files(folder, parts):
    target = folder / "target"
    target.mkdir(exist_ok=True)
    with open_archive(parts) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pt")]
        list(extract(archive, {name: target / name.split("/")[-1] for name in names}))
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [1, 999, 1_000_000])
def test_pieces_are_joined(tmp_path, compression, size):
    files = FILES if size > 1 else {"a.pt": b"abc"}
    content = make_zip({f"deep/x/{name}": value for name, value in files.items()}, compression)
    pieces = [content[begin : begin + size] for begin in range(0, len(content), size)]
    assert unpack(tmp_path, *pieces) == files


def test_pieces_missing_or_out_of_order_are_noticed(tmp_path):
    content = make_zip(FILES)
    third = len(content) // 3
    a, b, c = content[:third], content[third : 2 * third], content[2 * third :]
    for pieces in ([a, b], [a, c], [a, c, b], [b, a, c]):
        with pytest.raises(UserError, match="missing or out of order"):
            unpack(tmp_path, *pieces)


def test_volumes_are_read_as_one_archive(golden, tmp_path):
    clips = unpack_files(tmp_path, [golden / "volumes" / name for name in VOLUMES])
    assert sorted(clips) == [f"clip-{letter}.pt" for letter in "abcz"]
    assert all(zipfile.ZipFile(io.BytesIO(clip)).testzip() is None for clip in clips.values())
    for lacking in VOLUMES:
        parts = [golden / "volumes" / name for name in VOLUMES if name != lacking]
        with pytest.raises(UserError, match="a part of it is missing"):
            unpack_files(tmp_path, parts)


@settings(max_examples=40)
@given(st.booleans(), st.integers(0, 2**32), st.integers(0, 255))
def test_damage_is_one_clear_line_or_harmless(tmp_path_factory, stored, position, flip):
    """A byte that is another one, or the end cut off."""
    compression = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    content = bytearray(make_zip({"a.pt": FILES["a.pt"][:500], "b.pt": b"b" * 500}, compression))
    position %= len(content)
    if flip:
        content[position] ^= flip
    else:
        del content[position:]
    folder = tmp_path_factory.mktemp("damage")
    try:
        unpack(folder, bytes(content))
    except UserError as error:
        assert str(error)
    assert {path.name for path in folder.iterdir()} == {"part0", "target"}
    assert not list((folder / "target").glob(".*"))


def test_a_cut_zip_of_zips_is_not_taken_for_the_last_of_them(tmp_path):
    inner = {f"{name}.pt": make_zip({f"{name}{name}.pt": b"words"}) for name in "ab"}
    content = make_zip(inner, zipfile.ZIP_STORED)
    with pytest.raises(UserError, match="its end is missing"):
        unpack(tmp_path, content[:-30])
    assert unpack(tmp_path, content) == inner


def test_a_zip_that_declares_too_little_writes_no_more(tmp_path):
    content = bytearray(make_zip({"a.pt": bytes(50_000_000)}))
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")  # its size
    with pytest.raises(UserError, match="damaged"):
        unpack(tmp_path, bytes(content))
    assert not list((tmp_path / "target").iterdir())


def test_a_full_disk_is_seen_first(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.download.fetch.RESERVE", 1 << 60)
    with pytest.raises(UserError, match="are free there"):
        unpack(tmp_path, make_zip(FILES))
    assert not list((tmp_path / "target").iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK", b"PK\x07\x08PK\x03\x04" + bytes(100)])
def test_what_is_no_zip_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="not a zip archive"):
        unpack(tmp_path, content)
