"""One writer a run folder, wherever the disk lies and however the last one ended."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

import pytest

from tests.killing import started
from tests.utils.training import toy_training
from utils.base.errors import UserError
from utils.base.leftovers import machine_name
from utils.base.tensor_files import load_newest
from utils.training import writers
from utils.training.writers import SoleWriter

NAME = f"{os.getpid()} on {machine_name()}"


def slow_run(folder):
    """A training that takes its time."""
    words = (sys.executable, toy_training.__file__, "--folder", folder, "--slow", "0.5")
    return started(words, folder / "state.pt")


def test_a_second_training_of_a_folder_is_refused_until_the_first_is_dead(tmp_path):
    with slow_run(tmp_path) as job:
        name = f"process {job.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=f"{name} is writing here"):
            toy_training.run(tmp_path)
        assert job.poll() is None
        job.send_signal(signal.SIGKILL)
        job.wait()
    began = time.monotonic()
    toy_training.run(tmp_path)
    assert time.monotonic() - began < writers.WATCH_SECONDS


def test_a_training_whose_folder_was_taken_over_writes_nothing_more(tmp_path):
    with slow_run(tmp_path) as job:
        (tmp_path / ".writer").write_text("17 on elsewhere-1")
        step = load_newest(tmp_path / "state.pt")[0]["step"]
        said = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 2
    assert "process 17 on elsewhere writes here now" in said
    assert load_newest(tmp_path / "state.pt")[0]["step"] <= step + 1
    assert (tmp_path / ".writer").read_text() == "17 on elsewhere-1"


@contextlib.contextmanager
def touching(file):
    """What a writer on another machine does."""
    ended = threading.Event()

    def touch():
        while not ended.wait(0.1):
            os.utime(file)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_writer_on_another_machine_is_seen_while_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "WATCH_SECONDS", 1.0)
    file = tmp_path / ".writer"
    file.write_text("17 on elsewhere-1")
    with (
        touching(file),
        pytest.raises(UserError, match="process 17 on elsewhere is writing"),
        SoleWriter(tmp_path),
    ):
        pass
    with SoleWriter(tmp_path):  # it touches the file no more: it is dead
        assert file.read_text() == NAME
    assert file.read_text() == ""
