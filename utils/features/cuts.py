"""Clips cut out of the features of whole videos, into a folder of `.pt` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.base.errors import UserError
from utils.base.files import atomic_folder, file_stamp, write_json
from utils.base.lazy import torch
from utils.base.tensor_files import save_atomically
from utils.features.cards import CARD_FILE, SHAPES_FILE, read_card, rows_off
from utils.features.files import FeatureFiles, in_precision, read_features

ClipCuts = dict[str, tuple[str, float, float]]  # clip uid -> video uid, start, end (s)


class VideoCuts(FeatureFiles):
    """Features of clips: the rows nearest to their bounds in the features of whole videos."""

    def __init__(self, folder: Path, bounds: ClipCuts):
        self.path = folder
        self.clip_uids = sorted(bounds)
        self.card = read_card(folder)
        self._bounds = [bounds[uid] for uid in self.clip_uids]
        self._files = [folder / f"{video}.pt" for video, _, _ in self._bounds]
        present = {file for file in set(self._files) if file.is_file()}
        self.present = [clip for clip, file in enumerate(self._files) if file in present]

    def stamps(self) -> list:
        stamps = {file: file_stamp(file) for file in {self._files[clip] for clip in self.present}}
        return [[self.clip_uids[n], self._bounds[n], stamps[self._files[n]]] for n in self.present]

    def read(self, clip: int) -> np.ndarray:
        features = read_features(self._files[clip])
        end = self._bounds[clip][2]
        first, last = (round(second * self.rate) for second in self._bounds[clip][1:])
        first = max(first, 0)
        cut = features[first : max(last, first + 1)]
        if not len(cut) or rows_off(np.array(len(cut)), np.array(last - first)):
            raise UserError(
                f"{self.where(clip)} ends at row {last} ({end:.1f} s at {self.rate:g} rows a "
                f"second), the file has {len(features)}; is it cut off, or the stride another?"
            )
        return cut

    def where(self, clip: int) -> str:
        return f"{self._files[clip]}: clip {self.clip_uids[clip]}"


def write_folder(files: FeatureFiles, folder: Path, card: dict) -> None:
    """Write features as a folder with one `.pt` a clip, their list and their card.

    The folder appears whole or not at all. Raises `UserError` naming what can't be used.
    """
    listed = {}
    with atomic_folder(folder, replace=True) as finished:
        for clip, features in files.each(f"cutting {folder.name} features"):
            rows = np.ascontiguousarray(in_precision(features, card["dtype"], files.where(clip)))
            save_atomically(torch.from_numpy(rows), finished / f"{files.clip_uids[clip]}.pt")
            listed[files.clip_uids[clip]] = len(rows)
        write_json(finished / SHAPES_FILE, listed)
        write_json(finished / CARD_FILE, card, indent=True)
