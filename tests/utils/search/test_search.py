"""Search in videos of any length: clips, merging, which package a checkpoint is of."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.base.errors import UserError
from utils.evaluation.decoding import spans_to_compare
from utils.search.ranking import as_trained
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


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_clips_have_a_length(tmp_path, seconds):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other_1.t7")
    with pytest.raises(UserError, match="--clip_seconds must be above 0 and finite"):
        load_run(tmp_path, clip_seconds=seconds)
