"""ReLER's batches against a plain sample-by-sample reading, and their independence of processes."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ReLER.augment import cut_windows, draw, label_units, salient_spans
from ReLER.data import (
    ClipData,
    Key,
    temporal_endpoints,
    trained_rows,
)
from ReLER.losses import part_labels
from ReLER.model import real_parts
from ReLER.options import SCALES, Options
from utils.data.records import Records
from utils.data.spans import exact_unit_windows, highlight_windows
from utils.features.mapped import FeatureStore, pool_rows
from utils.features.tokens import Text
from utils.training.processes import Processes

ROWS = {"egovlp": [90, 50, 7, 64, 1], "clip": [90, 49, 7, 63, 1]}
OPTIONS = Options(task="nlq", fv="egovlp", max_v_l=40, nar_exp_factor=2.5, nar_translate=True)


def make_store(lengths, width, dtype=np.float32, seed=0):
    lengths = np.array(lengths)
    joined = np.random.default_rng(seed).standard_normal((lengths.sum(), width)).astype(dtype)
    joined.flags.writeable = False
    uids = [f"clip{i}" for i in range(len(lengths))]
    return FeatureStore(uids, lengths, np.cumsum(lengths) - lengths, joined)


def numbered_text(sentences, device):
    """Token features that say which sentence they are of."""
    mask = torch.arange(8) < 1 + torch.from_numpy(sentences)[:, None] % 8
    return Text(torch.from_numpy(sentences)[:, None, None] * torch.ones(1, 8, 3), mask.float())


def make_records(queries=60, clips=5, seed=0):
    generator = np.random.default_rng(seed)
    clip = generator.integers(0, clips, queries).astype(np.int32)
    num_frames = np.array(ROWS["egovlp"][:clips])
    start = generator.random(queries) * (num_frames[clip] / 1.875 * 0.95)
    exact = np.stack((start, start + generator.random(queries) * 4), 1)
    numbers = np.arange(queries, dtype=np.int32)
    return Records(
        clip_uids=[f"clip{i}" for i in range(clips)],
        sentences=[f"{'#c c ' if i % 2 else ''}sentence {i}?" for i in range(queries)],
        annotation_uids=["a"],
        fps=np.full(clips, 1.875),
        num_frames=num_frames,
        clip=clip,
        sentence=numbers,
        annotation=np.zeros(queries, np.int32),
        query_idx=numbers,
        timestamps=np.floor(exact * 1.875),
        exact=exact,
        is_narration=numbers % 2 == 1,
    )


@pytest.fixture(scope="module")
def stores():
    return {"egovlp": make_store(ROWS["egovlp"], 5), "clip": make_store(ROWS["clip"], 4, seed=1)}


@pytest.fixture(scope="module")
def records():
    return make_records()


@pytest.fixture(scope="module")
def data(records, stores):
    return ClipData(records, stores, numbered_text, OPTIONS)


def plain_clip(stores, clip):
    """All rows of a clip: normalised, side by side, the shorter feature padded."""
    rows = max(store.lengths[clip] for store in stores.values())
    columns = []
    for store in stores.values():
        features = store.rows(clip).astype(np.float32)
        features = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
        columns.append(np.pad(features, ((0, rows - len(features)), (0, 0))))
    return np.concatenate(columns, 1)


def plain_video(features, units):
    """Pooled to at most so many units, with temporal endpoints."""
    pooled = pool_rows(features, units)
    ends = [[i / len(pooled), (i + 1) / len(pooled)] for i in range(len(pooled))]
    return np.concatenate((pooled, np.array(ends, np.float32)), 1)


def test_evaluation_batches_are_whole_clips(data, records, stores):
    rows = np.arange(len(records))
    batch = data.batch(rows)
    units = np.minimum(np.array(ROWS["egovlp"])[records.clip], 40)
    assert batch.video.shape == (len(rows), 40, data.width) == (len(rows), 40, 11)
    for row in rows:
        expected = plain_video(plain_clip(stores, records.clip[row]), 40)
        n = units[row]
        assert np.allclose(batch.video[row, :n], expected, atol=1e-6)
        assert not batch.video[row, n:].any()
        assert batch.video_mask[row].tolist() == [1] * n + [0] * (40 - n)
    windows = exact_unit_windows(records.exact, records.duration, units)
    assert np.array_equal(np.stack((batch.targets.start, batch.targets.end), 1), windows)
    lit = highlight_windows(windows, units)
    for row in rows:
        assert torch.nonzero(batch.targets.highlight[row])[[0, -1], 0].tolist() == lit[row].tolist()
    assert batch.targets.units_total == units.sum()
    short = np.flatnonzero(records.clip == 2)[:1]
    assert data.batch(short).video.shape == (1, 40, 11)  # as long as in any other batch


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_training_batches_are_cut_and_spliced(records, stores, dtype):
    stores = {
        name: dataclasses.replace(s, joined=s.joined.astype(dtype)) for name, s in stores.items()
    }
    options = dataclasses.replace(OPTIONS, nar_exp_factor=1.0, nar_translate=False)
    data = ClipData(records, stores, numbered_text, options)
    rows, key = np.arange(len(records)), Key(3, 1)
    batch = data.batch(rows, key=key)
    clip_rows = np.array(ROWS["egovlp"])
    draws = draw(*key, rows)
    cuts, seconds = cut_windows(records.clip, records.exact, clip_rows, records.clip, draws)
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
        assert np.allclose(batch.video[row, : units[row]], expected, atol=tolerance)
        assert not batch.video[row, units[row] :].any()
    narrated = records.is_narration
    found = np.stack((batch.targets.start, batch.targets.end), 1)
    assert np.array_equal(found[~narrated], windows[~narrated])
    assert (found[narrated] - windows[narrated]).max() <= 1  # width 1 rounds outwards, no more


def test_jitter_widens_narrations_only(records, stores):
    data = ClipData(records, stores, numbered_text, OPTIONS)
    plain = ClipData(records, stores, numbered_text, dataclasses.replace(OPTIONS, nar_exp_factor=1))
    rows, key = np.arange(len(records)), Key(0, 0)
    wide, narrow = (d.batch(rows, key=key).targets for d in (data, plain))
    changed = (wide.start != narrow.start) | (wide.end != narrow.end)
    assert not changed[~records.is_narration].any()
    assert changed[records.is_narration].float().mean() > 0.5


def test_saliency_units_lie_inside_and_outside(data, records):
    for key in (None, Key(1, 2)):
        batch = data.batch(np.arange(len(records)), key=key)
        targets, units = batch.targets, batch.video_mask.sum(1).long()
        window = np.stack((targets.start, targets.end), 1)
        first, last = torch.from_numpy(salient_spans(window, units.numpy())).T[..., None]
        assert ((targets.salient >= first) & (targets.salient <= last)).all()
        inside = (targets.unsalient >= first) & (targets.unsalient <= last)
        assert (targets.unsalient[inside] == 0).all()  # fewer than two are outside
        assert inside.float().mean() < 0.3


def data_stores(data):
    return {str(number): table.store for number, table in enumerate(data._tables)}


def same(batch, other, rows):
    """Whether `batch` is `rows` of `other`, up to the padding of the text."""
    for name in ("video", "video_mask"):
        assert torch.equal(getattr(batch, name), getattr(other, name)[rows]), name
    tokens = batch.text.shape[1]
    assert torch.equal(batch.text, other.text[rows][:, :tokens])
    for found, expected in zip(batch.targets[:5], other.targets[:5], strict=True):
        assert torch.equal(found, expected[rows])


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_a_batch(data, size):
    rows, key = np.random.default_rng(5).permutation(60)[:21], Key(2018, 7)
    whole = data.batch(rows[: 21 // size * size], parts=4, key=key)
    share = 21 // size
    for rank in range(size):
        processes = Processes(rank, size, torch.device("cpu"))
        batch = data.batch(rows, 4, key, processes)
        same(batch, whole, slice(rank * share, (rank + 1) * share))
        assert batch.targets.units_total * size == pytest.approx(whole.targets.units_total)
        assert batch.targets.parts_total * size == pytest.approx(whole.targets.parts_total)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 10**9), st.integers(0, 200))
def test_a_sample_is_the_same_in_any_batch_and_after_a_restart(
    data, records, stores, order, seed, epoch
):
    rows, key = np.array(order), Key(seed, epoch)
    batch = data.batch(rows, key=key)
    again = ClipData(records, stores, numbered_text, OPTIONS)
    for place in (0, 5):
        alone = again.batch(rows[place : place + 1], key=key)
        n = int(alone.video_mask.sum())
        assert torch.equal(alone.video[0], batch.video[place, :n])
        for found, expected in zip(alone.targets[:5], batch.targets[:5], strict=True):
            there = slice(n) if found.ndim > 1 and found.shape[1] == n else ...
            assert torch.equal(found[0], expected[place][there])


def test_keys_change_the_sample(data):
    rows = np.arange(10)
    videos = [data.batch(rows, key=Key(*key)).video for key in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(videos[0], videos[1])
    assert not torch.equal(videos[0], videos[2])


@pytest.mark.parametrize("parts", SCALES)
def test_parts_total_counts_the_model_s_parts(data, parts):
    batch = data.batch(np.arange(30), parts, Key(0, 0))
    lengths = batch.video_mask.sum(1)
    padded = batch.video.shape[1]
    assert batch.targets.parts_total == real_parts(lengths, padded, parts).sum()
    labels = part_labels(batch.targets.start, batch.targets.end, padded, parts)
    assert (labels.sum(1) >= 1).all()


def test_features_may_stay_unscaled(records, stores):
    options = dataclasses.replace(OPTIONS, no_norm_vfeat=True, max_v_l=100)
    batch = ClipData(records, stores, numbered_text, options).batch(np.arange(3))
    row = stores["egovlp"].rows(records.clip[0])
    assert np.array_equal(batch.video[0, : len(row), :5], row)


def test_compiled_models_get_batches_of_one_shape(data, records, stores):
    padded = ClipData(records, stores, numbered_text, dataclasses.replace(OPTIONS, compile=True))
    lengths = set()
    for rows in np.arange(20)[:, None]:
        few, batch = data.batch(rows, key=Key(3, 1)), padded.batch(rows, key=Key(3, 1))
        assert batch.video.shape == (1, 40, 11) and batch.text.shape == (1, 16, 3)
        lengths.add((few.video.shape[1], few.text.shape[1]))
        for whole, part in zip(batch[:4], few[:4], strict=True):
            assert torch.equal(whole[:, : part.shape[1]], part)
            assert not whole[:, part.shape[1] :].any()
        lit, part = batch.targets.highlight, few.targets.highlight
        assert torch.equal(lit[:, : part.shape[1]], part) and lit.sum() == part.sum()
    assert len(lengths) > 3
    assert torch.equal(padded.batch(rows).text, data.batch(rows).text)  # of predictions: as before


def test_queries_are_read_whole(records, stores):
    def long_text(sentences, device):
        return Text(torch.ones(len(sentences), 76, 3), torch.ones(len(sentences), 76))

    rows, key = np.arange(4), Key(0, 0)
    for compiled, tokens in ((False, 76), (True, 80)):
        options = dataclasses.replace(OPTIONS, compile=compiled)
        batch = ClipData(records, stores, long_text, options).batch(rows, key=key)
        assert batch.text.shape == (4, tokens, 3) and (batch.text_mask.sum(1) == 76).all()


def test_temporal_endpoints_are_the_published_ones(golden):
    published = json.loads((golden / "extra" / "temporal_endpoints.json").read_text())["by_length"]
    lengths = np.array(list(map(int, published)))
    ends = temporal_endpoints(lengths, lengths.max())
    for length, found, expected in zip(lengths, ends.numpy(), published.values(), strict=True):
        np.testing.assert_allclose(found[:length], expected, rtol=0, atol=1e-6)
        assert not found[length:].any()


def test_labels_come_from_exact_times_whichever_rows_train(data, records):
    blurred = dataclasses.replace(records, timestamps=records.timestamps * 0)
    rows, key = np.arange(len(records)), Key(1, 1)
    again = ClipData(blurred, data_stores(data), numbered_text, OPTIONS).batch(rows, key=key)
    assert torch.equal(again.targets.start, data.batch(rows, key=key).targets.start)


def test_which_rows_train(records):
    exact = records.exact.copy()
    exact[0] = [3.0, 3.0]  # empty
    exact[1] = [1e4, 1e4 + 1]  # outside its clip
    exact[2] = [2.0, 2.1]  # within a quantum
    exact[3] = [-4e-7, 3.0]
    some = dataclasses.replace(records, exact=exact, timestamps=np.floor(exact * 1.875))
    assert trained_rows(some, "exact")[:4].tolist() == [False, False, True, True]
    assert trained_rows(some, "published")[:4].tolist() == [False, False, False, True]
    assert trained_rows(some, "exact", 0.2)[:4].tolist() == [False, False, False, True]
    length = np.diff(some.seconds)[:, 0]
    assert np.array_equal(trained_rows(some, "published", 1.0), length > 1)


def test_uneven_features_are_named(records, capsys):
    lengths = ROWS["clip"].copy()
    lengths[0] = 80
    stores = {"egovlp": make_store(ROWS["egovlp"], 5), "clip": make_store(lengths, 4)}
    data = ClipData(records, stores, numbered_text, OPTIONS)
    said = capsys.readouterr().err
    assert "clip0 (90 and 80 rows)" in said
    assert "clip1" not in said
    row = np.flatnonzero(records.clip == 0)[:1]
    assert not data.batch(row).video[0, -1, 5:9].any()  # the shorter one is padded
