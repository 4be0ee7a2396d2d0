"""ReLER's batches against a plain sample-by-sample reading, and their independence of processes."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ReLER.augment import COLUMNS, Draws, cut_windows, label_units
from ReLER.data import Split, usable_rows
from ReLER.losses import part_labels
from ReLER.model import real_parts
from ReLER.options import SCALES, Options
from ReLER.pooling import temporal_endpoints
from tests.ReLER.conftest import make_records
from utils.features.mapped import FeatureStore
from utils.features.pooled import pool_rows
from utils.features.tokens import Text
from utils.training.processes import Processes
from utils.training.recipes import plan_epoch

ROWS = {"egovlp": [90, 50, 7, 64, 1], "clip": [90, 49, 7, 63, 1]}
CPU = torch.device("cpu")


def whole(rows):
    """All of a batch, as one process computes it."""
    return Processes(0, 1, CPU).shares(rows)[0]


OPTIONS = Options(task="nlq", fv="egovlp", max_v_l=40, nar_exp_factor=2.5, nar_translate=True)


def make_store(lengths, width, dtype=np.float32, seed=0):
    lengths = np.array(lengths)
    joined = np.random.default_rng(seed).standard_normal((lengths.sum(), width)).astype(dtype)
    joined.flags.writeable = False
    return FeatureStore(lengths, np.cumsum(lengths) - lengths, joined)


def numbered(sentences):
    """Token features that say which sentence they are of."""
    mask = torch.arange(8) < 1 + torch.from_numpy(sentences)[:, None] % 8
    return Text(torch.from_numpy(sentences)[:, None, None] * torch.ones(1, 8, 3), mask.float())


def make_split(records, stores, gather=numbered, **changes):
    options = dataclasses.replace(OPTIONS, **changes)
    return Split(records, stores, gather, options, CPU)


def make_draws(seed=3, epoch=1, rows=60):
    return plan_epoch(seed, epoch, rows, COLUMNS).draws


@pytest.fixture(scope="module")
def stores():
    return [make_store(ROWS["egovlp"], 5), make_store(ROWS["clip"], 4, seed=1)]


@pytest.fixture(scope="module")
def records():
    generator = np.random.default_rng(0)
    clip, num_frames = generator.integers(0, 5, 60), np.array(ROWS["egovlp"])
    start = generator.random(60) * (num_frames[clip] / 1.875 * 0.95)
    exact = np.stack((start, start + generator.random(60) * 4), 1)
    return make_records(clip, np.full(5, 1.875), num_frames, exact)


@pytest.fixture(scope="module")
def data(records, stores):
    return make_split(records, stores)


def plain_clip(stores, clip):
    """All rows of a clip: normalised, side by side, the shorter feature padded."""
    rows = max(store.lengths[clip] for store in stores)
    columns = []
    for store in stores:
        features = store.rows(clip).astype(np.float32)
        features = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
        columns.append(np.pad(features, ((0, rows - len(features)), (0, 0))))
    return np.concatenate(columns, 1)


def plain_video(features, units):
    """Pooled to at most so many units, with temporal endpoints."""
    pooled = pool_rows(features, units)
    ends = [[i / len(pooled), (i + 1) / len(pooled)] for i in range(len(pooled))]
    return np.concatenate((pooled, np.array(ends, np.float32)), 1)


def test_predictions_read_whole_clips(data, records, stores):
    rows = np.arange(len(records))
    inputs = data.inputs(rows, CPU)
    units = np.minimum(np.array(ROWS["egovlp"])[records.clip], 40)
    assert inputs.video.shape == (len(rows), 40, data.width) == (len(rows), 40, 11)
    for row in rows:
        expected = plain_video(plain_clip(stores, records.clip[row]), 40)
        n = units[row]
        assert np.allclose(inputs.video[row, :n], expected, atol=1e-6)
        assert not inputs.video[row, n:].any()
        assert inputs.video_mask[row].tolist() == [1] * n + [0] * (40 - n)
    short = np.flatnonzero(records.clip == 2)[:1]
    assert data.inputs(short, CPU).video.shape == (1, 40, 11)  # as long as in any other batch


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_training_batches_are_cut_and_spliced(records, stores, dtype):
    stores = [dataclasses.replace(s, joined=s.joined.astype(dtype)) for s in stores]
    data = make_split(records, stores, nar_exp_factor=1.0, nar_translate=False)
    rows, draws = np.arange(len(records)), make_draws()
    inputs, targets = data.batch(whole(rows), 2, draws, CPU)
    clip_rows = np.array(ROWS["egovlp"])
    cuts, seconds = cut_windows(
        records.clip, records.exact, clip_rows, records.clip, Draws.of(draws)
    )
    units = np.minimum(cuts.rows, 40)
    windows = label_units(seconds, cuts.rows, units)
    assert (cuts.other >= 0).any()
    assert (cuts.other < 0).any()
    for row in rows:
        part = plain_clip(stores, records.clip[row])[cuts.first[row] :][: cuts.length[row]]
        if cuts.other[row] >= 0:
            around = plain_clip(stores, cuts.other[row])
            part = np.concatenate((around[: cuts.cut[row]], part, around[cuts.cut[row] :]))
        expected = plain_video(part, 40)
        tolerance = 1e-6 if dtype == np.float32 else 2e-3
        assert np.allclose(inputs.video[row, : units[row]], expected, atol=tolerance)
        assert not inputs.video[row, units[row] :].any()
    narrated = records.is_narration
    labels = np.stack((targets.start, targets.end), 1)
    assert np.array_equal(labels[~narrated], windows[~narrated])
    assert (labels[narrated] - windows[narrated]).max() <= 1  # width 1 rounds outwards, no more


def test_jitter_widens_narrations_only(data, records, stores):
    plain = make_split(records, stores, nar_exp_factor=1.0)
    rows, draws = np.arange(len(records)), make_draws()
    wide, narrow = (d.batch(whole(rows), 2, draws, CPU)[1] for d in (data, plain))
    changed = (wide.start != narrow.start) | (wide.end != narrow.end)
    assert not changed[~records.is_narration].any()
    assert changed[records.is_narration].float().mean() > 0.5


def is_same(batch, other, rows):
    """Whether `batch` is `rows` of `other`, up to the padding of video and text."""
    (inputs, targets), (other_inputs, other_targets) = batch, other
    columns = (*inputs, targets.highlight)
    others = (*other_inputs, other_targets.highlight)
    for column, whole in zip(columns, others, strict=True):
        assert torch.equal(column, whole[rows][:, : column.shape[1]])
    for mask in (other_inputs.video_mask, other_targets.highlight):
        assert not mask[rows][:, inputs.video.shape[1] :].any()
    for name in ("start", "end", "salient", "unsalient"):
        assert torch.equal(getattr(targets, name), getattr(other_targets, name)[rows]), name
    return True


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 10**9), st.integers(0, 200))
def test_a_sample_is_the_same_in_any_batch_and_after_a_restart(
    data, records, stores, order, seed, epoch
):
    rows, draws = np.array(order), make_draws(seed, epoch)
    batch = data.batch(whole(rows), 2, draws, CPU)
    again = make_split(records, stores)
    for index in (0, 5):
        alone = again.batch(whole(rows[index : index + 1]), 2, make_draws(seed, epoch), CPU)
        assert is_same(alone, batch, slice(index, index + 1))


@pytest.mark.parametrize("parts", SCALES)
def test_parts_total_counts_the_model_s_parts(data, parts):
    inputs, targets = data.batch(whole(np.arange(30)), parts, make_draws(), CPU)
    lengths, padded = inputs.video_mask.sum(1), inputs.video.shape[1]
    assert targets.parts_total == real_parts(lengths, padded, parts).sum()
    labels = part_labels(targets.start, targets.end, padded, parts)
    assert (labels.sum(1) >= 1).all()


def test_compiled_models_get_batches_of_one_shape(data, records, stores):
    padded = make_split(records, stores, compile=True)
    draws, lengths = make_draws(), set()
    for row in range(20):
        one = whole(np.array([row]))
        few, batch = (split.batch(one, 2, draws, CPU) for split in (data, padded))
        assert batch[0].video.shape == (1, 40, 11) and batch[0].text.shape == (1, 16, 3)
        lengths.add((few[0].video.shape[1], few[0].text.shape[1]))
        assert is_same(few, batch, slice(1))
        assert few[1].highlight.sum() == batch[1].highlight.sum()
    assert len(lengths) > 3
    texts = [split.inputs(one.rows, CPU).text for split in (data, padded)]
    assert torch.equal(*texts)  # as before


def test_queries_are_read_whole(records, stores):
    def long(sentences):
        return Text(torch.ones(len(sentences), 76, 3), torch.ones(len(sentences), 76))

    for compiled, tokens in ((False, 76), (True, 80)):
        data = make_split(records, stores, long, compile=compiled)
        inputs, _ = data.batch(whole(np.arange(4)), 2, make_draws(), CPU)
        assert inputs.text.shape == (4, tokens, 3) and (inputs.text_mask.sum(1) == 76).all()


def test_temporal_endpoints_are_the_published_ones(golden):
    published = json.loads((golden / "extra" / "temporal_endpoints.json").read_text())["by_length"]
    lengths = np.array(list(map(int, published)))
    ends = temporal_endpoints(lengths, lengths.max())
    for length, found, expected in zip(lengths, ends.numpy(), published.values(), strict=True):
        np.testing.assert_allclose(found[:length], expected, rtol=0, atol=1e-6)
        assert not found[length:].any()


def test_rows_train_whose_windows_last_and_lie_in_their_clip(records):
    exact = records.exact.copy()
    exact[0] = [3.0, 3.0]  # empty
    exact[1] = [1e4, 1e4 + 1]  # outside its clip
    exact[2] = [2.0, 2.1]  # within a quantum
    exact[3] = [-4e-7, 3.0]
    some = dataclasses.replace(records, exact=exact, timestamps=np.floor(exact * 1.875))
    assert usable_rows(some, "exact")[:4].tolist() == [False, False, True, True]
    assert usable_rows(some, "published")[:4].tolist() == [False, False, False, True]
    assert usable_rows(some, "exact", 0.2)[:4].tolist() == [False, False, False, True]
    length = np.diff(some.seconds)[:, 0]
    assert np.array_equal(usable_rows(some, "published", 1.0), length > 1)


def test_uneven_features_are_named(records, capsys):
    lengths = ROWS["clip"].copy()
    lengths[0] = 80
    data = make_split(records, [make_store(ROWS["egovlp"], 5), make_store(lengths, 4)])
    said = capsys.readouterr().err
    assert "clip0 (90 and 80 rows)" in said
    assert "clip1" not in said
    row = np.flatnonzero(records.clip == 0)[:1]
    assert not data.inputs(row, CPU).video[0, -1, 5:9].any()  # the shorter one is padded
