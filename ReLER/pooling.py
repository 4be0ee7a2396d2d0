"""Pool a batch of samples to units, with one weighted embedding bag per feature.

Units are weighted sums of feature rows, in whole, cut and spliced clips. Only the rows of the
samples are read, without a loop over samples.

Shapes: B batch, V video units, F feature dim, M feature rows in a batch.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ReLER.augment import Cuts
from utils.features.mapped import FeatureStore
from utils.features.tensors import resident, to_device

NORM_EPS = 1e-5
BLOCK_ROWS = 4096


def temporal_endpoints(units: np.ndarray, padded: int) -> torch.Tensor:
    """(B, V, 2) start and end of each unit as shares of its sample, zero at padding."""
    unit_index = np.arange(padded)
    ends = np.stack((unit_index, unit_index + 1), 1) / units[:, None, None]
    ends = ends * (unit_index < units[:, None])[..., None]
    return torch.from_numpy(ends.astype(np.float32))


class Bags(NamedTuple):
    """The feature rows of each unit of a batch, of which it is the mean."""

    clip: np.ndarray  # (M,) clip number
    row: np.ndarray  # (M,) row in the clip
    share: np.ndarray  # (M,) weight in the unit's mean
    offsets: np.ndarray  # (B * V,) first row of each unit; padding has no rows
    shape: tuple[int, int]  # B, V

    @classmethod
    def of(cls, cuts: Cuts, units: np.ndarray, padded: int) -> "Bags":
        """Samples of `cuts.rows` rows pooled to `units` units, padded to V units."""
        edges = np.arange(padded + 1) / units[:, None] * cuts.rows[:, None]
        edges = np.minimum(np.rint(edges).astype(np.int64), cuts.rows[:, None] - 1)
        counts = np.maximum(np.diff(edges), 1)
        counts[np.arange(padded) >= units[:, None]] = 0
        per_unit = counts.ravel()
        offsets = np.cumsum(per_unit) - per_unit
        position = np.arange(per_unit.sum())
        position -= np.repeat(offsets - edges[:, :-1].ravel(), per_unit)

        # From a position in the sample to a row of one of its two clips.
        sample = np.repeat(np.arange(len(units)), counts.sum(1))
        part_position = position - cuts.cut[sample]
        in_clip = (part_position >= 0) & (part_position < cuts.length[sample])
        row = np.where(part_position < 0, position, position - cuts.length[sample])
        row = np.where(in_clip, cuts.first[sample] + part_position, row)
        clip = np.where(in_clip, cuts.clip[sample], cuts.other[sample])
        share = np.repeat(1 / np.maximum(per_unit, 1), per_unit)
        return cls(clip, row, share, offsets, (len(units), padded))


class FeatureTable:
    """The mapped rows of a feature, and the scales that normalise them to length 1."""

    def __init__(self, store: FeatureStore, scaled: bool, device: torch.device, policy: str):
        self.store = store
        self.width = store.width
        self._rows = resident(store.joined, device, policy)
        # The scale of a row is computed at its first use: NaN until then.
        self._scale = np.full(len(store.joined), np.nan if scaled else 1.0, np.float32)

    def pool(self, bags: Bags) -> torch.Tensor:
        """(B, V, F) mean of each unit's rows; rows that the feature lacks count as zero."""
        exists = bags.row < self.store.lengths[bags.clip]
        index = np.where(exists, self.store.offsets[bags.clip] + bags.row, 0)
        weight = torch.from_numpy(bags.share * self._scales(index) * exists)
        device = self._rows.device
        pooled = F.embedding_bag(
            to_device(index, device),
            self._rows,
            to_device(bags.offsets, device),
            mode="sum",
            per_sample_weights=to_device(weight.to(self._rows.dtype), device),
        )
        return pooled.unflatten(0, bags.shape)

    def _scales(self, index: np.ndarray) -> np.ndarray:
        new_rows = np.unique(index[np.isnan(self._scale[index])])
        for first in range(0, len(new_rows), BLOCK_ROWS):
            block = new_rows[first : first + BLOCK_ROWS]
            rows = self.store.joined[block].astype(np.float32)
            lengths = np.sqrt(np.einsum("mf,mf->m", rows, rows))
            self._scale[block] = 1 / (lengths + NORM_EPS)
        return self._scale[index]
