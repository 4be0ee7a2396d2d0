"""Training queries whose clip does not hold their moment."""

import numpy as np
import pytest
import torch

from GroundNLQ.absent import AbsentMoments
from tests.GroundNLQ.test_data import ALONE, CPU, split_of
from utils.data.words import content_words

SHARE = 0.4


@pytest.fixture(scope="module")
def split(simulated, tmp_path_factory):
    return split_of(simulated, tmp_path_factory.mktemp("cache"), absent=SHARE)


def test_another_clip_does_not_narrate_the_moment(split):
    records = split.records
    rows = np.arange(len(records))
    draws = np.random.default_rng(0).random((len(rows), 2))
    clips, absent = AbsentMoments(records).replace_clips(rows, draws, SHARE)
    assert SHARE / 2 < absent.mean() <= (draws[:, 0] < SHARE).mean()
    assert (clips[~absent] == records.clip[~absent]).all()
    narrated = [set() for _ in records.clip_uids]
    for clip, sentence in zip(records.clip, records.sentence, strict=True):
        if records.sentences[sentence].startswith("#"):
            narrated[clip].add(frozenset(content_words(records.sentences[sentence])))
    for row in np.flatnonzero(absent & records.is_narration):
        words = set(content_words(records.sentences[records.sentence[row]]))
        assert clips[row] != records.clip[row]
        assert not any(words <= narration for narration in narrated[clips[row]])


def test_a_question_is_compared_by_the_words_that_narrations_have(split):
    records = split.records
    moments = AbsentMoments(records)
    questions = np.flatnonzero(~records.is_narration)
    held = [moments.holds(records.clip[row], records.sentence[row]) for row in questions]
    assert np.mean(held) > 0.5  # most moments asked for are narrated in their clip


def test_absent_moments_have_no_positive_points(split):
    rows = np.arange(len(split.records))
    draws = np.random.default_rng(0).random((len(rows), 6))
    _, absent = split.absent_moments.replace_clips(rows, draws[:, 4:], SHARE)
    groups, positives = split.batch(*ALONE.shares(rows), draws, CPU)
    counts = torch.cat([targets.positive.sum(1) for _, targets in groups])
    assert int((counts == 0).sum()) == absent.sum() > 0
    assert positives == int(counts.sum())
