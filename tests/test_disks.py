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

from tests.fuzz import models, project
from tests.simulated import ROOT, refuse, run, succeed
from tests.utils.features.feature_sample import LENGTHS, write_features
from utils import prepare_features

CLIP = "features/egovlp/v1.pt"


@pytest.fixture
def data(tmp_path):
    """A data root with an untrained run of each model."""
    project.make(tmp_path)
    models.write_runs(tmp_path)
    return tmp_path


def predict(data):
    """What VSLNet's prediction program writes."""
    assert project.ends_well(models.vslnet, *models.vslnet_arguments(data)) is None
    (file,) = models.vslnet_file(data).parent.glob("*_val_result.json")
    return json.loads(file.read_text())["results"]


def save_with_stamp_of_before(value, file):
    before = file.stat()
    torch.save(value, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.mark.parametrize("packed", [False, True])
def test_features_replaced_by_others_of_equal_size_and_time_are_read(data, packed):
    if packed:
        pack = ["--features", "egovlp", "--data_root", str(data), "--overwrite"]
        prepare_features.main(pack)
    before, clip = predict(data), torch.load(data / CLIP)
    save_with_stamp_of_before(clip.flip(0), data / CLIP)
    if packed:
        file = data / "features/egovlp.h5"
        status = file.stat()
        prepare_features.main(pack)
        assert file.stat().st_size == status.st_size
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert predict(data) != before
    save_with_stamp_of_before(clip, data / CLIP)
    if packed:
        prepare_features.main(pack)
    assert predict(data) == before


def test_features_that_were_zipped_again_are_decompressed(data):
    before = predict(data)
    with zipfile.ZipFile(data / CLIP) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(data / CLIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert predict(data) == before


def test_features_of_fewer_numbers_than_their_shape_are_refused(data):
    torch.save(torch.ones(1, project.WIDTH).expand(project.ROWS, -1), data / CLIP)
    for program, arguments in (
        (models.vslnet, models.vslnet_arguments(data)),
        (prepare_features.main, ["--features", "egovlp", "--data_root", data]),
    ):
        said = project.ends_well(program, *arguments)
        assert f"{data / CLIP}: holds fewer numbers than its shape" in said


def test_a_packed_file_is_read_although_another_program_has_it_locked(data):
    before = predict(data)
    prepare_features.main(["--features", "egovlp", "--data_root", str(data)])
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


def test_machines_that_share_a_disk_without_locks_build_stores_at_once(data):
    expected = predict(data)
    stores = {path.name for path in (data / "cache").iterdir()}
    for path in (data / "cache").glob("*-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (data / "python").mkdir()
    (data / "python" / "sitecustomize.py").write_text(ELSEWHERE)
    arguments = models.vslnet_arguments(data)
    results = {}
    for name in ("node1", "node2"):
        output = data / f"{name}.json"
        results[output] = subprocess.Popen(
            [sys.executable, ROOT / "VSLNet/main.py", *arguments, "--output", output],
            env={**os.environ, "PYTHONPATH": str(data / "python"), "ELSEWHERE": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    for output, process in results.items():
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert json.loads(output.read_text())["results"] == expected
    assert {path.name for path in (data / "cache").iterdir()} == stores


FULL = {
    "create_naq_dataset.py": (
        8, "nlq_aug_naq_train.json",
        "--type", "nlq", "--em_version", "v1", "--data_root", "DATA",
    ),
    "prepare_ego4d_dataset.py": (
        1, "new/train.json", "--output_save_path", "DATA/new",
        "--input_train_split", "DATA/nlq_train.json", "--input_val_split", "DATA/nlq_val.json",
        "--input_test_split", "DATA/nlq_test_unannotated.json",
    ),
    "simulate_dataset.py": (14, "egoclip.csv", "--preset", "tiny", "--data_root", "DATA/new"),
    "simulate_dataset.py, later": (
        40, ".pt: can't be written", "--preset", "tiny", "--data_root", "DATA/new",
    ),
    "prepare_features.py": (50, "egovlp.h5", "--features", "egovlp", "--data_root", "DATA"),
}  # fmt: skip


@pytest.mark.parametrize("program", FULL)
def test_a_full_disk_is_said_in_one_line_that_names_the_file(simulated, tmp_path, program):
    """The system's own limit on the size of a file, which is met as a full disk is."""
    data = tmp_path / "data"
    data.mkdir()
    for path in simulated.iterdir():
        if path.name not in ("cache", "features", "nlq_aug_naq_train.json"):
            (data / path.name).symlink_to(path)
    (data / "features").mkdir()
    (data / "features/egovlp").symlink_to(simulated / "features/egovlp")
    size, named, *arguments = FULL[program]
    words = " ".join(arguments).replace("DATA", str(data))
    limited = f"ulimit -f {size}; exec {sys.executable} utils/{program.split(',')[0]} {words}"
    error = refuse("bash", "-c", limited)
    assert "File too large" in error and named in error and str(data) in error
    assert not list(tmp_path.rglob(".*"))  # nothing half-made


def test_a_cut_continues_once_there_is_room(tmp_path):
    data = write_features(tmp_path)
    (data / "features/egovlp").rename(data / "videos")
    clips = [
        {"clip_uid": f"clip-{uid}", "video_start_sec": 0.0, "video_end_sec": rows / 1.875}
        for uid, rows in LENGTHS.items()
    ]
    videos = [{"video_uid": c["clip_uid"][5:], "clips": [c]} for c in clips]
    (data / "train.json").write_text(json.dumps({"videos": videos}))
    command = (
        f"exec {sys.executable} utils/prepare_features.py --data_root {data} --features egovlp "
        f"--from_video_features {data}/videos --annotations {data}/train.json"
    )
    for uid, rows in LENGTHS.items():
        torch.save(torch.randn(rows, 5000), data / f"videos/{uid}.pt")
    error = refuse("bash", "-c", f"ulimit -f 400; {command}")
    assert "clip-a.pt: can't be written (File too large)" in error
    assert "3 clips of 7 to 40 rows" in succeed("bash", "-c", command)


def training(simulated, folder):
    """A short training on the simulated world, as one line for a shell."""
    words = (
        sys.executable, ROOT / "VSLNet/main.py", "--task", "nlq_official_v1", "--fv", "egovlp",
        "--text_encoder", "minilm", "--dim", "16", "--num_heads", "2", "--epochs", "1",
        "--data_root", simulated, "--eval_gt_json", simulated / "nlq_val.json",
        "--model_dir", folder / "runs", "--cache_dir", folder / "cache",
        "--log_to_tensorboard", "toy", "--tb_log_dir", folder / "boards",
    )  # fmt: skip
    return " ".join(map(str, words))


def test_stores_without_room_are_said_in_one_line(simulated, tmp_path):
    error = refuse("bash", "-c", f"ulimit -f 300; exec {training(simulated, tmp_path)}")
    assert error == (
        f"error: {tmp_path}/cache: can't make stores here (File too large); make room or name "
        "another folder with --cache_dir"
    )
    assert all(path.suffix == ".lock" for path in (tmp_path / "cache").iterdir())


def test_a_training_outlives_a_full_folder_of_tensorboard(simulated, tmp_path):
    """On a disk of one page, which only the superuser can make."""
    board = tmp_path / "boards" / "toy"
    board.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size=4k none {board}"
    if subprocess.run(["unshare", "-m", "bash", "-c", mount], capture_output=True).returncode:
        pytest.skip("can't mount a disk")
    command = f"{mount} && exec {training(simulated, tmp_path)}"
    done = run("unshare", "-m", "bash", "-c", command, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Exception in thread" not in done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if "TensorBoard" in line)
    assert f"warning: {board}/events" in warning and "No space left on device" in warning
    assert list(tmp_path.glob("runs/*/model/vslnet_*.t7"))
