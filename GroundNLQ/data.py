"""GroundNLQ's data: a split as aligned columns; a batch consists of groups of similar length.

files -> Records (columns) -> mapped features and token features -> Inputs and Targets (tensors)

Shapes: R queries, C clips, B batch, T rows, F feature dim, Q tokens, E token dim, P points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from GroundNLQ.absent import AbsentMoments
from GroundNLQ.options import Options
from GroundNLQ.points import label_points, make_points, padded_rows
from GroundNLQ.text import open_queries
from utils.base.errors import UserError
from utils.base.tasks import FRAME_RATE
from utils.data.annotations import iter_clips, read_annotations
from utils.data.records import Records, read_split
from utils.features.mapped import FeatureStore, open_complete
from utils.features.tensors import Inputs, in_steps, resident, to_device
from utils.features.tokens import EncoderText, Gather
from utils.training.processes import Share


class Targets(NamedTuple):
    """What the model should predict for each point."""

    positive: torch.Tensor  # (B, P) bool
    offsets: torch.Tensor  # (B, P, 2)


@dataclass
class Split:
    """A split with its features and text, from which batches are made."""

    name: str
    records: Records
    stores: list[FeatureStore]
    tables: list[torch.Tensor]  # the stores' rows on the device that batches are gathered on
    text: Gather  # of queries by row numbers
    text_width: int
    durations: np.ndarray  # (R,) exact seconds of the queries' clips
    listed: int  # queries in the file, before any were left out
    options: Options

    @property
    def width(self) -> int:
        """F of all features together."""
        return sum(store.width for store in self.stores)

    @cached_property
    def absent_moments(self) -> AbsentMoments:
        """Clips that do not show what a query asks for."""
        return AbsentMoments(self.records)

    @property
    def clip_rows(self) -> np.ndarray:
        """(C,) rows of the longest feature; the shorter ones are padded with zeros."""
        return np.max([store.lengths for store in self.stores], 0)

    def padded(self, clips: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(B,) lengths that clips of `rows` (B,) rows are padded to."""
        if "fixed_length" not in self.options.quirks:
            return padded_rows(rows, self.options.levels)
        limit = self.options.max_seq_len
        if rows.max() > limit:
            clip = self.records.clip_uids[clips[rows.argmax()]]
            raise UserError(
                f"{self.name}: clip {clip} has {rows.max()} rows, more than --max_seq_len {limit}; "
                "without --published fixed_length clips may be of any length"
            )
        return np.full(len(clips), limit)

    def video(
        self,
        clips: np.ndarray,
        padded: int,
        device: torch.device,
        first_row: np.ndarray | None = None,
        row_count: np.ndarray | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, F) features of clips, zero at padding, and their mask (B, T).

        Of each clip only `row_count` (B,) rows from `first_row` (B,) on, if these are given.
        """
        first_row = np.zeros(len(clips), np.int64) if first_row is None else first_row
        row_count = self.clip_rows[clips] if row_count is None else row_count
        mask = np.arange(padded) < row_count[:, None]
        row = first_row[:, None] + np.arange(padded)
        columns = []
        for store, table in zip(self.stores, self.tables, strict=True):
            exists = mask & (row < store.lengths[clips][:, None])
            index = store.offsets[clips][:, None] + np.where(exists, row, 0)
            features = to_device(table[to_device(index, table.device)], device)
            columns.append(features.float() * to_device(exists, device)[..., None])
        return torch.cat(columns, 2), to_device(mask, device).float()

    def windows(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """(B, 2) windows of training queries in feature rows; narrations are jittered."""
        options, records = self.options, self.records
        seconds = records.exact if options.label_times == "exact" else records.seconds
        windows = seconds[rows]
        if options.nar_exp_factor > 1:
            is_whole, factor = options.nar_jitter == "whole", options.nar_exp_factor
            jittered = jitter(windows, draws[rows, :2], factor, is_whole, options.nar_translate)
            windows = np.where(records.is_narration[rows, None], jittered, windows)
        return windows * (FRAME_RATE / options.row_frames)

    def batch(
        self, share: Share, draws: np.ndarray, device: torch.device
    ) -> tuple[list[tuple[Inputs, Targets]], int]:
        """A share of a training batch, and the number of positive points of the whole batch.

        Clips of similar length form a group, which needs little padding.

        Args:
            draws: (R, 4) the plan of the epoch; (R, 6) if moments may be absent.
        """
        rows, positions, options = share.rows, share.positions, self.options
        clips, windows = self.records.clip[rows], self.windows(rows, draws)
        absent = np.zeros(len(rows), dtype=bool)
        if options.absent:
            clips, absent = self.absent_moments.replace_clips(rows, draws[rows, 4:], options.absent)
        first_row, row_count = crops(
            windows, self.clip_rows[clips], draws[rows, 2:4], options.crop_ratio
        )
        windows = windows - first_row[:, None]
        text = self.text(rows[positions])
        if options.compile:
            text = text.pad(in_steps(text.mask.shape[1]))
        nearest = "no_nearest" not in options.quirks
        groups, positives = [], 0
        lengths = self.padded(clips, row_count)
        for length in np.unique(lengths):
            group = np.flatnonzero(lengths == length)
            points = make_points(int(length), options.levels)
            positive, offsets = label_points(
                points, windows[group, None], row_count[group], nearest
            )
            positive &= ~absent[group, None]
            positives += int(positive.sum())
            in_share = np.isin(group, positions)
            if in_share.any():
                group = group[in_share]
                video = self.video(
                    clips[group], int(length), device, first_row[group], row_count[group]
                )
                query = to_device(group - positions[0], device)
                labels = (to_device(column[in_share], device) for column in (positive, offsets))
                inputs = Inputs(*video, text.tokens[query], text.mask[query])
                groups.append((inputs, Targets(*labels)))
        return groups, positives


def jitter(
    windows: np.ndarray, draws: np.ndarray, factor: float, is_whole: bool, translate: bool
) -> np.ndarray:
    """Windows (B, 2), each stretched by 1 to `factor` and, if `translate`, moved.

    The new window contains the old one and may extend beyond the clip. If `is_whole`, stretches are
    integers, as published with GroundNLQ.

    Args:
        draws: (B, 2) uniform in [0, 1): the stretch and the move.
    """
    stretch, move = draws.T
    scale = 1 + (np.floor(stretch * np.floor(factor)) if is_whole else stretch * (factor - 1))
    start, end = windows.T
    length = end - start
    centre = (start + end) / 2
    if translate:
        centre = centre - (2 * move - 1) * (scale - 1) * length / 2
    return np.stack((centre - scale * length / 2, centre + scale * length / 2), 1)


def crops(
    windows: np.ndarray, rows: np.ndarray, draws: np.ndarray, shares: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """A part of each clip that contains the middle of its window: first row (B,) and rows (B,).

    Args:
        windows: (B, 2) feature rows.
        rows: (B,) rows of the clips.
        draws: (B, 2) uniform in [0, 1): length and position of the part.
        shares: the smallest and the largest share of a clip.
    """
    smallest, largest = shares
    length, position = draws.T
    row_count = np.ceil((smallest + length * (largest - smallest)) * rows).astype(np.int64)
    middle = np.clip(windows.mean(1), 0, rows - 1).astype(np.int64)
    earliest = np.maximum(middle + 1 - row_count, 0)
    latest = np.minimum(middle, rows - row_count)
    return earliest + np.rint(position * (latest - earliest)).astype(np.int64), row_count


def clip_seconds(records: Records, annotations: str | None) -> np.ndarray:
    """(R,) seconds of the queries' clips, exact ones if an annotation file is given."""
    seconds = records.clip_seconds
    if annotations is not None:
        clips = (clip for _, clip in iter_clips(read_annotations(annotations)))
        exact = {clip.clip_uid: clip.duration for clip in clips}
        pairs = zip(records.clip_uids, seconds, strict=True)
        seconds = np.array([exact.get(uid, rounded) for uid, rounded in pairs])
    return seconds[records.clip]


def open_split(
    options: Options, name: str, text: EncoderText | None, device: torch.device, tolerant: bool
) -> Split:
    """Read a split with its stores; clips that lack a feature are left out if `tolerant`."""
    training = options.mode == "train" == name
    subsets = options.subsets(name)
    records, listed = read_split(options.data_root, options.task, name, *subsets)
    root, cache = Path(options.data_root), options.cache
    records, stores = open_complete(root, options.features, records, cache, name, tolerant)
    return Split(
        name,
        records,
        stores,
        [resident(store.joined, device, options.feature_device) for store in stores],
        *open_queries(options, text, records, device, training),
        clip_seconds(records, None if training else options.eval_gt_json),
        listed,
        options,
    )
