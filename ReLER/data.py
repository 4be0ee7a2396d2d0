"""ReLER's data: a split as aligned columns; a batch is `columns[rows]`, with no loop over samples.

files -> Records (columns) -> Samples (which rows, which window) -> mapped stores -> Batch (tensors)

Shapes: R queries, C clips, B batch, V video units, F feature dim, Q query tokens, T token dim.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ReLER.augment import (
    Cuts,
    Draws,
    cut_windows,
    draw_inside,
    draw_outside,
    label_units,
    salient_spans,
    whole_clips,
)
from ReLER.losses import Targets
from ReLER.model import real_parts
from ReLER.options import Options
from ReLER.pooling import Bags, FeatureTable, temporal_endpoints
from utils.base.errors import named, warn
from utils.data.records import Records, keep_usable, read_split
from utils.data.spans import highlighted_units, jitter_windows
from utils.features.mapped import FeatureStore, open_complete
from utils.features.tensors import Inputs, in_steps, to_device
from utils.features.tokens import EncoderText, Gather
from utils.training.processes import Share

UNEVEN = 0.05  # relative difference in length of a clip's features above which to warn


class Samples(NamedTuple):
    """Columns of a training batch, before features are read."""

    cuts: Cuts
    units: np.ndarray  # (B,)
    windows: np.ndarray  # (B, 2) first and last unit of the answer
    draws: Draws

    def select(self, positions: np.ndarray) -> "Samples":
        """Select samples by their positions in the batch."""
        cuts = Cuts(*(column[positions] for column in self.cuts))
        draws = Draws(*(column[positions] for column in self.draws))
        return Samples(cuts, self.units[positions], self.windows[positions], draws)


def usable_rows(records: Records, label_times: str, threshold: float = 0.0) -> np.ndarray:
    """(R,) mask of the queries to train on: those with windows longer than `threshold` seconds.

    `label_times` chooses the times that are compared; labels are made from exact times.
    """
    if label_times == "exact":
        start, end = np.clip(records.exact, 0, records.duration[:, None]).T
    else:
        start, end = records.seconds.T
    return end - start > threshold


class Split:
    """A split with its features and text, from which batches are made.

    Args:
        stores: of the features that the model reads, in its order; all clips of the records must
            have all features.
        listed: queries in the file, before any were left out.

    Warns about clips whose features differ in length by more than 5 %.
    """

    def __init__(
        self,
        records: Records,
        stores: list[FeatureStore],
        text: Gather,
        options: Options,
        device: torch.device,
        listed: int = 0,
    ):
        self.records = records
        self.listed = listed
        self.options = options
        self.text = text
        self._tables = [
            FeatureTable(store, not options.no_norm_vfeat, device, options.feature_device)
            for store in stores
        ]
        lengths = np.stack([store.lengths for store in stores])  # (features, C)
        self._clip_rows = lengths.max(0)  # (C,) shorter features are padded with zeros
        clips = np.unique(records.clip)
        self._longest = min(int(self._clip_rows[clips].max()), options.max_v_l)
        uneven = clips[(lengths.min(0) < (1 - UNEVEN) * self._clip_rows)[clips]]
        if len(uneven):
            names = named(
                f"{records.clip_uids[clip]} ({' and '.join(map(str, lengths[:, clip]))} rows)"
                for clip in uneven
            )
            kinds = " and ".join(options.features)
            warn(f"{kinds} differ in length for {len(uneven)} clips: {names}; padded with zeros")

    @property
    def width(self) -> int:
        """F of a batch: all features and the two endpoints of a unit."""
        return sum(table.width for table in self._tables) + 2

    def units(self, rows: np.ndarray) -> np.ndarray:
        """(B,) units of the queries' whole clips."""
        return np.minimum(self._clip_rows[self.records.clip[rows]], self.options.max_v_l)

    def inputs(self, rows: np.ndarray, device: torch.device) -> Inputs:
        """Whole clips and their queries, for prediction.

        Clips are padded to the longest one of the split, so that predictions do not depend on the
        batch.
        """
        clip, units = self.records.clip[rows], self.units(rows)
        cuts = whole_clips(clip, self._clip_rows[clip])
        text = self.text(self.records.sentence[rows])
        video = self._video(cuts, units, self._longest, device)
        return Inputs(*video, text.tokens, text.mask)

    def batch(
        self, share: Share, parts: int, draws: np.ndarray, device: torch.device
    ) -> tuple[Inputs, Targets]:
        """A share of an augmented training batch.

        Losses do not depend on the number of shares: totals are of the whole batch, and clips are
        padded to its longest one (for a compiled model to `max_v_l`).

        Args:
            parts: number of parts that the model cuts the clips into, counted by the loss.
            draws: (R, COLUMNS) of the epoch's plan.
        """
        samples = self._samples(share.rows, Draws.of(draws[share.rows]))
        is_compiled = self.options.compile
        padded = self.options.max_v_l if is_compiled else int(samples.units.max())
        units_total = float(samples.units.sum()) / share.processes
        parts_total = float(real_parts(samples.units, padded, parts).sum()) / share.processes

        samples = samples.select(share.positions)
        video = self._video(samples.cuts, samples.units, padded, device)
        text = self.text(self.records.sentence[share.rows[share.positions]])
        if is_compiled:
            text = text.pad(in_steps(text.mask.shape[1]))
        targets = _targets(samples, padded, device, units_total, parts_total, share.weight)
        return Inputs(*video, text.tokens, text.mask), targets

    def _samples(self, rows: np.ndarray, draws: Draws) -> Samples:
        records, options = self.records, self.options
        cuts, seconds = cut_windows(
            records.clip[rows], records.exact[rows], self._clip_rows, records.clip, draws
        )
        units = np.minimum(cuts.rows, options.max_v_l)
        windows = label_units(seconds, cuts.rows, units)
        windows = jitter_windows(
            windows, units, records.is_narration[rows], draws.jitter,
            options.nar_exp_factor, options.nar_translate,
        )  # fmt: skip
        return Samples(cuts, units, windows, draws)

    def _video(
        self, cuts: Cuts, units: np.ndarray, padded: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, V, F) features of samples, zero at padding, and their mask (B, V)."""
        bags = Bags.of(cuts, units, padded)
        columns = [table.pool(bags) for table in self._tables]
        columns.append(temporal_endpoints(units, padded))
        mask = torch.from_numpy(np.arange(padded) < units[:, None])
        video = torch.cat([to_device(column, device).float() for column in columns], 2)
        return video, to_device(mask, device).float()


def _targets(
    samples: Samples,
    padded: int,
    device: torch.device,
    units_total: float,
    parts_total: float,
    weight: float,
) -> Targets:
    """The targets of samples padded to `padded` units."""
    highlight = highlighted_units(samples.windows, samples.units, padded)
    spans = salient_spans(samples.windows, samples.units)
    salient = draw_inside(spans, samples.draws.salient)
    unsalient = draw_outside(spans, samples.units, samples.draws.unsalient)
    start, end = to_device(samples.windows, device).unbind(1)
    return Targets(
        start=start,
        end=end,
        highlight=to_device(highlight, device).float(),
        salient=to_device(salient, device),
        unsalient=to_device(unsalient, device),
        units_total=units_total,
        parts_total=parts_total,
        weight=weight,
    )


def open_split(
    options: Options, name: str, text: EncoderText, device: torch.device, tolerant: bool
) -> Split:
    """Read a split with its stores; clips that lack a feature are left out if `tolerant`."""
    training = options.mode == "train" == name
    subsets = options.subsets(name)
    records, listed = read_split(options.data_root, options.task, name, *subsets)
    if training:
        usable = usable_rows(records, options.label_times, options.vslnet_thres_in_train)
        records = keep_usable(records, usable, name)
    root, cache = Path(options.data_root), options.cache
    records, stores = open_complete(root, options.features, records, cache, name, tolerant)
    gather = text.open(records.sentences, device, training)
    return Split(records, stores, gather, options, device, listed)
