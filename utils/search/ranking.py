"""Ranking the moments of encoded videos: a glance at all clips, the whole model at the best.

Shapes: C clips, V units, U averaged units, D hidden, Q questions, n spans a clip, k windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from tqdm import tqdm

from utils.base.errors import UserError
from utils.base.machine import each_on_a_core
from utils.data.records import clean_sentence
from utils.data.spans import window_seconds
from utils.evaluation.calibration import RIGHT, Calibration
from utils.evaluation.metrics import iou
from utils.evaluation.predictions import suppress
from utils.search import NMS_THRESHOLD, TOP
from utils.training.precision import autocast

UNITS_AT_ONCE = 2048  # of the clips that are asked together
CANDIDATES = 10  # spans a clip offers to a question
GAP = 1.0  # seconds between videos where they are ranked together
CUT_OFF = 4.6  # taken from the score of a span that a clip's border cuts off: a hundredth is left


class Searcher(Protocol):
    """What a model's package offers as `search.Searcher(checkpoint, text_encoder, device)`."""

    features: tuple[str, ...]  # names of the features it reads
    width: int  # of all of them together
    units: int  # a clip is pooled to
    glanced: int  # units of a clip, at most, that a glance sees
    promising: tuple[int, ...]  # units, at most, of the clips that each look is given
    options: Any
    device: torch.device

    def join(self, features: list[np.ndarray]) -> np.ndarray:
        """Rows (R, F) as the model reads them."""

    def read(self, questions: list[str]) -> Any:
        """The questions, ready to be asked by number."""

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) -> (C, V, D)."""

    def glance(self, clips: torch.Tensor, text: Any, question: int) -> torch.Tensor:
        """How promising clips are, by averaged units: (C, U, D) -> (C,)."""

    def ask(
        self, clips: torch.Tensor, text: Any, question: int, count: int, look: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Spans in units (C, n, 2), n >= count, and scores (C, n) as of `spans_to_compare`."""


class VideoAnswers(NamedTuple):
    """Where a video answers each question, best first."""

    windows: np.ndarray  # (Q, k, 2) seconds
    scores: np.ndarray  # (Q, k) as of `Ranking`


class Ranking(NamedTuple):
    """Where several videos answer each question, best first."""

    windows: np.ndarray  # (Q, k, 2) seconds in the video
    # (Q, k) share of the weight of all spans that clips offered, at most 1; of a calibrated run the
    # chance that the window is right, which need not fall with the rank.
    scores: np.ndarray
    videos: np.ndarray  # (Q, k) number of the video
    support: np.ndarray  # (Q, k) share of the spans that overlap with the window as a right one


class Offers(NamedTuple):
    """What some clips offer to a question."""

    clips: np.ndarray  # (C,) their numbers
    windows: np.ndarray  # (C, n, 2) seconds in the clip's video
    scores: np.ndarray  # (C, n)


@dataclass(frozen=True)
class EncodedVideo:
    """An encoded video, to be asked any number of questions."""

    model: Searcher
    clips: torch.Tensor  # (C, V, D) in half or single precision
    starts: np.ndarray  # (C,) seconds
    clip_seconds: float
    seconds: float
    calibration: Calibration | None = None

    def ask(
        self, questions: list[str], top: int = TOP, nms_threshold: float = NMS_THRESHOLD
    ) -> VideoAnswers:
        """The `top` windows that answer each question, overlapping by at most the threshold."""
        ranking = rank([self], questions, top, nms_threshold)
        return VideoAnswers(ranking.windows, ranking.scores)

    @cached_property
    def overview(self) -> torch.Tensor:
        """(C, U, D): means of as many units each, at most `model.glanced` of them."""
        units = self.clips.shape[1]
        factor = -(-units // self.model.glanced)
        whole, rest = self.clips.split([units - units % factor, units % factor], 1)
        means = whole.unflatten(1, (-1, factor)).mean(2)
        return torch.cat([means, rest.mean(1, keepdim=True)], 1) if units % factor else means


def rank(
    videos: Sequence[EncodedVideo],
    questions: list[str],
    top: int = TOP,
    nms_threshold: float = NMS_THRESHOLD,
) -> Ranking:
    """The `top` windows of all videos, encoded by one model, that answer each question.

    The whole model is asked about the most promising clips; of many, a glance says which these are.
    Raises `UserError` for an empty question.
    """
    model = videos[0].model
    asking = Asking(videos, model.read(list(map(as_trained, questions))), max(CANDIDATES, top))
    clips = [np.arange(len(asking.video))] * len(questions)
    longest = max(video.clips.shape[1] for video in videos)
    counts = [max(1, units // longest) for units in model.promising]
    if len(asking.video) > counts[0]:
        clips = asking.glance(clips, counts[0])
    looks = [asking.look(clips, 0)]
    for look, most in enumerate(counts[1:], 1):
        clips = [best(offers.clips, offers.scores.max(1), most) for offers in looks[0]]
        looks.append(asking.look(clips, look))
    merged = [asking.merge(offers, top, nms_threshold) for offers in zip(*looks, strict=True)]
    ranking = Ranking(*map(np.concatenate, zip(*merged, strict=True)))
    calibration = videos[0].calibration
    if calibration is None:
        return ranking
    return ranking._replace(scores=calibration.chances(ranking.support))


def best(clips: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """The clips (C,) whose scores (C,) are highest."""
    return clips[np.argsort(-scores, kind="stable")[:most]]


class Asking:
    """Questions put to the clips of some videos, which are known by number."""

    def __init__(self, videos: Sequence[EncodedVideo], text: Any, count: int):
        self.model = videos[0].model
        self.videos, self.text, self.count = videos, text, count
        clips = [len(video.starts) for video in videos]
        self.video = np.repeat(np.arange(len(videos)), clips)  # (C,) of each clip
        self.place = np.concatenate([np.arange(number) for number in clips])  # (C,) in its video

    def glance(self, clips: list[np.ndarray], most: int) -> list[np.ndarray]:
        """The most promising of the clips given for each question."""

        def ask(question: int, batch: np.ndarray, overviews: torch.Tensor) -> tuple:
            with autocast(self.model.device, "auto"):
                scores = self.model.glance(overviews, self.text, question)
            return batch, scores.float().cpu().numpy()

        return [best(*found, most) for found in self._spread(ask, clips, overview=True)]

    def look(self, clips: list[np.ndarray], look: int) -> list[Offers]:
        """What the clips given for each question offer."""

        def ask(question: int, batch: np.ndarray, encoded: torch.Tensor) -> Offers:
            answers = self.model.ask(encoded, self.text, question, self.count, look)
            return self._offers(batch, encoded.shape[1], *(x.cpu().numpy() for x in answers))

        return [Offers(*offers) for offers in self._spread(ask, clips, overview=False)]

    def _spread(
        self, ask: Callable[..., tuple], clips: list[np.ndarray], overview: bool
    ) -> list[list[np.ndarray]]:
        """What `ask(question, clips, encoded clips)` returns, joined by question.

        Batches share the cores.
        """

        @torch.inference_mode()
        def ask_batch(job: tuple[int, np.ndarray]) -> tuple:
            question, batch = job
            return ask(question, batch, self._encoded(batch, overview))

        batches = [self._batches(numbers, overview) for numbers in clips]
        jobs = [(question, batch) for question, some in enumerate(batches) for batch in some]
        done = each_on_a_core(ask_batch, jobs, self.model.device)
        done = iter(tqdm(done, "asking", len(jobs), unit="batch", leave=False))
        answers = ([next(done) for _ in of_question] for of_question in batches)
        return [list(map(np.concatenate, zip(*parts, strict=True))) for parts in answers]

    def merge(
        self, looks: Sequence[Offers], top: int, nms_threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The best windows (1, k, 2) of a question, their scores, videos and support (1, k)."""
        # Videos lie one after another, so that windows of two never overlap.
        ends = np.cumsum([video.seconds + GAP for video in self.videos])
        begins = np.append(0, ends)
        windows = [x.windows + begins[self.video[x.clips], None, None] for x in looks]
        offered = np.concatenate([x.reshape(-1, 2) for x in windows])  # (n, 2)
        scores = np.concatenate([x.scores.ravel() for x in looks])
        weight = np.exp(scores - scores.max())
        share = weight[None] / weight.sum()
        windows, scores = suppress(offered[None], share, nms_threshold, top)
        support = (share * (iou(windows[0, :, None], offered) > RIGHT)).sum(1)
        videos = np.searchsorted(ends, windows.mean(2))
        return windows - begins[videos][..., None], scores, videos, support[None]

    def _clips_of(self, video: int, overview: bool) -> torch.Tensor:
        return self.videos[video].overview if overview else self.videos[video].clips

    def _encoded(self, batch: np.ndarray, overview: bool) -> torch.Tensor:
        """(C, V, D) single precision, of clips with as many units."""
        parts = zip(self.video[batch].tolist(), self.place[batch].tolist(), strict=True)
        clips = [self._clips_of(video, overview)[place] for video, place in parts]
        return torch.stack(clips).to(self.model.device).float()

    def _batches(self, clips: np.ndarray, overview: bool) -> list[np.ndarray]:
        """As many as memory has room for, all with as many units."""
        units = np.array([self._clips_of(v, overview).shape[1] for v in range(len(self.videos))])
        units = units[self.video[clips]]
        alike = [(number, clips[units == number]) for number in np.unique(units).tolist()]
        sizes = ((max(1, UNITS_AT_ONCE // number), group) for number, group in alike)
        return [group[at : at + n] for n, group in sizes for at in range(0, len(group), n)]

    def _offers(
        self, batch: np.ndarray, units: int, spans: np.ndarray, scores: np.ndarray
    ) -> Offers:
        """Spans (C, n, 2) as windows."""
        videos = [self.videos[number] for number in self.video[batch]]
        starts = np.array([v.starts[n] for v, n in zip(videos, self.place[batch], strict=True)])
        last = np.array([video.starts[-1] for video in videos])
        seconds = np.array([video.clip_seconds for video in videos])
        # A span that touches a border is cut off there, unless it is the video's.
        cut_off = (spans[..., 0] == 0) & (starts > 0)[:, None]
        cut_off |= (spans[..., 1] == units - 1) & (starts < last)[:, None]
        windows = window_seconds(spans, seconds[:, None], units) + starts[:, None, None]
        return Offers(batch, windows, scores - CUT_OFF * cut_off)


def as_trained(question: str) -> str:
    """A question as prepared data sets have them: lower case, one question mark."""
    if not question.strip(" ?"):
        raise UserError("the question is empty; ask something like: Where did I put the keys?")
    return clean_sentence(question)
