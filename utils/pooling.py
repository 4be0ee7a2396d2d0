"""Pooling of feature rows to a model's units."""

import numpy as np
import torch
import torch.nn.functional as F


def pool_boundaries(rows: int, units: int) -> np.ndarray:
    """First row of each unit, and the end: (units + 1,) int; rounding is half to even."""
    edges = np.round(np.arange(units + 1) / units * rows).astype(np.int64)
    return np.minimum(edges, rows - 1)


def pool_rows(features: np.ndarray, units: int) -> np.ndarray:
    """Mean of each unit's rows: (rows, F) -> (min(rows, units), F) float32.

    Features that fit are left as they are. Unit k covers rows `[b_k, b_{k+1})` of the boundaries,
    or row `b_k` alone where that is empty; since boundaries stop at the last row, as published, the
    last row counts only there.
    """
    rows = len(features)
    if rows <= units:
        return np.asarray(features, dtype=np.float32)
    edges = pool_boundaries(rows, units)
    counts = np.maximum(np.diff(edges), 1)
    first = np.cumsum(counts) - counts
    members = np.arange(counts.sum()) + np.repeat(edges[:-1] - first, counts)
    # A bag of rows per unit: about twenty times as fast as `np.add.reduceat`.
    table = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    means = F.embedding_bag(torch.from_numpy(members), table, torch.from_numpy(first), mode="mean")
    return means.numpy()
