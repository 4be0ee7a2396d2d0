"""Devices by name; work done on several cores comes back in order."""

import threading

import pytest
import torch

from utils.base.errors import UserError
from utils.base.machine import each_on_a_core, find_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "meta"])
def test_devices_that_are_here_and_one_that_is_not(name):
    assert find_device("cpu") == CPU
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=f"--device {name} is not available here .*; give cpu"):
        find_device(name)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def test_each_has_a_core_of_its_own_and_results_come_in_order(threads):
    together = threading.Barrier(threads, timeout=20)

    def work(item: int) -> tuple[int, int]:
        together.wait()  # passes only if so many are at work
        return item, torch.get_num_threads()

    assert list(each_on_a_core(work, range(8), CPU)) == [(item, 1) for item in range(8)]


def test_only_a_few_are_done_ahead_and_faults_come_through(threads):
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 50:
            raise ValueError("fifty")

    results = each_on_a_core(work, range(100), CPU)
    next(results)
    assert len(begun) <= 6
    with pytest.raises(ValueError, match="fifty"):
        list(results)
    assert len(begun) < 60
