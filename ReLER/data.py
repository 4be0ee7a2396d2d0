"""ReLER's data: a split as aligned columns; a batch is `columns[rows]`, read once and pooled once.

files -> Records (columns) -> Samples (which rows, which window) -> mapped stores -> Batch (tensors)

A sample's units are weighted sums of feature rows, whether its clip is whole, cut or spliced, so a
batch of them is one weighted embedding bag over the mapped rows: only rows of the drawn windows
are read, and there is no loop over samples.

Shapes: R queries, C clips, B batch, V video units, F feature dim, M feature rows in a batch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ReLER.augment import (
    Cuts,
    Draws,
    cut_windows,
    draw,
    draw_inside,
    draw_outside,
    label_units,
    salient_spans,
    whole_clips,
)
from ReLER.losses import Targets
from ReLER.model import real_parts
from ReLER.options import SCALES, Options
from utils.base.errors import named, warn
from utils.data.records import Records, keep_complete, keep_some, read_split
from utils.data.spans import exact_unit_windows, highlight_windows, jitter_windows
from utils.features.mapped import FeatureStore, open_features
from utils.features.tensors import in_steps, resident
from utils.features.tokens import EncoderText, Gather
from utils.training.processes import Processes

NORM_EPS = 1e-5
EXTENDED = 0.1  # share of a window that is highlighted on each side of it
UNEVEN = 0.05  # features of a clip whose lengths differ by more are worth a warning
ROWS_AT_ONCE = 4096


class Key(NamedTuple):
    """Where all randomness of a sample comes from, together with its row number."""

    seed: int
    epoch: int


class Batch(NamedTuple):
    """Tensors of one step: what the model reads, and what it should say."""

    video: torch.Tensor  # (B, V, F)
    video_mask: torch.Tensor  # (B, V)
    text: torch.Tensor  # (B, Q, T)
    text_mask: torch.Tensor  # (B, Q)
    targets: Targets


class Samples(NamedTuple):
    """Columns of a batch before anything is read."""

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


class ClipData:
    """One split with its features side by side and its text, ready to be cut into batches."""

    def __init__(
        self,
        records: Records,
        features: Mapping[str, FeatureStore],
        text: Gather,
        options: Options,
        device: torch.device | str = "cpu",
        place: str = "cpu",
    ):
        """All clips of the records must have all features: see `keep_complete`.

        Args:
            features: the chosen feature and CLIP by name, in the order the model has them; stores
                of all clips of `records.clip_uids`.
            device, place: where feature rows live while batches are gathered: see `resident`.

        Warns about clips whose features differ in length by more than 5 %.
        """
        self.records = records
        self.options = options
        self.text = text
        self._tables = [
            _Table(store, not options.no_norm_vfeat, device, place) for store in features.values()
        ]
        lengths = np.stack([store.lengths for store in features.values()])  # (features, C)
        self.clip_rows = lengths.max(0)  # (C,) the shorter feature is padded with zeros
        self.clips = np.unique(records.clip)
        self._longest = min(int(self.clip_rows[self.clips].max()), options.max_v_l)
        if not lengths[:, self.clips].all():
            raise ValueError("clips without features: keep_complete was not asked")
        uneven = self.clips[(lengths.min(0) < (1 - UNEVEN) * self.clip_rows)[self.clips]]
        if len(uneven):
            names = named(
                f"{records.clip_uids[clip]} ({' and '.join(map(str, lengths[:, clip]))} rows)"
                for clip in uneven
            )
            kinds = " and ".join(features)
            warn(f"{kinds} differ in length for {len(uneven)} clips: {names}; padded with zeros")

    def __len__(self) -> int:
        return len(self.records)

    @property
    def width(self) -> int:
        """F of a batch."""
        return sum(table.width for table in self._tables) + 2

    def batch(
        self,
        rows: np.ndarray,
        parts: int = SCALES[0],
        key: Key | None = None,
        processes: Processes | None = None,
        device: torch.device | str = "cpu",
    ) -> Batch:
        """The tensors of this process's share of `rows`.

        Nothing depends on how many processes share a batch: totals are of all `rows`, and clips are
        padded to the longest of them (for a compiled model to `max_v_l`), or without augmentation
        to the longest of the split, so that predictions do not depend on the batch either.

        Args:
            rows: (B,) row numbers of the whole batch.
            parts: into how many the model will cut the clips; the loss counts them.
            key: turns augmentation on, and fixes it.
            device: of the tensors, unless it is that of `processes`.
        """
        size = 1
        if processes:
            size, device = processes.size, processes.device
        rows = rows[: len(rows) // size * size]
        samples = self._samples(rows, key)
        padded = int(samples.units.max()) if key else self._longest
        if key and self.options.compile:
            padded = self.options.max_v_l
        units_total = float(samples.units.sum()) / size
        parts_total = float(real_parts(samples.units, padded, parts).sum()) / size
        if processes:
            mine = processes.shard(np.arange(len(rows)))
            rows, samples = rows[mine], samples.take(mine)

        place = np.arange(padded)
        first, last = highlight_windows(samples.windows, samples.units, EXTENDED).T
        start, end = torch.from_numpy(samples.windows).to(device).unbind(1)
        spans = salient_spans(samples.windows, samples.units)
        salient = draw_inside(spans, samples.draws.salient)
        unsalient = draw_outside(spans, samples.units, samples.draws.unsalient)
        highlight = (place >= first[:, None]) & (place <= last[:, None])
        text = self.text(self.records.sentence[rows], device)
        if key and self.options.compile:
            text = text.pad(in_steps(text.mask.shape[1]))
        return Batch(
            self._video(samples, padded, device),
            torch.from_numpy(place < samples.units[:, None]).to(device, torch.float32),
            text.tokens,
            text.mask,
            Targets(
                start,
                end,
                torch.from_numpy(highlight).to(device, torch.float32),
                torch.from_numpy(salient).to(device),
                torch.from_numpy(unsalient).to(device),
                units_total,
                parts_total,
            ),
        )

    def _samples(self, rows: np.ndarray, key: Key | None) -> Samples:
        records, options = self.records, self.options
        clip = records.clip[rows]
        if key is None:
            cuts = whole_clips(clip, self.clip_rows[clip])
            units = np.minimum(cuts.rows, options.max_v_l)
            windows = exact_unit_windows(records.exact[rows], records.duration[rows], units)
            return Samples(cuts, units, windows, draw(0, 0, rows))
        draws = draw(key.seed, key.epoch, rows)
        cuts, seconds = cut_windows(clip, records.exact[rows], self.clip_rows, records.clip, draws)
        units = np.minimum(cuts.rows, options.max_v_l)
        windows = label_units(seconds, cuts.rows, units)
        if options.nar_exp_factor > 1:
            windows = jitter_windows(
                windows,
                units,
                records.is_narration[rows],
                options.nar_exp_factor,
                options.nar_translate,
                draws.jitter,
            )
        return Samples(cuts, units, windows, draws)

    def _video(self, samples: Samples, padded: int, device: torch.device | str) -> torch.Tensor:
        """(B, V, F) features of the samples, zero at padding."""
        bags = Bags.of(samples.cuts, samples.units, padded)
        columns = [table.pool(bags) for table in self._tables]
        columns.append(temporal_endpoints(samples.units, padded))
        return torch.cat([column.to(device) for column in columns], 2)


def temporal_endpoints(units: np.ndarray, padded: int) -> torch.Tensor:
    """(B, V, 2) begin and end of each unit as a share of its sample, zero at padding."""
    place = np.arange(padded)
    ends = np.stack((place, place + 1), 1) / units[:, None, None]
    ends = ends * (place < units[:, None])[..., None]
    return torch.from_numpy(ends.astype(np.float32))


class Bags(NamedTuple):
    """Which feature rows each unit of a batch is the mean of."""

    clip: np.ndarray  # (M,) clip number
    row: np.ndarray  # (M,) row in the clip
    share: np.ndarray  # (M,) weight in the unit's mean
    offsets: np.ndarray  # (B * V,) where a unit's rows begin; padding has none
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
        place = np.arange(per_unit.sum()) - np.repeat(offsets - edges[:, :-1].ravel(), per_unit)

        # From a place in the sample to a row of one of its two clips.
        sample = np.repeat(np.arange(len(units)), counts.sum(1))
        ahead = place - cuts.cut[sample]
        own = (ahead >= 0) & (ahead < cuts.length[sample])
        row = np.where(ahead < 0, place, place - cuts.length[sample])
        row = np.where(own, cuts.first[sample] + ahead, row)
        clip = np.where(own, cuts.clip[sample], cuts.other[sample])
        share = np.repeat(1 / np.maximum(per_unit, 1), per_unit)
        return cls(clip, row, share, offsets, (len(units), padded))


class _Table:
    """One feature's rows, mapped, with the scale that brings each of them to length 1."""

    def __init__(self, store: FeatureStore, scaled: bool, device: torch.device | str, place: str):
        self.store = store
        self.width = store.width
        self._rows = resident(store.joined, device, place)
        # Scales are found when a row is first drawn: NaN until then.
        self._scale = np.full(len(store.joined), np.nan if scaled else 1.0, np.float32)

    def pool(self, bags: Bags) -> torch.Tensor:
        """(B, V, F) float32 mean of each unit's rows; rows the feature lacks count as zero."""
        there = bags.row < self.store.lengths[bags.clip]
        index = np.where(there, self.store.offsets[bags.clip] + bags.row, 0)
        weight = torch.from_numpy(bags.share * self._scales(index) * there)
        where = self._rows.device
        pooled = F.embedding_bag(
            torch.from_numpy(index).to(where),
            self._rows,
            torch.from_numpy(bags.offsets).to(where),
            mode="sum",
            per_sample_weights=weight.to(where, self._rows.dtype),
        )
        return pooled.float().unflatten(0, bags.shape)

    def _scales(self, index: np.ndarray) -> np.ndarray:
        unknown = np.unique(index[np.isnan(self._scale[index])])
        for at in range(0, len(unknown), ROWS_AT_ONCE):
            some = unknown[at : at + ROWS_AT_ONCE]
            rows = self.store.joined[some].astype(np.float32)
            lengths = np.sqrt(np.einsum("mf,mf->m", rows, rows))
            self._scale[some] = 1 / (lengths + NORM_EPS)
        return self._scale[index]


def open_split(
    options: Options, name: str, text: EncoderText, device: torch.device, tolerant: bool
) -> tuple[ClipData, int]:
    """A split with its stores, and how many queries its file lists.

    Clips that lack a feature are left out if `tolerant`, else they are an error.
    """
    training = options.mode == "train" == name
    subsets = (options.scaling_subsample_clips, options.zeroshot_subsample_clips)
    records, listed = read_split(
        options.data_root, options.task, name, *(subsets if training else (None, None))
    )
    if training:
        long = trained_rows(records, options.label_times, options.vslnet_thres_in_train)
        records = keep_some(records, long, name)
    features = {
        kind: open_features(
            Path(options.data_root),
            kind,
            records.clip_uids,
            options.cache,
            durations=records.num_frames / records.fps,
        )
        for kind in (options.fv, "clip")
    }
    lengths = {kind: store.lengths for kind, store in features.items()}
    records = keep_complete(records, lengths, name, tolerant)
    gather = text.open(records.sentences, device, training)
    data = ClipData(records, features, gather, options, device, options.feature_device)
    return data, listed
