"""Search in videos of any length: clips, ranking moments of several videos, what does not fit."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bad_inputs.world import GROUNDNLQ_RUN, RELER_RUN, VSLNET_RUN, WIDTH
from utils.base.errors import UserError
from utils.evaluation.decoding import spans_to_compare
from utils.evaluation.predictions import read_predictions
from utils.search.ranking import EncodedVideo, as_trained, rank
from utils.search.search import TrainedRun, clip_starts, load_run

RATE = 1.875


class Bright:
    """A searcher that finds the bright rows of a clip: it answers each question alike."""

    features = ("egovlp",)
    width = 4
    units = 40
    glanced = 10
    promising = (400,)
    options = SimpleNamespace(data_root="nowhere")
    device = torch.device("cpu")
    most_clips = 0

    def join(self, features):
        return features[0]

    def read(self, questions):
        return questions

    def encode(self, clips):
        self.most_clips = max(self.most_clips, len(clips))
        return clips

    def glance(self, clips, text, question):
        return clips[..., 0].amax(1)

    def ask(self, clips, text, question, count, look):
        light = clips[..., 0]
        before = torch.nn.functional.pad(light[:, :-1], (1, 0))
        after = torch.nn.functional.pad(light[:, 1:], (0, 1))
        return spans_to_compare(8 * (light - before), 8 * (light - after), count)


@given(rows=st.integers(1, 3000), length=st.integers(1, 300))
def test_clips_cover_the_video_and_overlap_by_half(rows, length):
    length = min(rows, length)
    starts = clip_starts(rows, length)
    assert starts[0] == 0 and starts[-1] == rows - length
    step = np.diff(starts)
    assert (step <= -(-length // 2)).all() and (step >= 0).all()
    # Whatever is no longer than half a clip (less a row of rounding) lies whole in one of them.
    span = max(1, length // 2)
    first = np.arange(rows - span + 1)
    inside = (starts <= first[:, None]) & (first[:, None] + span <= starts + length)
    assert inside.any(1).all()


@settings(max_examples=20, deadline=None)
@given(first=st.integers(0, 13_000), length=st.integers(3, 15), seed=st.integers(0, 5))
def test_a_planted_event_is_found_wherever_it_lies(first, length, seed):
    """In two hours, cut into clips of 75 s, also across their borders."""
    rows = 13_500
    video = np.random.default_rng(seed).uniform(0, 0.1, (rows, 4)).astype(np.float32)
    last = min(first + length, rows)
    video[first:last, 0] = 1
    answers = TrainedRun(Bright(), 75.0).encode(video).ask(["Where is the light?"])
    start, end = answers.windows[0, 0]
    unit = 75.0 / Bright.units
    assert abs(start - first / RATE) <= unit and abs(end - last / RATE) <= unit


def test_answers_are_within_the_video_ranked_and_differ():
    video = np.random.default_rng(0).uniform(0, 1, (2000, 4)).astype(np.float32)
    model = Bright()
    run = TrainedRun(model, 60.0)
    answers = run.encode(torch.from_numpy(video)).ask(["One?", "Two?"], nms_threshold=0.3)
    assert answers.windows.shape == (2, 5, 2) and answers.scores.shape == (2, 5)
    assert (np.diff(answers.scores) <= 0).all() and (answers.scores > 0).all()
    assert (answers.scores.sum(1) <= 1).all()
    assert answers.windows.min() >= 0 and answers.windows.max() <= 2000 / RATE + 0.01
    starts, ends = answers.windows[0].T
    overlap = np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts)
    union = np.maximum(ends[:, None], ends) - np.minimum(starts[:, None], starts)
    assert (np.triu(overlap / union, 1) <= 0.3).all()
    assert model.most_clips <= 16  # memory does not grow with the video


def test_a_video_shorter_than_a_clip_is_one_clip():
    video = np.zeros((20, 4), np.float32)
    video[5:9, 0] = 1
    encoded = TrainedRun(Bright(), 480.0).encode(video)
    assert len(encoded.starts) == 1 and encoded.seconds == pytest.approx(20 / RATE)
    start, end = encoded.ask(["Where?"]).windows[0, 0]
    assert (start, end) == pytest.approx((5 / RATE, 9 / RATE), abs=1e-4)


def test_questions_are_read_as_in_the_prepared_data_sets():
    assert as_trained(" Where are my KEYS??") == "where are my keys?"
    with pytest.raises(UserError, match="empty"):
        as_trained(" ? ")


def test_rates_come_from_the_feature_card(tmp_path):
    torch.save(torch.zeros(100, 4), tmp_path / "a.pt")
    (tmp_path / "feature_card.json").write_text('{"frame_rate": 10, "stride": 10}')
    assert TrainedRun(Bright(), 480.0).encode(tmp_path / "a.pt").seconds == 100


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (np.zeros((10, 5), np.float32), "5 wide, the model was trained on 4"),
        ((np.zeros((10, 4)), np.zeros((10, 4))), "reads egovlp features, one file each; 2 given"),
        (np.zeros(10), "must be"),
        ("nowhere.pt", "no such file"),
        ("nowhere.mp4", r"give --encoder egovlp\.pth"),
    ],
)
def test_videos_that_do_not_fit_are_refused(video, words):
    with pytest.raises(UserError, match=words):
        TrainedRun(Bright(), 10.0).encode(video)


def test_features_that_cannot_be_made_of_a_video_are_refused(monkeypatch):
    monkeypatch.setattr(Bright, "features", ("slowfast",))
    with pytest.raises(UserError, match="reads slowfast features, and only clip, videomae, egovlp"):
        TrainedRun(Bright(), 10.0).encode("nowhere.mp4")
    with pytest.raises(UserError, match="names 2 image encoders for slowfast features"):
        TrainedRun(Bright(), 10.0, ["tiny", "tiny"]).encode("nowhere.mp4")


def test_a_checkpoint_of_neither_model_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other_1.t7")
    with pytest.raises(UserError, match="none of VSLNet, ReLER, GroundNLQ"):
        load_run(tmp_path)


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


@pytest.mark.parametrize(
    ("name", "file"), [(VSLNET_RUN, "challenge.json"), (GROUNDNLQ_RUN, "challenge_3.json")]
)
def test_search_finds_what_inference_predicts(small_root, name, file):
    """ReLER's order differs: inference compares scales by chances, search by logits."""
    run = load_run(small_root / name, str(small_root / "bert"), clip_seconds=1e4, device="cpu")
    questions = ["Where is the cup?", "who did I talk to"]
    for prediction in read_predictions(small_root / file):
        clip = f"{prediction.key[0]}.pt"
        files = [small_root / "features" / feature / clip for feature in run.model.features]
        windows = run.encode(files).ask(questions, nms_threshold=1.0).windows[prediction.key[2]]
        np.testing.assert_allclose(windows[:3], prediction.windows[:3], atol=0.02)


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
