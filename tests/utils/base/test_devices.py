"""The device that a program asks for."""

import pytest
import torch

from utils.base.errors import UserError
from utils.base.machine import find_device


def test_a_device_that_is_here():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "tpu9", "", "cuda:99", "meta"])
def test_a_device_that_is_not_here(name):
    with pytest.raises(UserError, match=f"--device {name} is not available here .*; give cpu"):
        find_device(name)
