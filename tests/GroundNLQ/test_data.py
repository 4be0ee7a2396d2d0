"""Batches: published jitter, groups of like length, the same numbers however they are cut."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from GroundNLQ.absent import AbsentMoments
from GroundNLQ.data import crops, jitter, open_split
from GroundNLQ.losses import losses
from GroundNLQ.options import Options
from GroundNLQ.points import label_points, make_points
from GroundNLQ.text import clean, open_text
from GroundNLQ.weights import build_model
from utils.data.words import content_words
from utils.training.processes import Processes

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
SHAPE = {"dim": 16, "num_heads": 2, "arch": [1, 1, 1, 0, 2], "text_encoder": "minilm"}


def split_of(data, cache, task="nlq_aug_naq_official_v1", **settings):
    values = {"task": task, "fv": "egovlp+clip", "data_root": str(data), "cache_dir": str(cache)}
    options = Options(**values, **SHAPE, **settings)
    return open_split(options, "train", open_text(options), ALONE.device, tolerant=True)


@pytest.fixture(scope="module")
def split(simulated, tmp_path_factory):
    """A training split with clips of two features."""
    return split_of(simulated, tmp_path_factory.mktemp("cache"), nar_exp_factor=10.0)


def test_jitter_is_the_published_one(folder):
    cases = json.loads((folder / "jitter_groundnlq.json").read_text())
    columns = {name: n for n, name in enumerate(cases["columns"])}
    rows = np.array(cases["rows"])
    start, end, k, u = (rows[:, columns[name]] for name in ("start", "end", "k", "u"))
    draws = np.stack(((k - 0.5) / 10, (u + 1) / 2), 1)
    jittered = jitter(np.stack((start, end), 1), draws, 10.0, is_whole=True, translate=True)
    np.testing.assert_allclose(jittered, rows[:, 4:6], rtol=1e-12)


def test_jitter_may_be_as_for_the_other_models():
    windows = np.array([[10.0, 12.0], [30.0, 31.0]])
    draws = np.array([[0.5, 0.0], [0.999, 0.999]])
    jittered = jitter(windows, draws, 5.0, is_whole=False, translate=True)
    assert jittered[0].tolist() == pytest.approx([10, 16])
    assert jittered[1].tolist() == pytest.approx([26.008, 31.004], abs=1e-3)
    assert jitter(windows, draws, 1.0, is_whole=True, translate=True) == pytest.approx(windows)


def test_crops_hold_the_middle_of_the_window():
    draws = np.random.default_rng(0)
    rows = draws.integers(1, 300, 500)
    middle, half = draws.random(500) * rows, draws.random(500) * 400
    windows = np.stack((middle - half, middle + half), 1)
    first_row, row_count = crops(windows, rows, draws.random((500, 2)), (0.2, 0.6))
    assert (row_count >= 0.2 * rows).all() and (row_count <= np.ceil(0.6 * rows)).all()
    assert (first_row >= 0).all() and (first_row + row_count <= rows).all()
    assert (first_row <= middle).all() and (middle < first_row + row_count).all()
    first_row, row_count = crops(windows, rows, draws.random((500, 2)), (1.0, 1.0))
    assert not first_row.any() and (row_count == rows).all()


def test_queries_are_cleaned_as_published():
    assert [clean(f"{text}?") for text in ("where is it", "#c c walks.")] == [
        "where is it?", "#c c walks?",
    ]  # fmt: skip


def test_groups_hold_the_batch(split):
    rows = np.arange(len(split.records))
    draws = np.random.default_rng(0).random((len(rows), 4))
    groups, positives = split.batch(*ALONE.shares(rows), draws, CPU)
    assert sum(len(inputs.video) for inputs, _ in groups) == len(rows)
    assert positives == sum(int(targets.positive.sum()) for _, targets in groups)
    for inputs, targets in groups:
        assert targets.positive.any(1).all()  # none is left out
        assert inputs.video.shape[2] == split.width == 256 + 512
        assert not inputs.video[inputs.video_mask == 0].any()
        assert (inputs.video_mask[:, -1] == 0).all()


def test_a_batch_of_crops_holds_their_rows_and_windows(split):
    options = dataclasses.replace(split.options, crop_ratio=(0.3, 0.5))
    part = dataclasses.replace(split, options=options)
    rows, draws = np.arange(4), np.random.default_rng(0).random((len(split.records), 4))
    clips, windows = split.records.clip[rows], split.windows(rows, draws)
    first_row, row_count = crops(windows, split.clip_rows[clips], draws[rows, 2:], (0.3, 0.5))
    (group,), _ = part.batch(*ALONE.shares(rows), draws, CPU)
    inputs, targets = group
    whole, _ = split.video(clips, int(split.clip_rows.max()), CPU)
    points = make_points(inputs.video.shape[1], split.options.levels)
    windows = (windows - first_row[:, None])[:, None]
    labels = label_points(points, windows, row_count, nearest=True)
    np.testing.assert_array_equal(targets.positive, labels[0])
    for row, (begin, length) in enumerate(zip(first_row, row_count, strict=True)):
        assert inputs.video_mask[row].sum() == length
        torch.testing.assert_close(inputs.video[row, :length], whole[row, begin : begin + length])


def test_groups_and_fixed_length_give_the_same_loss(split, simulated, tmp_path):
    fixed = split_of(
        simulated, tmp_path, nar_exp_factor=10.0, published="fixed_length", max_seq_len=512
    )
    draws = np.random.default_rng(0).random((len(split.records), 4))
    model = build_model(split.options, split.width, split.text_width).eval()
    sums = []
    for one in (split, fixed):
        groups, positives = one.batch(*ALONE.shares(np.arange(6)), draws, CPU)
        with torch.inference_mode():
            parts = [losses(model(*inputs), *targets, 100.0).total for inputs, targets in groups]
        sums.append((positives, sum(parts).item()))
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)


def test_clips_longer_than_the_fixed_length_are_refused(simulated, tmp_path):
    fixed = split_of(simulated, tmp_path, published="fixed_length", max_seq_len=64)
    with pytest.raises(Exception, match=r"more than --max_seq_len 64; without"):
        fixed.batch(*ALONE.shares(np.arange(6)), np.zeros((len(fixed.records), 4)), CPU)


SHARE = 0.4


@pytest.fixture(scope="module")
def absent_split(simulated, tmp_path_factory):
    """A training split with queries whose clip does not hold their moment."""
    return split_of(simulated, tmp_path_factory.mktemp("cache"), absent=SHARE)


def test_another_clip_does_not_narrate_the_moment(absent_split):
    records = absent_split.records
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


def test_a_question_is_compared_by_the_words_that_narrations_have(absent_split):
    records = absent_split.records
    moments = AbsentMoments(records)
    questions = np.flatnonzero(~records.is_narration)
    held = [moments.holds(records.clip[row], records.sentence[row]) for row in questions]
    assert np.mean(held) > 0.5  # most moments asked for are narrated in their clip


def test_absent_moments_have_no_positive_points(absent_split):
    rows = np.arange(len(absent_split.records))
    draws = np.random.default_rng(0).random((len(rows), 6))
    _, absent = absent_split.absent_moments.replace_clips(rows, draws[:, 4:], SHARE)
    groups, positives = absent_split.batch(*ALONE.shares(rows), draws, CPU)
    counts = torch.cat([targets.positive.sum(1) for _, targets in groups])
    assert int((counts == 0).sum()) == absent.sum() > 0
    assert positives == int(counts.sum())
