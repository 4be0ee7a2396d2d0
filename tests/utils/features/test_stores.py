"""Derived stores: whole or not there, built once by one process, never another's."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from utils.base.errors import UserError
from utils.features.stores import create_array, map_array, open_store, read_card

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


def test_built_once_then_mapped(tmp_path):
    assert (open_numbers(tmp_path) == 7).all()
    again = open_numbers(tmp_path, forbidden)
    assert isinstance(again, np.memmap) and not again.flags.writeable
    folder = tmp_path / f"numbers-{KEY}"
    assert read_card(folder)["made of"] == "sevens"
    assert left_in(tmp_path) == [folder.name]


def test_another_key_is_another_store(tmp_path):
    open_numbers(tmp_path)
    open_store(tmp_path, "numbers", "other", build)
    assert left_in(tmp_path) == ["numbers-abc", "numbers-other"]


@pytest.mark.parametrize("harm", ["cut", "gone", "no card", "garbage card", "list card", "foreign"])
def test_torn_and_foreign_stores_are_built_again(tmp_path, harm):
    open_numbers(tmp_path)
    folder = tmp_path / f"numbers-{KEY}"
    array, card = folder / "numbers.npy", folder / "card.json"
    if harm == "cut":
        array.write_bytes(array.read_bytes()[:-1])
    elif harm == "gone":
        array.unlink()
    elif harm == "no card":
        card.unlink()
    elif harm == "garbage card":
        card.write_text("[1, 2")
    elif harm == "list card":
        card.write_text("[1, 2]")
    else:
        other = open_store(tmp_path, "numbers", "other", build)
        create_array(other / "numbers.npy", (3, 2), np.float32)[:] = 8
        card.unlink()
        array.unlink()
        folder.rmdir()
        other.rename(folder)
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


def test_a_cache_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't make stores here"):
        open_numbers(tmp_path / "file" / "cache")


def test_a_full_disk_is_said_and_not_died_of(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="can't make stores here"):
        open_numbers(tmp_path)
    assert left_in(tmp_path) == []


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
    said = [process.communicate(timeout=300)[0].split() for process in processes]
    assert sorted(map(len, said)) == [1, 1, 2]
    assert {words[-1] for words in said} == {"12345678"}
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


def test_what_another_machine_builds_or_left_is_not_touched(tmp_path):
    elsewhere = tmp_path / f".numbers-{KEY}.elsewhere-1.xyz"
    dead = tmp_path / f".numbers-{KEY}.{socket.gethostname()}-{2**22 + 1}.xyz"
    alive = tmp_path / f".numbers-{KEY}.{socket.gethostname()}-{os.getppid()}.xyz"
    for folder in (elsewhere, dead, alive):
        folder.mkdir()
    open_numbers(tmp_path)
    assert left_in(tmp_path) == sorted([alive.name, elsewhere.name, f"numbers-{KEY}"])


def test_the_first_of_two_builders_keeps_its_store(tmp_path, monkeypatch):
    """As on two machines, whose locks do not reach one another."""
    monkeypatch.setattr(FileLock, "acquire", refuse_lock)

    def build_slowly(folder):
        mapped.append(open_numbers(tmp_path))  # another machine is faster
        create_array(folder / "numbers.npy", (3, 2), np.float32)[:] = 8
        return {}

    mapped = []
    late = open_numbers(tmp_path, build_slowly)
    assert (late == 7).all() and (mapped[0] == 7).all()
    assert left_in(tmp_path) == [f"numbers-{KEY}"]


def refuse_lock(*_, **__):
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_place_without_room_is_named(tmp_path):
    def build(folder):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "numbers.npy"))

    with pytest.raises(UserError, match=r"can't make stores here \(No space left.*--cache_dir"):
        open_store(tmp_path, "numbers", KEY, build)
    assert left_in(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: can't make stores here .*--cache_dir"):
        open_store(tmp_path / "file", "numbers", KEY, build)
