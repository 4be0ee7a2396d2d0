"""Simulated features for real annotation files: a window shows what its sentences say.

Each word has a random direction (by its hash), and a window the sum over the words of its
sentences, so that text and video correspond. Shapes: R rows, F width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.base.errors import UserError
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.data.words import content_words
from utils.simulation.scenery import backdrop, directions, row_count, shares


@dataclass(frozen=True)
class Described:
    """Clips of annotation files, with the words of their windows."""

    rows: dict[str, int]  # clip uid -> feature rows
    windows: list[np.ndarray]  # of each clip, (N, 2) seconds
    words: list[list[list[str]]]  # of each clip, the words of each window

    @property
    def queries(self) -> int:
        """Number of sentences with times."""
        return sum(map(len, self.windows))


def read_described(paths: Sequence[str | Path]) -> Described:
    """Read clips, windows and words; a clip may be in several files.

    Raises:
        UserError: a file is missing or malformed, or durations of a clip differ.
    """
    rows: dict[str, int] = {}
    windows: dict[str, list] = {}
    words: dict[str, list] = {}
    for path in paths:
        annotations = read_annotations(path)
        for _, clip in iter_clips(annotations):
            count = row_count(clip.duration)
            if rows.setdefault(clip.clip_uid, count) != count:
                raise UserError(f"{path}: clip {clip.clip_uid} has another duration elsewhere")
            windows.setdefault(clip.clip_uid, [])
            words.setdefault(clip.clip_uid, [])
        for query in iter_queries(annotations):
            if query.window is not None:
                windows[query.clip_uid].append(sorted(query.window))
                words[query.clip_uid].append(content_words(query.text))
    tables = [np.array(pairs, dtype=np.float64).reshape(-1, 2) for pairs in windows.values()]
    return Described(rows, tables, list(words.values()))


class DescribedScenery:
    """Features of one kind (`name`, F wide) for the clips of annotation files."""

    def __init__(self, described: Described, name: str, width: int, seed: int):
        self.described, self.name, self.width, self.seed = described, name, width, seed
        self._rows = list(described.rows.values())
        vocabulary = sorted(
            {w for sentences in described.words for words in sentences for w in words}
        )
        self._number = {word: number for number, word in enumerate(vocabulary)}
        # The direction depends on the word only, so that it is the same for all files.
        parts = [directions(f"{name} word {word}", seed, 1, width) for word in vocabulary]
        self._directions = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)

    def rows(self, clip: int) -> np.ndarray:
        """(R, F) float32 features of a clip, by its number."""
        rows = self._rows[clip]
        sentences = self.described.words[clip]
        contents = np.zeros((len(sentences), self.width), dtype=np.float32)
        for row, words in zip(contents, sentences, strict=True):
            row += self._directions[[self._number[word] for word in words]].sum(0)
        scene = backdrop(self.name, self.seed, rows, self.width, clip, clip, home=0.0)
        return shares(self.described.windows[clip], rows) @ contents + scene
