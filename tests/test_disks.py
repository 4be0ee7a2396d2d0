"""Disks that are full, shared, without locks, or of replaced files: as a user meets them."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from tests.bad_inputs import world
from tests.simulated import ROOT

CLIP = "features/egovlp/v1.pt"
PACK = "utils/prepare_features.py"


def predict(data):
    """The predictions that VSLNet's program writes."""
    assert world.run("VSLNet/main.py", data) is None
    return json.loads((data / "challenge.json").read_text())["results"]


def save_with_stamp_of_before(value, file):
    before = file.stat()
    torch.save(value, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.mark.parametrize("packed", [False, True])
def test_features_replaced_by_others_of_equal_size_and_time_are_read(data, packed):
    def pack():
        if packed:
            assert world.run(PACK, data, "--overwrite") is None

    pack()
    before, clip = predict(data), torch.load(data / CLIP)
    save_with_stamp_of_before(clip.flip(0), data / CLIP)
    if packed:
        file = data / "features/egovlp.h5"
        status = file.stat()
        pack()
        assert file.stat().st_size == status.st_size
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert predict(data) != before
    save_with_stamp_of_before(clip, data / CLIP)
    pack()
    assert predict(data) == before


def test_features_that_were_zipped_again_are_decompressed(data):
    before = predict(data)
    with zipfile.ZipFile(data / CLIP) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(data / CLIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert predict(data) == before


def test_a_packed_file_is_read_although_another_program_has_it_locked(data):
    before = predict(data)
    assert world.run(PACK, data) is None
    with (data / "features/egovlp.h5").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert predict(data) == before


# Makes a Python process believe that it runs on another machine, and that the disk gives no locks.
ELSEWHERE = """
import errno, fcntl, os, socket
def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = fcntl.lockf = refuse
socket.gethostname = lambda: os.environ["ELSEWHERE"]
"""


@pytest.mark.slow
def test_machines_that_share_a_disk_without_locks_build_stores_at_once(data):
    expected = predict(data)
    stores = {path.name for path in (data / "cache").iterdir()}
    shutil.rmtree(data / "cache")
    (data / "python").mkdir()
    (data / "python" / "sitecustomize.py").write_text(ELSEWHERE)
    words = world.COMMANDS["VSLNet/main.py"].replace("DATA", str(data)).split()
    jobs = {}
    for name in ("node1", "node2"):
        output = data / f"{name}.json"
        jobs[output] = subprocess.Popen(
            [sys.executable, ROOT / "VSLNet/main.py", *words, "--output", output],
            env={**os.environ, "PYTHONPATH": str(data / "python"), "ELSEWHERE": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    for output, job in jobs.items():
        printed, _ = job.communicate(timeout=300)
        assert job.returncode == 0, printed
        assert json.loads(output.read_text())["results"] == expected
    assert {path.name for path in (data / "cache").iterdir()} == stores


@pytest.mark.parametrize(
    ("program", "size", "named"),
    [
        ("utils/create_naq_dataset.py", 1000, "nlq_aug_naq_train.json"),
        ("utils/prepare_ego4d_dataset.py", 100, "train.json"),
        ("utils/simulate_dataset.py tiny", 14_336, "egoclip.csv"),
        ("utils/simulate_dataset.py tiny", 20_000, ".pt: can't be written"),
        (PACK, 4096, "egovlp.h5"),
        ("utils/convert_tacos.py", 100, "tacos_train.json"),
    ],
)
def test_a_full_disk_is_one_line_that_names_the_file(data, program, size, named):
    line = world.run(program, data, file_size=size)
    assert "File too large" in line and named in line and str(data) in line
    assert not list(data.rglob(".*.tmp"))  # nothing half-made


def test_stores_without_room_are_one_line(data):
    line = world.run("VSLNet/main.py", data, file_size=300)
    assert line == (
        f"{data}/cache: can't make stores here (File too large); make room or name "
        "another folder with --cache_dir"
    )
    assert all(path.suffix == ".lock" for path in (data / "cache").iterdir())


def test_a_cut_begins_anew_once_there_is_room(data):
    annotations = json.loads((data / "nlq_train.json").read_text())
    annotations["videos"][0]["clips"][0]["video_end_sec"] = 20.0  # t1 has 19 rows, t2 60
    (data / "nlq_train.json").write_text(json.dumps(annotations))
    (data / "videos").mkdir()
    for number in range(2):
        torch.save(torch.randn(100, 500), data / f"videos/train{number}.pt")
    cut = (PACK, data, "--features", "whole", "--from_video_features", f"{data}/videos",
           "--annotations", f"{data}/nlq_train.json")  # fmt: skip
    line = world.run(*cut, file_size=80_000)
    assert "t2.pt: can't be written (File too large)" in line
    assert world.run(*cut) is None
    assert {path.name for path in (data / "features/whole").glob("*.pt")} == {"t1.pt", "t2.pt"}
