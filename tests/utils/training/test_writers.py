"""One writer a run folder, wherever the disk lies and however the last one ended."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from tests.simulated import refuse, succeed
from tests.utils import toy_training
from utils.base.errors import UserError
from utils.training.writers import STALE_SECONDS, SoleWriter

TOY = (sys.executable, toy_training.__file__)


def start_slow_run(folder):
    words = [*TOY, "--folder", folder, "--slow", "2"]
    job = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
    while not (folder / "state.pt").exists():
        assert job.poll() is None
        time.sleep(0.05)
    return job


def test_a_second_training_of_a_folder_is_refused_until_the_first_is_dead(tmp_path):
    with start_slow_run(tmp_path) as job:
        said = refuse(*TOY, "--folder", tmp_path)
        assert f"process {job.pid} on {socket.gethostname()} is writing here" in said
        assert job.poll() is None
        job.send_signal(signal.SIGKILL)
    succeed(*TOY, "--folder", tmp_path)


def test_a_writer_that_ended_leaves_no_name(tmp_path):
    SoleWriter(tmp_path).release()
    assert not (tmp_path / ".writer").exists()
    SoleWriter(tmp_path).release()


@pytest.mark.parametrize("locks", ["of one machine", "none"])
def test_a_writer_on_another_machine_is_seen_on_a_shared_disk(tmp_path, monkeypatch, locks):
    if locks == "none":

        def refuse_lock(*_, **__):
            raise NotImplementedError("FileSystem does not appear to support flock")

        monkeypatch.setattr(FileLock, "acquire", refuse_lock)
    name = tmp_path / ".writer"
    name.write_text("elsewhere 17")
    with pytest.raises(UserError, match="process 17 on elsewhere is writing here"):
        SoleWriter(tmp_path)
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(name, (long_ago, long_ago))
    writer = SoleWriter(tmp_path)
    assert name.read_text() == f"{socket.gethostname()} {os.getpid()}"
    writer.release()


def test_without_locks_a_fresh_writer_on_this_machine_is_seen(tmp_path, monkeypatch):
    def refuse_lock(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse_lock)
    writer = SoleWriter(tmp_path)
    with pytest.raises(UserError, match="is writing here"):
        SoleWriter(tmp_path)
    writer.release()
    SoleWriter(tmp_path).release()
