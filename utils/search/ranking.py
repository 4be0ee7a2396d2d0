"""Rank windows of encoded videos: a glance at all clips, then the whole model on the best ones.

Shapes: C clips, V units, U averaged units, D hidden, Q questions, n spans a clip, k windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from utils.base.errors import UserError
from utils.base.machine import each_on_a_core
from utils.data.spans import window_seconds
from utils.data.words import clean_sentence
from utils.evaluation.calibration import RIGHT, Calibration
from utils.evaluation.metrics import iou
from utils.evaluation.predictions import suppress
from utils.search import NMS_THRESHOLD, TOP
from utils.training.precision import autocast

BATCH_UNITS = 2048  # of a batch of clips
CANDIDATES = 10  # spans of a clip for a question
GAP = 1.0  # seconds between the timelines of two videos
CUT_OFF = 4.6  # log(100), subtracted from the score of a span that ends at a clip's border


class Searcher(Protocol):
    """The interface of a package's `search.Searcher(checkpoint, text_encoder, device)`."""

    features: tuple[str, ...]  # names of the features that the model reads
    width: int  # of all features together
    units: int  # that a clip is pooled to
    glanced: int  # averaged units of a clip in a glance, at most
    promising: tuple[int, ...]  # total units of the clips in each look, at most
    options: Any
    device: torch.device

    def join(self, features: list[np.ndarray]) -> np.ndarray:
        """Rows (R, F) as the model reads them."""

    def read(self, questions: list[str]) -> Any:
        """Text of the questions, indexed by `glance` and `ask`."""

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) -> (C, V, D)."""

    def glance(self, clips: torch.Tensor, text: Any, question: int) -> torch.Tensor:
        """Scores of clips by their averaged units: (C, U, D) -> (C,)."""

    def ask(
        self, clips: torch.Tensor, text: Any, question: int, count: int, look: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Spans in units (C, n, 2), n >= count, and scores (C, n) as of `spans_to_compare`."""


class Ranking(NamedTuple):
    """The windows of several videos that answer each question, best first."""

    windows: np.ndarray  # (Q, k, 2) seconds in the video
    # (Q, k) softmax over the candidate spans of all clips; for a calibrated run the chance that the
    # window is right, which need not fall with the rank.
    scores: np.ndarray
    videos: np.ndarray  # (Q, k) number of the video
    support: np.ndarray  # (Q, k) share of the spans that overlap with the window as a right one


class Offers(NamedTuple):
    """Candidate windows of some clips for a question."""

    clips: np.ndarray  # (C,) numbers
    windows: np.ndarray  # (C, n, 2) seconds on the timeline of all videos
    scores: np.ndarray  # (C, n)


@dataclass(frozen=True)
class EncodedVideo:
    """An encoded video that can be asked any number of questions."""

    model: Searcher
    clips: torch.Tensor  # (C, V, D) in half or single precision
    starts: np.ndarray  # (C,) seconds
    clip_seconds: float
    seconds: float
    calibration: Calibration | None = None

    def ask(
        self, questions: list[str], top: int = TOP, nms_threshold: float = NMS_THRESHOLD
    ) -> Ranking:
        """The best `top` windows for each question, with an IoU of at most the threshold."""
        return rank([self], questions, top, nms_threshold)

    @cached_property
    def overview(self) -> torch.Tensor:
        """(C, U, D) means of neighbouring units, at most `model.glanced` per clip."""
        factor = -(-self.clips.shape[1] // self.model.glanced)
        channels_first = self.clips.transpose(1, 2)
        return F.avg_pool1d(channels_first, factor, ceil_mode=True).transpose(1, 2)


def rank(
    videos: Sequence[EncodedVideo],
    questions: list[str],
    top: int = TOP,
    nms_threshold: float = NMS_THRESHOLD,
) -> Ranking:
    """The best `top` windows of all videos, encoded by one model, for each question.

    The whole model scores the most promising clips; if there are too many clips, a glance selects
    them. Raises `UserError` for an empty question.
    """
    model = videos[0].model
    text = model.read(list(map(as_trained, questions)))
    search = ClipSearch(videos, text, max(CANDIDATES, top))
    clips = [np.arange(len(search.video))] * len(questions)
    longest = max(video.clips.shape[1] for video in videos)
    counts = [max(1, units // longest) for units in model.promising]
    if len(search.video) > counts[0]:
        clips = search.glance(clips, counts[0])
    looks = [search.look(clips, 0)]
    for look, count in enumerate(counts[1:], 1):
        clips = [best(offers.clips, offers.scores.max(1), count) for offers in looks[0]]
        looks.append(search.look(clips, look))
    merged = [search.merge(offers, top, nms_threshold) for offers in zip(*looks, strict=True)]
    ranking = Ranking(*map(np.concatenate, zip(*merged, strict=True)))
    calibration = videos[0].calibration
    if calibration is None:
        return ranking
    return ranking._replace(scores=calibration.chances(ranking.support))


def best(clips: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` clips (C,) with the highest scores (C,)."""
    return clips[np.argsort(-scores, kind="stable")[:count]]


class ClipSearch:
    """Scores the clips of some videos, which are numbered, for questions."""

    def __init__(self, videos: Sequence[EncodedVideo], text: Any, count: int):
        self.model = videos[0].model
        self.videos, self.text, self.count = videos, text, count
        clip_counts = [len(video.starts) for video in videos]
        self.video = np.repeat(np.arange(len(videos)), clip_counts)  # (C,) of each clip
        self.place = np.concatenate(list(map(np.arange, clip_counts)))  # (C,) in its video
        self.is_last = self.place + 1 == np.repeat(clip_counts, clip_counts)  # (C,)
        # On one timeline of all videos, so that windows of different videos never overlap.
        self.ends = np.cumsum([video.seconds + GAP for video in videos])
        self.begins = np.append(0, self.ends[:-1])
        starts = [video.starts + begin for video, begin in zip(videos, self.begins, strict=True)]
        self.starts = np.concatenate(starts)  # (C,)
        self.seconds = np.repeat([video.clip_seconds for video in videos], clip_counts)  # (C,)

    def glance(self, clips: list[np.ndarray], count: int) -> list[np.ndarray]:
        """The `count` most promising of the clips given for each question."""

        def ask(question: int, batch: np.ndarray, overviews: torch.Tensor) -> tuple:
            with autocast(self.model.device, "auto"):
                scores = self.model.glance(overviews, self.text, question)
            return batch, scores.float().cpu().numpy()

        overviews = [video.overview for video in self.videos]
        return [best(*scored, count) for scored in self._ask_batches(ask, clips, overviews)]

    def look(self, clips: list[np.ndarray], look: int) -> list[Offers]:
        """Candidate windows of the clips given for each question."""

        def ask(question: int, batch: np.ndarray, encoded: torch.Tensor) -> tuple:
            answers = self.model.ask(encoded, self.text, question, self.count, look)
            spans, scores = (answer.cpu().numpy() for answer in answers)  # (C, n, 2), (C, n)
            units = encoded.shape[1]
            # A span that touches a border is cut off there, unless the video ends there, too.
            is_cut_off = (spans[..., 0] == 0) & (self.place[batch] > 0)[:, None]
            is_cut_off |= (spans[..., 1] == units - 1) & ~self.is_last[batch, None]
            windows = window_seconds(spans, self.seconds[batch, None], units)
            windows += self.starts[batch, None, None]
            return batch, windows, scores - CUT_OFF * is_cut_off

        encoded = [video.clips for video in self.videos]
        return [Offers(*offers) for offers in self._ask_batches(ask, clips, encoded)]

    def _ask_batches(
        self, ask: Callable[..., tuple], clips: list[np.ndarray], encoded: list[torch.Tensor]
    ) -> list[list[np.ndarray]]:
        """Results of `ask(question, clips, encoded clips)`, joined by question.

        `encoded` are the clips of each video (C, V, D). Batches are distributed over the cores.
        """

        @torch.inference_mode()
        def ask_batch(job: tuple[int, np.ndarray]) -> tuple:
            question, batch = job
            places = zip(self.video[batch].tolist(), self.place[batch].tolist(), strict=True)
            stacked = torch.stack([encoded[video][place] for video, place in places])
            return ask(question, batch, stacked.to(self.model.device).float())

        units = np.array([video.shape[1] for video in encoded])[self.video]  # (C,)
        batches = [equal_batches(numbers, units[numbers]) for numbers in clips]
        jobs = [(question, batch) for question, group in enumerate(batches) for batch in group]
        results = each_on_a_core(ask_batch, jobs, self.model.device)
        results = iter(tqdm(results, "asking", len(jobs), unit="batch", leave=False))
        by_question = ([next(results) for _ in group] for group in batches)
        return [list(map(np.concatenate, zip(*parts, strict=True))) for parts in by_question]

    def merge(
        self, looks: Sequence[Offers], top: int, nms_threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The best windows (1, k, 2) of a question, their scores, videos and support (1, k)."""
        candidates = np.concatenate([offers.windows.reshape(-1, 2) for offers in looks])  # (n, 2)
        scores = np.concatenate([offers.scores.ravel() for offers in looks])
        weight = np.exp(scores - scores.max())
        share = weight[None] / weight.sum()
        windows, scores = suppress(candidates[None], share, nms_threshold, top)
        support = (share * (iou(windows[0, :, None], candidates) > RIGHT)).sum(1)
        videos = np.searchsorted(self.ends, windows.mean(2))
        return windows - self.begins[videos][..., None], scores, videos, support[None]


def equal_batches(clips: np.ndarray, units: np.ndarray) -> list[np.ndarray]:
    """Batches of clips of equally many units, at most `BATCH_UNITS` together."""
    batches = []
    for count in np.unique(units).tolist():
        group, size = clips[units == count], max(1, BATCH_UNITS // count)
        batches += [group[first : first + size] for first in range(0, len(group), size)]
    return batches


def as_trained(question: str) -> str:
    """A question as in prepared data sets; raises UserError if it is empty."""
    if not question.strip(" ?"):
        raise UserError("the question is empty; ask something like: Where did I put the keys?")
    return clean_sentence(question)
