"""Best spans against the whole table of products, and the reference spans."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.decoding import best_spans

LOGITS = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(-20, 20, width=32))


def all_pairs(start_logits, end_logits, k):
    """The same from the whole outer product: (score, i, j), best first, then smallest i and j."""
    start, end = start_logits.softmax(0), end_logits.softmax(0)
    products = (start[:, None] * end).tolist()
    units = int((start_logits > -1e29).sum())
    pairs = [(-products[i][j], i, j) for i in range(units) for j in range(i, units)]
    return [(-score, i, j) for score, i, j in sorted(pairs)[:k]]


@pytest.mark.parametrize("predictor", ["transformer", "rnn"])
def test_spans_are_the_golden_ones(golden, predictor):
    numbers = np.load(golden / f"vslnet_{predictor}.npz")
    logits = (torch.from_numpy(numbers[f"{name}_logits"]) for name in ("start", "end"))
    spans, scores = best_spans(*logits)
    assert spans.dtype == torch.int64 and scores.dtype == torch.float32
    assert np.array_equal(spans[..., 0], numbers["top5_start"])
    assert np.array_equal(spans[..., 1], numbers["top5_end"])
    assert (scores.diff(dim=1) <= 0).all()


@given(st.data(), st.integers(1, 12), st.integers(0, 3), st.sampled_from([1, 5, 20]))
def test_best_spans_equal_the_outer_product(data, units, padding, k):
    start, end = (
        torch.tensor(
            data.draw(st.lists(LOGITS, min_size=units, max_size=units)) + [-1e30] * padding
        )
        for _ in range(2)
    )
    expected = all_pairs(start, end, k)
    spans, scores = best_spans(start[None], end[None], k)
    ranking = [
        (score, *span) for score, span in zip(scores[0].tolist(), spans[0].tolist(), strict=True)
    ]
    assert len(ranking) == k
    assert ranking[: len(expected)] == expected
    best = expected[0][1:]
    assert ranking[len(expected) :] == [(0.0, *best)] * (k - len(expected))


def test_best_spans_of_a_batch_equal_those_of_its_rows():
    draw = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 91, (40, 1), generator=draw)
    logits = torch.randn(2, 40, 90, generator=draw) * 4
    logits = logits.masked_fill(torch.arange(90) >= lengths, -1e30)
    spans, scores = best_spans(*logits)
    for row in range(40):
        row_spans, row_scores = best_spans(*logits[:, row : row + 1])
        assert torch.equal(row_spans[0], spans[row])
        torch.testing.assert_close(row_scores[0], scores[row])
