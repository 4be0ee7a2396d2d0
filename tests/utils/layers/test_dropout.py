"""Cheap dropout: the statistics of ordinary dropout, from fewer draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.layers.dropout import Dropout, keep_mask


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_units_are_dropped_as_often_and_as_independently_as_told(p):
    torch.manual_seed(0)
    count = 1_000_003
    mask = keep_mask(torch.Size([count]), p, torch.float32)
    dropped = mask == 0
    share = round(256 * p) / 256  # of 8 bits
    assert abs(dropped.float().mean() - share) < 5 * (p * (1 - p) / count) ** 0.5
    assert abs(share - p) <= 1 / 512
    assert abs(mask.double().mean() - 1) < 5 * (p / (1 - p) / count) ** 0.5
    for lag in (1, 2, 3, 4, 7, 8):  # neighbours share a draw, but no bits
        both = (dropped[:-lag] & dropped[lag:]).float().mean()
        assert abs(both - share**2) < 5 * p / count**0.5


def test_a_seed_decides_mask_and_gradient():
    dropout = Dropout(0.3)
    x = torch.ones(50, 7, requires_grad=True)
    torch.manual_seed(4)
    first = dropout(x)
    torch.manual_seed(4)
    torch.testing.assert_close(dropout(x), first)
    first.sum().backward()
    torch.testing.assert_close(x.grad, first.detach())


@given(st.integers(1, 255), st.integers(0, 40))
def test_every_level_drops_from_any_size(level, size):
    mask = keep_mask(torch.Size([size, 3]), level / 256, torch.float32)
    assert mask.shape == (size, 3)
    assert ((mask == 0) | (mask == 256 / (256 - level))).all()
