"""Archives in parts, and archives that want to do harm."""

import gzip
import io
import itertools
import random
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.download.archives import Limits, extract

FILES = {f"{name}.pt": random.Random(name).randbytes(70_000) for name in "abcd"}
FILES["empty.pt"] = b""


def is_wanted(name):
    return name.endswith(".pt")


def make_zip(files, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def make_tar(files, mode="w", form=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


MAKERS = {
    "zip": make_zip,
    "stored zip": lambda files: make_zip(files, zipfile.ZIP_STORED),
    "tar": make_tar,
    "gnu tar": lambda files: make_tar(files, form=tarfile.GNU_FORMAT),
    "tar.gz": lambda files: make_tar(files, "w:gz"),
}


def unpack(folder, *contents, limits=None):
    parts = []
    for number, content in enumerate(contents):
        parts.append(folder / f"part{number}")
        parts[-1].write_bytes(content)
    target = folder / "target"
    target.mkdir(exist_ok=True)
    names = extract(parts, target, is_wanted, limits or Limits())
    found = {path.name: path.read_bytes() for path in target.iterdir()}
    assert sorted(names) == sorted(found)
    return found


@pytest.mark.parametrize("kind", MAKERS)
def test_wanted_files_come_out_flat(tmp_path, kind):
    others = {"x/README.md": b"words", "x/._a.pt": b"of macOS", "run.sh": b"echo"}
    content = MAKERS[kind]({f"deep/x/{name}": value for name, value in FILES.items()} | others)
    assert unpack(tmp_path, content) == FILES


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [1, 999, 100_000])
def test_parts_are_joined(tmp_path, kind, size):
    files = FILES if size > 1 else {"a.pt": b"abc"}
    content = MAKERS[kind](files)
    # A first part of one byte tells nothing: archives are known by how they begin.
    cuts = [0, *range(max(size, 600), len(content), max(size, 600)), len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(cuts)]
    assert unpack(tmp_path, *pieces) == files


def test_several_archives(tmp_path):
    one, two = ({name: FILES[name]} for name in ("a.pt", "b.pt"))
    first, second = make_zip(one), make_tar(two, "w:gz")
    assert unpack(tmp_path, first[:500], first[500:], second[:600], second[600:]) == one | two
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=r"two files named a\.pt"):
        unpack(tmp_path / "again", first, make_tar(one))


@pytest.mark.parametrize("kind", MAKERS)
def test_parts_missing_or_out_of_order(tmp_path, kind):
    content = MAKERS[kind](FILES)
    third = len(content) // 3
    a, b, c = content[:third], content[third : 2 * third], content[2 * third :]
    for number, pieces in enumerate(([a, b], [a, c], [a, c, b])):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(UserError, match="missing or out of order"):
            unpack(folder, *pieces)
    with pytest.raises(UserError, match="not a zip"):
        unpack(tmp_path, b, a, c)


@settings(deadline=None)
@given(st.sampled_from(list(MAKERS)), st.integers(0, 2**32), st.integers(1, 255), st.booleans())
def test_damage_is_one_clear_line_or_harmless(tmp_path_factory, kind, place, flip, cut):
    content = bytearray(MAKERS[kind]({"a.pt": FILES["a.pt"][:500], "b.pt": b"b" * 500}))
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= flip
    folder = tmp_path_factory.mktemp("damage")
    try:
        unpack(folder, bytes(content))
    except UserError as error:
        assert str(error)
    assert {path.name for path in folder.iterdir()} == {"part0", "target"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["../a.pt", "x/../../a.pt", "/tmp/a.pt", "x\\..\\a.pt", "C:/a.pt"])
def test_paths_that_lead_out(tmp_path, kind, name):
    with pytest.raises(UserError, match="leads out"):
        unpack(tmp_path, MAKERS[kind]({name: b"evil"}))
    assert not list((tmp_path / "target").iterdir())


def test_links_in_a_zip(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("a.pt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        unpack(tmp_path, stream.getvalue())


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_a_tar(tmp_path, kind):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("a.pt")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(UserError, match="is a link"):
        unpack(tmp_path, stream.getvalue())
    assert not list((tmp_path / "target").iterdir())


def test_a_cut_zip_of_zips_is_not_taken_for_the_last_of_them(tmp_path):
    inner = {f"{name}.pt": make_zip({f"{name}{name}.pt": b"words"}) for name in "ab"}
    content = make_zip(inner, zipfile.ZIP_STORED)
    assert unpack(tmp_path, content) == inner
    with pytest.raises(UserError, match="cut off"):
        unpack(tmp_path, content[:-30])


def test_bombs(tmp_path):
    zeros = bytes(50_000_000)
    for number, kind in enumerate(("zip", "tar.gz")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(UserError, match=r"say they hold more|impossible size"):
            unpack(folder, MAKERS[kind]({"a.pt": zeros}))
        assert not list((folder / "target").iterdir())
        # The same content, left out: a tar has to be read through to get past it.
        (folder / "target" / "x").mkdir()
        with pytest.raises(UserError, match=r"say they hold more|impossible size"):
            unpack(folder, MAKERS[kind]({"a.txt": zeros, "b.pt": b"b"}))


def test_limits(tmp_path):
    content = make_tar(FILES)
    with pytest.raises(UserError, match="more than 200 kB"):
        unpack(tmp_path, content, limits=Limits(size=200_000))
    (tmp_path / "two").mkdir()
    with pytest.raises(UserError, match="more than 3 files"):
        unpack(tmp_path / "two", content, limits=Limits(files=3))


def test_a_zip_that_declares_too_little(tmp_path):
    content = bytearray(make_zip({"a.pt": FILES["a.pt"]}))
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")  # its size
    with pytest.raises(UserError, match=r"damaged|declared"):
        unpack(tmp_path, bytes(content))
    written = [path.stat().st_size for path in (tmp_path / "target").iterdir()]
    assert sum(written) <= 1000


def test_names_that_are_none(tmp_path):
    content = make_zip({"x": b"words", "a.pt": b"words"})
    assert unpack(tmp_path, content) == {"a.pt": b"words"}
    for number, name in enumerate((b"\0", b"/")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(UserError):
            unpack(folder, content.replace(b"x", name))


def test_a_giant_header_in_a_tar_is_not_read(tmp_path):
    entry = tarfile.TarInfo("header")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 40
    content = gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1000))
    with pytest.raises(UserError, match="impossible size"):
        unpack(tmp_path, content)


def test_a_full_disk_is_seen_first(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.download.fetch.RESERVE", 1 << 60)
    with pytest.raises(UserError, match="are free there"):
        unpack(tmp_path, make_zip(FILES))
    assert not list((tmp_path / "target").iterdir())


def test_foreign_kinds(tmp_path):
    with pytest.raises(UserError, match="in volumes"):
        unpack(tmp_path, b"PK\x07\x08PK\x03\x04" + bytes(100))
    with pytest.raises(UserError, match="not a zip"):
        unpack(tmp_path, b"<html>")
    with pytest.raises(UserError, match="unusual"):
        unpack(tmp_path, make_zip(FILES, zipfile.ZIP_LZMA))
