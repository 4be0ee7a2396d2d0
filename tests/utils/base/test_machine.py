"""Pieces of inference that are done at once come back in order, and faults come through."""

import threading
import time

import pytest
import torch

from utils.base.machine import each_on_a_core

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order(two_threads):
    def slow_first(item: int) -> int:
        time.sleep(0.05 / (item + 1))
        return item * item

    assert list(each_on_a_core(slow_first, range(20), CPU)) == [n * n for n in range(20)]


def test_each_has_a_core_of_its_own(two_threads):
    both = threading.Barrier(2, timeout=20)

    def threads(_: int) -> int:
        both.wait()  # comes only if two are at work
        return torch.get_num_threads()

    assert list(each_on_a_core(threads, range(4), CPU)) == [1] * 4
    assert torch.get_num_threads() == 2
    found = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [2]


def test_only_a_few_are_done_ahead(two_threads):
    begun = []
    results = each_on_a_core(begun.append, range(100), CPU)
    next(results)
    results.close()
    assert len(begun) <= 6
    assert torch.get_num_threads() == 2


def test_faults_come_through(two_threads):
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(each_on_a_core(work, range(50), CPU))
    assert torch.get_num_threads() == 2


def test_one_thread_needs_no_other():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    main = threading.get_ident()
    assert set(each_on_a_core(lambda _: threading.get_ident(), range(3), CPU)) == {main}
    torch.set_num_threads(before)
