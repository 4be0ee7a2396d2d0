"""Where features wait, on a machine without a GPU and with a stand-in for one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.features.tensors import STEP, in_steps, pad_to, resident, take


@pytest.fixture
def stored(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float16).reshape(4, 3, 2))
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def test_on_the_host_nothing_is_copied(stored):
    for policy in ("auto", "cpu", "cuda"):
        table = resident(stored, "cpu", policy)
        assert table.data_ptr() == stored.__array_interface__["data"][0]


def test_a_batch_is_the_same_wherever_the_table_lies(stored):
    rows = np.array([3, 0, 3])
    taken = take(resident(stored), rows, "cpu", 2)
    assert torch.equal(taken, torch.from_numpy(stored[rows, :2]))
    assert torch.equal(take(resident(stored), rows, "cpu"), torch.from_numpy(stored[rows]))


@pytest.mark.parametrize(("free", "policy", "moved"), [
    (1000, "auto", True), (10, "auto", False), (10, "cuda", True), (1000, "cpu", False),
])  # fmt: skip
def test_a_gpu_takes_what_fits(stored, monkeypatch, free, policy, moved):
    gpu = torch.device("meta")  # a device that is not the CPU, and is everywhere
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2000))
    assert (resident(stored, gpu, policy).device == gpu) is moved


@given(st.integers(1, 200), st.integers(1, 200))
def test_lengths_grow_in_steps_up_to_the_most(length, most):
    length = min(length, most)
    padded = in_steps(length, most)
    assert length <= padded <= most
    assert padded == most or (padded % STEP == 0 and padded - length < STEP)


def test_zeros_follow_what_is_there():
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = torch.rand(shape)
        padded = pad_to(x, 7)
        assert padded.shape == (2, 7, *shape[2:])
        assert torch.equal(padded[:, :3], x) and not padded[:, 3:].any()
        assert torch.equal(pad_to(x, 3), x)
