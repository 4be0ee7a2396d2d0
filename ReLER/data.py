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
from utils.data.records import Records, keep_complete, keep_usable, read_split
from utils.data.spans import highlight_windows, jitter_windows
from utils.features.mapped import FeatureStore, open_all
from utils.features.tensors import in_steps, to_device
from utils.features.tokens import EncoderText, Gather
from utils.training.processes import Share

EXTENDED = 0.1  # share of a window that is highlighted on each side of it
UNEVEN = 0.05  # features of a clip whose lengths differ by more are worth a warning


class Inputs(NamedTuple):
    """What the model reads."""

    video: torch.Tensor  # (B, V, F)
    video_mask: torch.Tensor  # (B, V)
    text: torch.Tensor  # (B, Q, T)
    text_mask: torch.Tensor  # (B, Q)


class Samples(NamedTuple):
    """Columns of a training batch before anything is read."""

    cuts: Cuts
    units: np.ndarray  # (B,)
    windows: np.ndarray  # (B, 2) first and last unit of the answer
    draws: Draws

    def take(self, chosen: np.ndarray) -> "Samples":
        """Some of the samples."""
        cuts = Cuts(*(column[chosen] for column in self.cuts))
        draws = Draws(*(column[chosen] for column in self.draws))
        return Samples(cuts, self.units[chosen], self.windows[chosen], draws)


def trained_rows(records: Records, label_times: str, threshold: float = 0.0) -> np.ndarray:
    """(R,) which queries train: those whose window is longer than `threshold` seconds.

    As published the window is the one of truncated times; labels come from exact times either way.
    """
    if label_times == "exact":
        start, end = np.clip(records.exact, 0, records.duration[:, None]).T
    else:
        start, end = records.seconds.T
    return end - start > threshold


class Split:
    """One split with its features side by side and its text, ready to be cut into batches.

    Args:
        stores: of the features that the model reads, in its order; all clips of the records must
            have all features (`keep_complete`).
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
        self._clip_rows = lengths.max(0)  # (C,) the shorter feature is padded with zeros
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
        """Whole clips and their queries, to predict.

        Clips are padded to the longest of the split, so that predictions do not depend on the
        batch.
        """
        clip, units = self.records.clip[rows], self.units(rows)
        cuts = whole_clips(clip, self._clip_rows[clip])
        text = self.text(self.records.sentence[rows], device)
        video = self._video(cuts, units, self._longest, device)
        return Inputs(*video, text.tokens, text.mask)

    def batch(
        self, share: Share, parts: int, draws: np.ndarray, device: torch.device
    ) -> tuple[Inputs, Targets]:
        """A share of a training batch, augmented.

        Nothing depends on how many share it: totals are of the whole batch, and clips are padded
        to the longest of it (for a compiled model to `max_v_l`).

        Args:
            parts: into how many the model will cut the clips; the loss counts them.
            draws: (R, COLUMNS) the plan of the epoch.
        """
        samples = self._samples(share.rows, Draws.of(draws[share.rows]))
        compiled = self.options.compile
        padded = self.options.max_v_l if compiled else int(samples.units.max())
        units_total = float(samples.units.sum()) / share.processes
        parts_total = float(real_parts(samples.units, padded, parts).sum()) / share.processes

        samples = samples.take(share.positions)
        video = self._video(samples.cuts, samples.units, padded, device)
        text = self.text(self.records.sentence[share.rows[share.positions]], device)
        if compiled:
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
    """What the model should say about samples padded to so many units."""
    unit_index = np.arange(padded)
    first, last = highlight_windows(samples.windows, samples.units, EXTENDED).T[..., None]
    highlight = (unit_index >= first) & (unit_index <= last)
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
        long = trained_rows(records, options.label_times, options.vslnet_thres_in_train)
        records = keep_usable(records, long, name)
    stores = open_all(Path(options.data_root), options.features, records, options.cache)
    lengths = {kind: store.lengths for kind, store in stores.items()}
    records = keep_complete(records, lengths, name, tolerant)
    gather = text.open(records.sentences, device, training)
    return Split(records, list(stores.values()), gather, options, device, listed)
