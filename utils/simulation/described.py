"""Simulated features for real annotation files: a window shows what its sentences say.

Each word has a random direction (by its hash), and a window the sum over the words of its
sentences, so that text and video correspond. Shapes: R rows, F width.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.base.errors import UserError
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.data.words import content_words
from utils.simulation.scenery import backdrop, directions, row_count, shares


class DescribedClip(NamedTuple):
    """A clip of annotation files; its lists have an entry per sentence with times."""

    rows: int  # of features
    windows: list[list[float]]  # seconds
    words: list[list[str]]


def read_described(paths: Sequence[str | Path]) -> dict[str, DescribedClip]:
    """Read clips by uid; a clip may be in several files.

    Raises:
        UserError: a file is missing or malformed, or durations of a clip differ.
    """
    clips: dict[str, DescribedClip] = {}
    for path in paths:
        annotations = read_annotations(path)
        for _, clip in iter_clips(annotations):
            rows = row_count(clip.duration)
            if clips.setdefault(clip.clip_uid, DescribedClip(rows, [], [])).rows != rows:
                raise UserError(f"{path}: clip {clip.clip_uid} has another duration elsewhere")
        for query in iter_queries(annotations):
            if query.window is not None:
                clips[query.clip_uid].windows.append(sorted(query.window))
                clips[query.clip_uid].words.append(content_words(query.text))
    return clips


class DescribedScenery:
    """Features of one kind (`name`, F wide) for the clips of annotation files."""

    def __init__(self, clips: Sequence[DescribedClip], name: str, width: int, seed: int):
        self.clips, self.name, self.width, self.seed = clips, name, width, seed
        # (F,) direction of a word, which is the same for all files.
        self._direction = cache(lambda word: directions(f"{name} word {word}", seed, 1, width)[0])

    def rows(self, clip: int) -> np.ndarray:
        """(R, F) float32 features of a clip, by its number."""
        rows, windows, sentences = self.clips[clip]
        contents = np.zeros((len(sentences), self.width), dtype=np.float32)
        for content, words in zip(contents, sentences, strict=True):
            for word in words:
                content += self._direction(word)
        scene = backdrop(self.name, self.seed, rows, self.width, clip, clip, home=0.0)
        return shares(np.reshape(windows, (-1, 2)), rows) @ contents + scene
