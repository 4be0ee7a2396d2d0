"""Files from servers that drop, stall, change their mind or lie."""

import hashlib
import os
import random

import pytest

from tests.utils.download.file_server import Behaviour, serve
from utils.base.errors import UserError
from utils.base.tables import show_size
from utils.download import fetch as fetching
from utils.download.fetch import fetch
from utils.download.manifest import RemoteFile

CONTENT = random.Random(1).randbytes(300_000)
NO_VERSION = {"ETag": None}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name, value in {"ATTEMPTS": 3, "PAUSE": 0.001, "STALL": 2.0}.items():
        monkeypatch.setattr(fetching, name, value)


def get(address, folder, size=None, sha256=None):
    """Fetch into `folder`, which then holds nothing else; returns the content."""
    fetch(RemoteFile(address, size, sha256), folder / "file")
    assert [path.name for path in folder.iterdir()] == ["file"]
    return (folder / "file").read_bytes()


def fail(address, folder, words, **known):
    with pytest.raises(UserError, match=words):
        get(address, folder, **known)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": None}, NO_VERSION])
@pytest.mark.parametrize("content", [CONTENT, b""])
def test_a_whole_file_is_fetched_once(tmp_path, headers, content):
    file = Behaviour(content, headers=headers)
    with serve({"/file": file}) as address:
        sha256 = hashlib.sha256(content).hexdigest().upper()
        assert get(f"{address}/file", tmp_path, len(content), sha256) == content
        assert get(f"{address}/file", tmp_path) == content  # there already
    assert file.ranges == [None]


def test_dropped_connections_are_resumed(tmp_path):
    # More drops than attempts: as long as bytes come there is progress.
    file = Behaviour(CONTENT, drop_after=[50_000, 0, 40_000, 1, 100, 7], refuse=[503, 429])
    with serve({"/file": file}) as address:
        assert get(f"{address}/file", tmp_path) == CONTENT
    starts = [50_000, 50_000, 90_000, 90_001, 90_101, 90_108]
    assert file.ranges == [None, None, None, *(f"bytes={start}-" for start in starts)]


def test_stalls_end_and_are_resumed(tmp_path, monkeypatch):
    """A weak tag is no condition; the date is."""
    monkeypatch.setattr(fetching, "STALL", 0.5)
    headers = {"ETag": 'W/"x"', "Last-Modified": "1"}
    file = Behaviour(CONTENT, stall_after=[120_000], headers=headers, ignores_if_range=True)
    with serve({"/file": file}) as address:
        assert get(f"{address}/file", tmp_path) == CONTENT
    assert file.ranges == [None, "bytes=120000-"]


def test_the_next_call_goes_on(tmp_path):
    file = Behaviour(CONTENT, drop_after=[70_000, 0, 0, 0])
    with serve({"/file": file}) as address:
        words = r"3 attempts .* \(broke off at 70.0 kB of 300 kB\); .* goes on from 70.0 kB"
        fail(f"{address}/file", tmp_path, words)
        assert get(f"{address}/file", tmp_path) == CONTENT
    assert file.ranges[-1] == "bytes=70000-"


@pytest.mark.parametrize("new", [CONTENT[::-1], CONTENT[:1000], CONTENT + b"more"])
@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_file_that_changed_is_begun_anew(tmp_path, new, ignores_if_range, name):
    file = Behaviour(CONTENT, headers={"ETag": None, name: '"old"'}, drop_after=[70_000, 0, 0, 0])
    file.ignores_if_range = ignores_if_range
    with serve({"/file": file}) as address:
        fail(f"{address}/file", tmp_path, "attempts in a row")
        file.content, file.headers[name] = new, '"new"'
        assert get(f"{address}/file", tmp_path) == new


@pytest.mark.parametrize("new", [CONTENT[::-1], CONTENT])
def test_versions_without_a_name_are_never_mixed(tmp_path, new):
    file = Behaviour(CONTENT, headers=NO_VERSION, drop_after=[70_000, 0, 0, 0])
    with serve({"/file": file}) as address:
        fail(f"{address}/file", tmp_path, "the same command goes on from 0 B")
        file.content = new
        assert get(f"{address}/file", tmp_path) == new
    assert set(file.ranges) == {None}


def test_a_server_that_cannot_resume_begins_anew_which_is_no_progress(tmp_path):
    file = Behaviour(CONTENT, drop_after=[200_000, 100_000], ignores_range=True)
    with serve({"/file": file}) as address:
        assert get(f"{address}/file", tmp_path) == CONTENT
        file.drop_after, file.ranges = [100_000] * 50, []
        (tmp_path / "file").unlink()
        fail(f"{address}/file", tmp_path, "3 attempts in a row")
    assert len(file.ranges) == 4


def test_another_file_than_expected_is_deleted(tmp_path):
    with serve({"/file": Behaviour(CONTENT)}) as address:
        fail(f"{address}/file", tmp_path, "another checksum", sha256="0" * 64)
        fail(f"{address}/file", tmp_path, "has 300000 bytes instead of 300001", size=300_001)
    assert not (tmp_path / "file.part").exists()


def test_a_body_without_end_leaves_room_on_the_disk(tmp_path, monkeypatch):
    file = Behaviour(CONTENT, headers={"Content-Length": None}, endless=True)
    with serve({"/file": file}) as address:
        fail(f"{address}/file", tmp_path, "sends more than 1.0 MB", size=1_000_000)
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        monkeypatch.setattr("utils.download.fetch.RESERVE", free - 50_000_000)
        fail(f"{address}/file", tmp_path, "sends more than .* MB, which")
    assert not (tmp_path / "file.part").exists()


@pytest.mark.parametrize("name", ["Content-Length", "Content-Range", "ETag"])
def test_headers_of_5000_digits_are_survived(tmp_path, name):
    file = Behaviour(CONTENT, headers={name: "9" * 5000}, drop_after=[70_000])
    file.ignores_if_range = True
    with serve({"/file": file}) as address:
        if name == "ETag":
            assert get(f"{address}/file", tmp_path) == CONTENT
        elif name == "Content-Range":
            fail(f"{address}/file", tmp_path, "does not say which part")
        else:  # an invalid length: what comes is all
            assert get(f"{address}/file", tmp_path) == CONTENT[:70_000]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (Behaviour(refuse=[404] * 9), "answers 404"),
        (Behaviour(refuse=[403] * 9), "answers 403"),
        (Behaviour(b"<html>", headers={"Content-Type": "text/html"}), "is a web page"),
        (Behaviour(headers={"Content-Length": str(10**15)}), "takes 1000 TB"),
        (Behaviour(redirect="file:///etc/passwd"), "not allowed"),
        (Behaviour(redirect="http://["), "3 attempts in a row"),
        (Behaviour(redirect="http://127.0.0.1:9999999999999999999999/x"), "3 attempts in a row"),
        (Behaviour(redirect=f"http://{'a' * 300}/x"), "3 attempts in a row"),
        (Behaviour(redirect="/file"), "infinite loop"),
    ],
)
def test_answers_that_are_no_file_are_refused(tmp_path, file, words):
    with serve({"/file": file}) as address:
        fail(f"{address}/file", tmp_path, words)
    assert len(file.ranges) < 50 and not list(tmp_path.iterdir())


def test_a_server_that_is_not_there_is_said(tmp_path):
    with serve({}) as address:
        pass
    fail(f"{address}/file", tmp_path, "refused")


def test_sizes_are_in_words():
    sizes = [0, 999, 1500, 150_000, 2_000_000, 3.2e9, 4e12, 5e15]
    expected = ["0 B", "999 B", "1.5 kB", "150 kB", "2.0 MB", "3.2 GB", "4.0 TB", "5000 TB"]
    assert [show_size(size) for size in sizes] == expected
