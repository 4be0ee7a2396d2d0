"""Batches are cut into as few pieces as the memory needs."""

import pytest

from utils.base.errors import UserError
from utils.training.memory import pieces_that_fit

GB = 10**9


@pytest.mark.parametrize(
    ("queries", "each", "free", "pieces"),
    [(768, 0.1, 80, 2), (768, 0.05, 80, 1), (768, 0.1, 24, 4), (8, 100, 80, 1), (768, 0, 1, 1)],
)
def test_a_batch_is_cut_into_pieces_that_fit(queries, each, free, pieces):
    fixed = 0.5 * GB  # of gradients and states
    peak = lambda count: int(fixed + count * each * GB)  # noqa: E731
    assert pieces_that_fit(queries, peak, free * GB) == pieces
    largest = -(-queries // pieces)
    if queries > 8:
        assert fixed + largest * each * GB <= free * GB


def test_a_query_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"one query takes 3.5 GB of GPU memory, and 2.0 GB are"):
        pieces_that_fit(32, lambda count: int((0.5 + 3 * count) * GB), 2 * GB)
