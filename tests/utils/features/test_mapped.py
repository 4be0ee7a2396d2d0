"""Feature stores: built once, equal to their sources, and never from bad or other files."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.utils.features.feature_sample import LENGTHS, source, write_features
from utils.base.errors import UserError
from utils.features.mapped import open_features
from utils.features.pooled import pool_boundaries, pool_rows, pooled_features


@pytest.fixture
def data(tmp_path):
    return write_features(tmp_path)


def pooled(data, uids=("a", "b", "gone", "c"), units=16, **more):
    return pooled_features(data, "egovlp", list(uids), units, data / "cache", **more)


def joined(data, uids=("a", "b", "gone", "c"), **more):
    return open_features(data, "egovlp", list(uids), data / "cache", **more)


def test_rows_are_pooled_and_missing_clips_are_empty(data):
    store = pooled(data)
    assert store.lengths.tolist() == [16, 7, 0, 16]
    assert store.width == 5
    for clip, uid in ((0, "a"), (1, "b"), (3, "c")):
        means = pool_rows(source(data, uid), 16)
        np.testing.assert_allclose(store.table[clip, : len(means)], means, atol=2e-3)
        assert (store.table[clip, len(means) :] == 0).all()


def test_gather_pads_to_the_longest(data):
    features, mask = pooled(data).gather(np.array([1, 1]))
    assert features.shape == (2, 7, 5) and features.dtype == torch.float32
    assert mask.sum(1).tolist() == [7, 7]
    features, mask = pooled(data).gather(np.array([1, 0]))
    assert features.shape == (2, 16, 5)
    assert mask.sum(1).tolist() == [7, 16]
    assert (features[0, 7:] == 0).all()


def test_joined_rows_are_views_of_the_source(data):
    store = joined(data)
    assert store.lengths.tolist() == [40, 7, 0, 16]
    for clip, uid in ((0, "a"), (1, "b"), (3, "c")):
        np.testing.assert_array_equal(store.rows(clip), source(data, uid))
    assert np.shares_memory(store.rows(0), store.joined)
    assert len(store.rows(2)) == 0


def test_values_too_large_for_half_precision_stay_exact(data):
    file = data / "features/egovlp/b.pt"
    torch.save(torch.full((7, 5), 1e6), file)
    store = pooled(data)
    assert store.table.dtype == torch.float32
    assert (store.table[1, :7] == 1e6).all()


def test_a_store_is_built_once_and_again_when_a_file_changes(data):
    pooled(data)
    (store,) = (data / "cache").glob("pooled-*/pooled.npy")
    before = store.stat().st_mtime_ns
    pooled(data)
    assert store.stat().st_mtime_ns == before
    torch.save(torch.ones(7, 5), data / "features/egovlp/b.pt")
    assert (pooled(data).table[1, :7] == 1).all()
    assert len(list((data / "cache").glob("pooled-*/pooled.npy"))) == 2


def test_files_are_not_opened_once_stored(data, monkeypatch):
    pooled(data)
    joined(data)
    monkeypatch.setattr("utils.features.files.load_safely", lambda *_, **__: pytest.fail("opened"))
    pooled(data)
    joined(data)


def test_half_precision_stays_unless_mixed(data):
    folder = data / "features/egovlp"
    for uid in LENGTHS:
        torch.save(torch.from_numpy(source(data, uid)).half(), folder / f"{uid}.pt")
    assert joined(data).joined.dtype == np.float16
    torch.save(torch.full((16, 5), 1e6), folder / "c.pt")
    store = joined(data)
    assert store.joined.dtype == np.float32
    assert (store.rows(3) == 1e6).all()
    np.testing.assert_array_equal(store.rows(0), source(data, "a"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
def test_other_precisions_and_files_of_old_torch_are_read_as_single(data, dtype):
    features, is_new = torch.from_numpy(source(data, "b")).to(dtype), dtype != torch.float32
    file = data / "features/egovlp/b.pt"
    torch.save(features, file, _use_new_zipfile_serialization=is_new)
    np.testing.assert_array_equal(joined(data).rows(1), features.float().numpy())


def test_random_features_follow_from_clip_and_seed(data):
    store = pooled(data)
    random, other = (pooled(data, random_seed=seed) for seed in (3, 4))
    assert random.lengths.tolist() == store.lengths.tolist()
    assert not torch.allclose(random.table[0], store.table[0])
    assert not torch.allclose(random.table[0], other.table[0])
    assert not torch.allclose(random.table[0, :7], random.table[1, :7])
    assert (random.table[1, 7:] == 0).all() and (random.table[2] == 0).all()
    again = pooled(data, ["c", "a"], random_seed=3)
    assert torch.equal(random.table[[3, 0]], again.table)


def test_several_bad_files_are_named_and_counted(data):
    folder = data / "features/egovlp"
    uids = [f"clip{n}" for n in range(9)]
    for uid in uids[:5]:
        torch.save(torch.full((4, 5), torch.inf), folder / f"{uid}.pt")
    for uid in uids[5:]:
        torch.save(torch.ones(4, 5), folder / f"{uid}.pt")
    with pytest.raises(UserError, match=r"^5 of 9 clips .*clip0\.pt.*clip2\.pt.*; and 2 more$"):
        pooled(data, uids)


def test_wrong_requests_are_refused(data):
    with pytest.raises(UserError, match=r"no such features \(there: egovlp\)"):
        pooled_features(data, "slowfast", ["a"], 16, data / "cache")
    for name in ("../egovlp", "..", "", "a/b"):
        with pytest.raises(UserError, match="plain folder name"):
            pooled_features(data, name, ["a"], 16, data / "cache")
    with pytest.raises(UserError, match="features of none of the 1 clips"):
        pooled(data, ["gone"])
    with pytest.raises(UserError, match="features are 5 wide, --video_feature_dim says 256"):
        pooled(data, width=256)
    assert not list((data / "cache").glob("pooled-*/"))
    pooled(data, width=5)
    with pytest.raises(UserError, match="features are 5 wide, --video_feature_dim says 256"):
        pooled(data, width=256)


def test_rows_that_do_not_fit_the_durations_are_said(data, capsys):
    rates = np.array([40, 7, 1, 16]) / 1.875
    pooled(data, durations=rates)
    assert capsys.readouterr().err.count("warning") == 0
    pooled(data, durations=rates * 2)
    warning = capsys.readouterr().err
    assert "rows of 3 of 3 clips do not fit" in warning and "a: 40 rows" in warning
    (data / "features/egovlp/feature_card.json").write_text('{"frame_rate": 30, "stride": 32}')
    pooled(data, durations=rates * 2)
    assert "warning" not in capsys.readouterr().err


def test_pooling_gives_the_published_numbers(golden):
    for case in json.loads((golden / "spans.json").read_text())["pooling"]:
        rows, units = case["rows"], case["max_units"]
        pooled = pool_rows(np.arange(rows, dtype=np.float32)[:, None], units)
        np.testing.assert_allclose(pooled[:, 0], case["pooled_row_numbers"], atol=1e-4)
        if rows > units:
            assert pool_boundaries(rows, units).tolist() == case["boundaries"]


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 1000))
def test_units_are_means_of_segments(rows, units, seed):
    features = np.random.default_rng(seed).standard_normal((rows, 3), np.float32)
    pooled = pool_rows(features, units)
    assert pooled.shape == (min(rows, units), 3)
    if rows <= units:
        assert (pooled == features).all()
        return
    edges = pool_boundaries(rows, units)
    for unit in range(units):
        first, last = edges[unit], max(edges[unit + 1], edges[unit] + 1)
        np.testing.assert_allclose(pooled[unit], features[first:last].mean(0), atol=1e-4)


def test_half_precision_rows_are_summed_in_single():
    features = np.full((4000, 1), 60_000, np.float16)
    assert np.isfinite(pool_rows(features, 2)).all()
