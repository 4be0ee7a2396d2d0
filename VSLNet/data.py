"""VSLNet's data: a split as aligned columns; a batch is `columns[rows]`, with no loop over samples.

files -> Records (columns) -> pooled features and token features (mapped stores) -> Batch (tensors)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.data.records import Records, keep_complete, keep_usable, label_windows, read_split
from utils.data.spans import EMPTY_SECONDS, highlighted_units, jitter_windows
from utils.features.pooled import PooledFeatures, pooled_features
from utils.features.tensors import in_steps, pad_to, to_device
from utils.features.tokens import EncoderText, Gather, Text
from utils.training.processes import Share
from VSLNet.options import Options
from VSLNet.text import WordText


class Batch(NamedTuple):
    """Tensors of a share of a training batch."""

    video: torch.Tensor  # (B, V, F)
    video_mask: torch.Tensor  # (B, V)
    text: Text
    start: torch.Tensor  # (B,) first unit of the window
    end: torch.Tensor  # (B,) last unit
    highlight: torch.Tensor  # (B, V) 1 in the extended window
    units_total: float  # valid units of the whole batch / number of processes
    weight: float  # of means over these queries, see `Share`


@dataclass
class Split:
    """A split with its features and text, from which batches are made."""

    name: str
    records: Records
    features: PooledFeatures
    text: Gather
    windows: np.ndarray  # (R, 2) labels in units
    listed: int  # queries in the file, before any were left out
    options: Options

    @property
    def units(self) -> np.ndarray:
        """(R,) units of each query's clip."""
        return self.features.lengths[self.records.clip]

    def batch(self, share: Share, draws: np.ndarray, device: torch.device) -> Batch:
        """A share of a training batch; `draws` (R, 2) are for the jitter."""
        options = self.options
        rows = share.rows[share.positions]
        units = self.units[rows]
        windows = jitter_windows(
            self.windows[rows], units, self.records.is_narration[rows], draws[rows],
            options.nar_exp_factor, options.nar_translate,
        )  # fmt: skip
        video, video_mask = self.features.gather(self.records.clip[rows], device)
        text = self.text(self.records.sentence[rows])
        if options.compile:
            video, video_mask = (pad_to(x, options.max_pos_len) for x in (video, video_mask))
            text = text.pad(in_steps(text.mask.shape[1], options.max_pos_len))
        highlight = highlighted_units(windows, units, video.shape[1], options.extend)
        start, end = to_device(windows, device).unbind(1)
        return Batch(
            video,
            video_mask,
            text,
            start,
            end,
            to_device(highlight, device).float(),
            float(self.units[share.rows].sum()) / share.processes,
            share.weight,
        )


def open_split(
    options: Options,
    name: str,
    text: EncoderText | WordText,
    device: torch.device,
    tolerant: bool,
) -> Split:
    """Read a split with its stores; clips without features are left out if `tolerant`."""
    training = options.mode == "train" == name
    subsets = options.subsets(name)
    records, listed = read_split(options.data_root, options.task, name, *subsets)
    if name in options.remove_empty_queries_from:
        length = records.exact[:, 1] - records.exact[:, 0]
        records = keep_usable(records, length > EMPTY_SECONDS, name)
    features = pooled_features(
        Path(options.data_root),
        options.fv,
        records.clip_uids,
        options.max_pos_len,
        options.cache,
        options.video_feature_dim,
        records.clip_seconds,
        half=training,
        random_seed=options.seed if options.video_agnostic else None,
    ).to(device, options.feature_device)
    records = keep_complete(records, {options.fv: features.lengths}, name, tolerant)
    return Split(
        name,
        records,
        features,
        text.open(records.sentences, device, training),
        label_windows(records, features.lengths[records.clip], options.label_times),
        listed,
        options,
    )
