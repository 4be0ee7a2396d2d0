"""Pooling: the published boundaries and means, and what holds for any number of rows."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from utils.features.mapped import pool_boundaries, pool_rows


def test_published_numbers(golden):
    for case in json.loads((golden / "spans.json").read_text())["pooling"]:
        rows, units = case["rows"], case["max_units"]
        pooled = pool_rows(np.arange(rows, dtype=np.float32)[:, None], units)
        np.testing.assert_allclose(pooled[:, 0], case["pooled_row_numbers"], atol=1e-4)
        if rows > units:
            assert pool_boundaries(rows, units).tolist() == case["boundaries"]


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 1000))
def test_means_of_segments(rows, units, seed):
    features = np.random.default_rng(seed).standard_normal((rows, 3), np.float32)
    pooled = pool_rows(features, units)
    assert pooled.shape == (min(rows, units), 3)
    if rows <= units:
        assert (pooled == features).all()
        return
    edges = pool_boundaries(rows, units)
    for unit in range(units):
        first, last = edges[unit], max(edges[unit + 1], edges[unit] + 1)
        np.testing.assert_allclose(pooled[unit], features[first:last].mean(0), atol=1e-4)


def test_half_precision_rows_are_summed_in_single():
    features = np.full((4000, 1), 60_000, np.float16)
    assert np.isfinite(pool_rows(features, 2)).all()
