"""Where features wait, on a machine without a GPU and with a stand-in for one."""

import numpy as np
import pytest
import torch

from utils.features.tensors import resident


@pytest.fixture
def stored(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float16).reshape(4, 3, 2))
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def test_on_the_host_nothing_is_copied(stored):
    for policy in ("auto", "cpu", "cuda"):
        table = resident(stored, "cpu", policy)
        assert table.data_ptr() == stored.__array_interface__["data"][0]


@pytest.mark.parametrize(("free", "policy", "moved"), [
    (1000, "auto", True), (10, "auto", False), (10, "cuda", True), (1000, "cpu", False),
])  # fmt: skip
def test_a_gpu_takes_what_fits(stored, monkeypatch, free, policy, moved):
    gpu = torch.device("meta")  # a device that is not the CPU, and is everywhere
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2000))
    assert (resident(stored, gpu, policy).device == gpu) is moved
