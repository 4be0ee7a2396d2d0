"""Few different shapes for compiled models."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.features.tensors import STEP, in_steps, pad_to


@given(st.integers(1, 200), st.integers(1, 200))
def test_lengths_grow_in_steps_up_to_the_most(length, most):
    length = min(length, most)
    found = in_steps(length, most)
    assert length <= found <= most
    assert found == most or (found % STEP == 0 and found - length < STEP)


def test_zeros_follow_what_is_there():
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = torch.rand(shape)
        padded = pad_to(x, 7)
        assert padded.shape == (2, 7, *shape[2:])
        assert torch.equal(padded[:, :3], x) and not padded[:, 3:].any()
        assert torch.equal(pad_to(x, 3), x)
