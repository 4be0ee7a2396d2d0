"""Derived stores: whole or not there, built once by one process, never another's."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from utils.base.errors import UserError
from utils.base.leftovers import temporary_prefix
from utils.features import stores
from utils.features.stores import create_array, map_array, open_store

KEY = "abc"


def build(folder: Path) -> dict:
    create_array(folder / "numbers.npy", (3, 2), np.float32)[:] = 7
    return {"made of": "sevens"}


def forbidden(folder: Path) -> dict:
    raise AssertionError("built again")


def open_numbers(cache: Path, builder=build) -> np.ndarray:
    return map_array(open_store(cache, "numbers", KEY, builder) / "numbers.npy")


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_store_is_built_once_then_mapped(tmp_path):
    assert (open_numbers(tmp_path) == 7).all()
    again = open_numbers(tmp_path, forbidden)
    assert isinstance(again, np.memmap) and not again.flags.writeable
    folder = tmp_path / f"numbers-{KEY}"
    assert '"made of": "sevens"' in (folder / "card.json").read_text()
    open_store(tmp_path, "numbers", "other", build)
    assert left_in(tmp_path) == ["numbers-abc", "numbers-other"]


@pytest.mark.parametrize("name", ["numbers.npy", "card.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_torn_stores_are_built_again(tmp_path, name, harm):
    open_numbers(tmp_path)
    file = tmp_path / f"numbers-{KEY}" / name
    content = file.read_bytes()
    file.unlink()
    if harm == "cut":
        file.write_bytes(content[: len(content) // 2])
    assert (open_numbers(tmp_path) == 7).all()
    assert (open_numbers(tmp_path, forbidden) == 7).all()


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        build(folder)
        raise UserError("no such thing")

    with pytest.raises(UserError, match="no such thing"):
        open_numbers(tmp_path, fail)
    assert left_in(tmp_path) == []
    assert (open_numbers(tmp_path) == 7).all()


def test_a_cache_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(UserError, match=f"^{cache}: can't make stores here .*--cache_dir"):
            open_numbers(cache)


BUILDER = """
import sys, time
from pathlib import Path
from utils.features.stores import open_store

def build(folder):
    with (cache / "log.lock").open("a") as log:
        log.write("built\\n")
    (folder / "half").write_bytes(b"1234")
    print("half", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "whole").write_bytes(b"12345678")
    return {}

cache = Path(sys.argv[1])
folder = open_store(cache, "numbers", "abc", build)
print((folder / "whole").read_bytes().decode())
"""


def start(root, cache, seconds):
    command = [sys.executable, "-c", BUILDER, str(cache), str(seconds)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path, root):
    processes = [start(root, tmp_path, 0.5) for _ in range(3)]
    outputs = [process.communicate(timeout=300)[0].split() for process in processes]
    assert sorted(map(len, outputs)) == [1, 1, 2]
    assert {words[-1] for words in outputs} == {"12345678"}
    assert (tmp_path / "log.lock").read_text() == "built\n"
    assert left_in(tmp_path) == ["numbers-abc"]


def test_a_killed_builder_stops_nobody(tmp_path, root):
    process = start(root, tmp_path, 60)
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert len(left_in(tmp_path)) == 1  # what it was building
    assert (open_numbers(tmp_path) == 7).all()
    assert left_in(tmp_path) == ["numbers-abc"]


def test_what_another_machine_or_process_builds_is_not_touched(tmp_path):
    mine = temporary_prefix(f"numbers-{KEY}")
    dead = mine.replace(str(os.getpid()), str(2**22 + 1))  # beyond the largest process number
    folders = {
        name: tmp_path / f"{prefix}abcdefgh.tmp"
        for name, prefix in {
            "alive": mine.replace(str(os.getpid()), str(os.getppid())),
            "dead": dead,
            "dead, of a store with another key": dead.replace(KEY, "other"),
            "elsewhere": f".numbers-{KEY}.elsewhere-4026531836-1.",
            "in a container": re.sub(r"-\d+-", "-1-", dead),
            "elsewhere, long ago": f".numbers-{KEY}.elsewhere-4026531836-2.",
        }.items()
    }
    for folder in folders.values():
        folder.mkdir()
        (folder / "numbers.npy").touch()
    os.utime(folders["elsewhere, long ago"], (0, 0))
    open_numbers(tmp_path)
    left = [name for name, folder in folders.items() if folder.exists()]
    assert left == ["alive", "elsewhere", "in a container"]


@pytest.mark.parametrize("damaged", [False, True])
def test_the_first_of_two_builders_keeps_its_store(tmp_path, monkeypatch, damaged):
    """As on two machines, whose locks do not reach one another, and on a disk that gives none."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    if damaged:
        open_numbers(tmp_path)
        (tmp_path / f"numbers-{KEY}" / "card.json").unlink()

    def build_slowly(folder):
        mapped.append(open_numbers(tmp_path))  # the other machine is faster
        create_array(folder / "numbers.npy", (3, 2), np.float32)[:] = 8
        return {}

    mapped = []
    late = open_numbers(tmp_path, build_slowly)
    assert (late == 7).all() and (mapped[0] == 7).all()
    assert mapped[0].filename.stat().st_nlink == 1
    assert left_in(tmp_path) == [f"numbers-{KEY}"]


def test_a_long_wait_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stores, "SILENT_SECONDS", 0.2)
    lock = tmp_path / f"numbers-{KEY}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timer = threading.Timer(1.0, fcntl.flock, (held, fcntl.LOCK_UN))
        timer.start()
        assert (open_numbers(tmp_path) == 7).all()
        timer.join()
    stderr = capsys.readouterr().err
    assert stderr.count("warning: ") == 1
    assert f"builds {tmp_path / f'numbers-{KEY}'}; if there is none, delete {lock}" in stderr
