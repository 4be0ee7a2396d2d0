"""Moments of several videos, ranked together: a glance at all clips, the whole model at few."""

import numpy as np
import pytest
import torch

from tests.bad_inputs.world import GROUNDNLQ_RUN, RELER_RUN, VSLNET_RUN, WIDTH
from tests.utils.search.test_search import RATE, Bright
from utils.search.ranking import EncodedVideo, rank
from utils.search.search import TrainedRun, load_run

QUESTION = ["Where is the light?"]


def encoded(model, *rows, light=()):
    """Dark videos of so many rows; a light is (video, first row, last row, and which feature)."""
    random = np.random.default_rng(0)
    videos = [random.uniform(0, 0.1, (n, 4)).astype(np.float32) for n in rows]
    for video, first, last, *feature in light:
        videos[video][first:last, feature or 0] = 1
    return [TrainedRun(model, 75.0).encode(video) for video in videos]


class Counting(Bright):
    """Counts the clips that it glances at and is asked about."""

    def __init__(self):
        self.glances = self.whole = 0

    def glance(self, clips, *rest):
        assert clips.shape[1] <= self.glanced
        self.glances += len(clips)
        return super().glance(clips, *rest)

    def ask(self, clips, *rest):
        self.whole += len(clips)
        return super().ask(clips, *rest)


@pytest.mark.parametrize("rows", [(600, 13_500, 90), (30,) * 40 + (500,)])
def test_a_moment_is_found_in_whichever_video_it_lies(rows):
    model = Counting()
    for number, length in enumerate(rows[:3]):
        first = length // 2
        videos = encoded(model, *rows, light=[(number, first, first + 10)])
        model.glances = model.whole = 0
        answers = rank(videos, QUESTION)
        assert answers.videos[0, 0] == number
        unit = 75.0 / model.units
        assert answers.windows[0, 0] == pytest.approx([first / RATE, (first + 10) / RATE], abs=unit)
        seconds = np.array([video.seconds for video in videos])[answers.videos]
        assert (answers.windows >= 0).all() and (answers.windows[..., 1] < seconds + 0.01).all()
        assert model.glances == sum(len(video.starts) for video in videos) and model.whole == 10


def test_windows_of_two_videos_do_not_suppress_each_other():
    same = [(0, 100, 110), (1, 100, 110)]
    answers = rank(encoded(Bright(), 300, 300, light=same), QUESTION, nms_threshold=0.1)
    assert set(answers.videos[0, :2]) == {0, 1}
    assert answers.windows[0, 0] == pytest.approx(answers.windows[0, 1], abs=0.5)


def test_few_clips_are_asked_whole_and_alike_alone_and_together():
    model = Counting()
    videos = encoded(model, 400, light=[(0, 200, 210)])
    alone, together = videos[0].ask(QUESTION), rank(videos, QUESTION)
    assert model.glances == 0 and model.whole == 2 * len(videos[0].starts)
    assert np.array_equal(alone.windows, together.windows)
    assert np.array_equal(alone.scores, together.scores)


def test_each_question_has_its_own_clips():
    class Two(Bright):
        def ask(self, clips, text, question, count, look):
            return super().ask(clips.roll(-question, 2), text, question, count, look)

        def glance(self, clips, text, question):
            return super().glance(clips.roll(-question, 2), text, question)

    videos = encoded(Two(), 13_500, light=[(0, 900, 910, 0), (0, 9000, 9010, 1)])
    answers = rank(videos, ["One?", "Two?"])
    assert answers.windows[:, 0, 0] == pytest.approx([900 / RATE, 9000 / RATE], abs=2)


@pytest.mark.parametrize(("units", "averaged"), [(40, 4), (41, 5), (10, 1), (3, 1), (19, 2)])
def test_an_overview_is_the_mean_of_units(units, averaged):
    clips = torch.randn(2, units, 3)
    overview = EncodedVideo(Bright(), clips, np.zeros(2), 1.0, 2.0).overview
    assert overview.shape == (2, -(-units // averaged), 3) and overview.shape[1] <= 10
    for number in range(overview.shape[1]):
        mean = clips[:, averaged * number : averaged * (number + 1)].mean(1)
        assert torch.allclose(overview[:, number], mean, atol=1e-6)


@pytest.mark.parametrize("name", [VSLNET_RUN, RELER_RUN, GROUNDNLQ_RUN])
def test_each_model_glances_at_clips_and_sees_the_most_promising(small_root, name):
    run = load_run(small_root / name, str(small_root / "bert"), clip_seconds=8.0, device="cpu")
    model = run.model
    torch.manual_seed(0)
    video = run.encode([torch.randn(100, WIDTH) for _ in model.features])
    with torch.inference_mode():
        glances = model.glance(video.overview, model.read(["where is the cup?"]), 0)
    assert glances.shape == (len(video.starts),) and glances.isfinite().all()
    assert glances.unique().numel() > 1
    model.promising = (1,) * len(model.promising)  # a single clip
    windows = video.ask(["where is the cup?"]).windows
    best = video.starts[glances.topk(2).indices.numpy()]  # two may be as good in half precision
    inside = (windows.min() >= best - 1e-3) & (windows.max() <= best + video.clip_seconds + 1e-3)
    assert inside.any()
