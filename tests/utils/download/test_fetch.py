"""Files from servers that drop, stall, lie about lengths or change their mind."""

import hashlib
import random

import pytest

from tests.utils.file_server import Behaviour, serve
from utils.base.errors import UserError
from utils.base.tables import show_size
from utils.download.fetch import Patience, RemoteFile, check_url, fetch

CONTENT = random.Random(1).randbytes(300_000)
QUICK = Patience(attempts=3, pause=0.001, stall=2.0)


def get(behaviour, target, size=None, sha256=None, patience=QUICK):
    with serve({"/file": behaviour}) as address:
        # The port is another one each time, as is the address of a resumed download then.
        fetch(RemoteFile(f"{address}/file", size, sha256), target, patience)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("no_length", [False, True])
def test_whole(tmp_path, no_length):
    behaviour = Behaviour(CONTENT, no_length=no_length)
    target = tmp_path / "deep" / "file"
    get(behaviour, target, len(CONTENT), hashlib.sha256(CONTENT).hexdigest().upper())
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == ["file"] and behaviour.ranges == [None]


def test_empty(tmp_path):
    get(Behaviour(b""), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b""


def test_dropped_connections_are_resumed(tmp_path):
    # More drops than attempts: as long as bytes come there is progress.
    behaviour = Behaviour(CONTENT, drop_after=[50_000, 0, 40_000, 1, 100, 7])
    get(behaviour, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    starts = [0, 50_000, 50_000, 90_000, 90_001, 90_101, 90_108]
    assert behaviour.ranges == [None, *(f"bytes={start}-" for start in starts[1:])]


def test_stalls_end_and_are_resumed(tmp_path):
    behaviour = Behaviour(CONTENT, stall_after=[120_000])
    get(behaviour, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert behaviour.ranges == [None, "bytes=120000-"]


@pytest.mark.parametrize("how", ["ignores_range", "wrong_range"])
def test_servers_that_cannot_resume_begin_anew(tmp_path, how):
    behaviour = Behaviour(CONTENT, drop_after=[200_000], **{how: True})
    get(behaviour, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_beginning_anew_is_no_progress(tmp_path):
    behaviour = Behaviour(CONTENT, drop_after=[100_000] * 50, ignores_range=True)
    with pytest.raises(UserError, match="3 attempts in a row brought nothing more"):
        get(behaviour, tmp_path / "file")
    assert len(behaviour.ranges) == 4


def test_the_next_call_goes_on(tmp_path):
    behaviour = Behaviour(CONTENT, drop_after=[70_000, 0, 0, 0])
    with serve({"/file": behaviour}) as address:
        remote = RemoteFile(f"{address}/file")
        with pytest.raises(UserError, match=r"broke off at 70.0 kB of 300 kB.*goes on from there"):
            fetch(remote, tmp_path / "file", QUICK)
        assert left(tmp_path) == ["file.part", "file.part.json"]
        fetch(remote, tmp_path / "file", QUICK)
        assert behaviour.ranges[-1] == "bytes=70000-"
        assert (tmp_path / "file").read_bytes() == CONTENT
        requests = len(behaviour.ranges)
        fetch(remote, tmp_path / "file", QUICK)  # there already
        assert len(behaviour.ranges) == requests
    assert left(tmp_path) == ["file"]


@pytest.mark.parametrize("new", [CONTENT[::-1], CONTENT[:1000], CONTENT + b"more"])
def test_a_file_that_changed_is_begun_anew(tmp_path, new):
    behaviour = Behaviour(CONTENT, drop_after=[70_000, 0, 0, 0])
    with serve({"/file": behaviour}) as address:
        remote = RemoteFile(f"{address}/file")
        with pytest.raises(UserError):
            fetch(remote, tmp_path / "file", QUICK)
        behaviour.content, behaviour.etag = new, '"two"'
        fetch(remote, tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == new


def test_remains_of_another_address_are_not_used(tmp_path):
    with pytest.raises(UserError):
        get(Behaviour(CONTENT[::-1], drop_after=[70_000, 0, 0, 0]), tmp_path / "file")
    get(Behaviour(CONTENT), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_stopped_after_the_last_byte(tmp_path):
    with serve({"/file": Behaviour(CONTENT)}) as address:
        remote = RemoteFile(f"{address}/file", len(CONTENT))
        (tmp_path / "file.part").write_bytes(CONTENT)
        notes = f'{{"url": "{address}/file", "same": "\\"one\\"", "total": {len(CONTENT)}}}'
        (tmp_path / "file.part.json").write_text(notes)
        fetch(remote, tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_too_long_a_length_is_a_broken_transfer(tmp_path):
    behaviour = Behaviour(CONTENT, length=len(CONTENT) + 10, ignores_range=True)
    with pytest.raises(UserError, match="broke off"):
        get(behaviour, tmp_path / "file")


def test_another_length_than_known_is_another_file(tmp_path):
    with pytest.raises(UserError, match="299000 bytes are offered, 300000 are expected"):
        get(Behaviour(CONTENT, length=299_000), tmp_path / "file", size=300_000)
    assert left(tmp_path) == []
    with pytest.raises(UserError, match="gives more than the 1000 bytes"):
        get(Behaviour(CONTENT, no_length=True), tmp_path / "file", size=1000)
    with pytest.raises(UserError, match="has 300000 bytes instead of 300001"):
        get(Behaviour(CONTENT, no_length=True), tmp_path / "file", size=300_001)
    assert left(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="checksum"):
        get(Behaviour(CONTENT), tmp_path / "file", sha256="0" * 64)
    assert left(tmp_path) == []


def test_a_file_that_is_there_and_wrong_is_fetched_again(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"torn")
    get(Behaviour(CONTENT), tmp_path / "file", size=len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert "has 4 bytes instead of 300000" in capsys.readouterr().err


def test_errors_that_pass_are_waited_for(tmp_path):
    behaviour = Behaviour(CONTENT, refuse=[503, 429], headers_of_refusal={"Retry-After": "0"})
    get(behaviour, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "words"), [(404, "no such file"), (403, "public"), (410, "Gone")])
def test_errors_that_stay_end_at_once(tmp_path, code, words):
    behaviour = Behaviour(CONTENT, refuse=[code] * 9)
    with pytest.raises(UserError, match=words):
        get(behaviour, tmp_path / "file")
    assert len(behaviour.ranges) == 1


def test_web_pages_are_refused(tmp_path):
    with pytest.raises(UserError, match="a web page"):
        get(Behaviour(b"<html>", kind="text/html; charset=utf-8"), tmp_path / "file", size=1000)
    assert left(tmp_path) == []


def test_redirections(tmp_path):
    files = {"/file": Behaviour(CONTENT, drop_after=[5]), "/moved": Behaviour(redirect="/file")}
    with serve(files) as address:
        fetch(RemoteFile(f"{address}/moved"), tmp_path / "file", QUICK)
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert files["/file"].ranges == [None, "bytes=5-"]
        files["/moved"].redirect = "file:///etc/passwd"
        with pytest.raises(UserError):
            fetch(RemoteFile(f"{address}/moved"), tmp_path / "other", QUICK)


def test_no_server(tmp_path):
    with serve({}) as address:
        pass
    with pytest.raises(UserError, match="refused"):
        fetch(RemoteFile(f"{address}/file"), tmp_path / "file", QUICK)


def test_a_full_disk_is_seen_first(tmp_path):
    with pytest.raises(UserError, match="takes 1000 TB"):
        get(Behaviour(CONTENT, length=10**15), tmp_path / "file")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a/b", "http://", "/local", "http://a b/c", "http://a/\n",
     "http://a:port/x", "http://a/ü", "http://[a/b"],
)  # fmt: skip
def test_addresses(url):
    with pytest.raises(UserError, match="not an address"):
        check_url(url)


def test_sizes_in_words():
    sizes = [0, 999, 1500, 150_000, 2_000_000, 3.2e9, 4e12, 5e15]
    expected = ["0 B", "999 B", "1.5 kB", "150 kB", "2.0 MB", "3.2 GB", "4.0 TB", "5000 TB"]
    assert [show_size(size) for size in sizes] == expected
