"""Training queries that see a clip without their moment, so that scores compare across clips.

Asked of hours of video, a model has to say of most clips that a query has no answer there; trained
on clips that each hold one, it never learns to.
"""

from collections import defaultdict

import numpy as np

from utils.data.records import Records
from utils.data.words import content_words

TRIES = 8  # clips that are drawn for a query, until one does not hold its moment


class AbsentMoments:
    """Which clips are known to hold what a query asks for: by the words of their narrations."""

    def __init__(self, records: Records):
        words = [frozenset(content_words(sentence)) for sentence in records.sentences]
        narrated = np.unique(records.sentence[records.is_narration])
        known = frozenset().union(*(words[number] for number in narrated))
        # "How many", "what color": words of questions that no narration has.
        self._words = [each & known for each in words]
        self._narrations: dict[int, set[int]] = defaultdict(set)
        pairs = np.stack((records.clip, records.sentence), 1)[records.is_narration]
        for clip, sentence in np.unique(pairs, axis=0).tolist():
            self._narrations[clip].add(sentence)
        self._records = records
        self._clips = np.unique(records.clip)

    def holds(self, clip: int, sentence: int) -> bool:
        """Whether a narration of the clip has all the sentence's words."""
        words = self._words[sentence]
        return any(words <= self._words[number] for number in self._narrations[clip])

    def replace_clips(
        self, rows: np.ndarray, draws: np.ndarray, share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clips that queries see, and for which of them it is another one, (B,) each.

        Args:
            rows: (B,) row numbers of queries.
            draws: (B, 2) uniform in [0, 1): whether, and which clip.
        """
        clips = self._records.clip[rows].copy()
        absent = np.zeros(len(rows), dtype=bool)
        for number in np.flatnonzero(draws[:, 0] < share):
            first = int(draws[number, 1] * len(self._clips))
            candidates = self._clips[(first + np.arange(TRIES)) % len(self._clips)]
            sentence = self._records.sentence[rows[number]]
            for clip in candidates[candidates != clips[number]].tolist():
                if not self.holds(clip, sentence):
                    clips[number], absent[number] = clip, True
                    break
        return clips, absent
