"""Where features wait, on a machine without a GPU and with a stand-in for one."""

import numpy as np
import pytest
import torch

from utils.features.tensors import resident, take


@pytest.fixture
def stored(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float16).reshape(4, 3, 2))
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def test_on_the_host_nothing_is_copied(stored):
    for place in ("auto", "cpu", "cuda"):
        table = resident(stored, "cpu", place)
        assert table.data_ptr() == stored.__array_interface__["data"][0]


def test_a_batch_is_the_same_wherever_the_table_lies(stored):
    rows = np.array([3, 0, 3])
    taken = take(resident(stored), rows, "cpu", 2)
    assert torch.equal(taken, torch.from_numpy(stored[rows, :2]))
    assert torch.equal(take(resident(stored), rows, "cpu"), torch.from_numpy(stored[rows]))


@pytest.mark.parametrize(("free", "place", "moved"), [
    (1000, "auto", True), (10, "auto", False), (10, "cuda", True), (1000, "cpu", False),
])  # fmt: skip
def test_a_gpu_takes_what_fits(stored, monkeypatch, free, place, moved):
    gpu = torch.device("meta")  # a device that is not the CPU, and is everywhere
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2000))
    assert (resident(stored, gpu, place).device == gpu) is moved
