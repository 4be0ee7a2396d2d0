"""Feature stores: built once, equal to their sources, and never from bad or other files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.features import open_features, pooled_features
from utils.pooling import pool_rows

LENGTHS = {"a": 40, "b": 7, "c": 16}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "features" / "egovlp"
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for uid, rows in LENGTHS.items():
        torch.save(torch.randn(rows, 5, generator=draw), folder / f"{uid}.pt")
    (folder / "feature_shapes.json").write_text(json.dumps(LENGTHS))
    return tmp_path


def source(data, uid):
    return torch.load(data / "features/egovlp" / f"{uid}.pt", weights_only=True).numpy()


def pooled(data, uids=("a", "b", "gone", "c"), units=16, **more):
    return pooled_features(data, "egovlp", list(uids), units, data / "cache", **more)


def joined(data, uids=("a", "b", "gone", "c"), **more):
    return open_features(data, "egovlp", list(uids), data / "cache", **more)


def test_pooled_rows_and_missing_clips(data):
    store = pooled(data)
    assert store.lengths.tolist() == [16, 7, 0, 16]
    assert store.missing == ["gone"]
    assert store.width == 5
    for place, uid in ((0, "a"), (1, "b"), (3, "c")):
        means = pool_rows(source(data, uid), 16)
        np.testing.assert_allclose(store.pooled[place, : len(means)], means, atol=2e-3)
        assert (store.pooled[place, len(means) :] == 0).all()


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
    assert store.missing == ["gone"]
    for place, uid in ((0, "a"), (1, "b"), (3, "c")):
        np.testing.assert_array_equal(store.rows(place), source(data, uid))
        np.testing.assert_array_equal(store.rows(place, 2, 5), source(data, uid)[2:5])
    assert np.shares_memory(store.rows(0), store.joined)
    assert len(store.rows(2)) == 0


def test_values_too_large_for_half_precision_stay_exact(data):
    file = data / "features/egovlp/b.pt"
    torch.save(torch.full((7, 5), 1e6), file)
    store = pooled(data)
    assert store.pooled.dtype == np.float32
    assert (store.pooled[1, :7] == 1e6).all()


def test_built_once_and_again_when_a_file_changes(data):
    pooled(data)
    (store,) = (data / "cache").glob("pooled-*/pooled.npy")
    before = store.stat().st_mtime_ns
    pooled(data)
    assert store.stat().st_mtime_ns == before
    torch.save(torch.ones(7, 5), data / "features/egovlp/b.pt")
    assert (pooled(data).pooled[1, :7] == 1).all()
    assert len(list((data / "cache").glob("pooled-*/pooled.npy"))) == 2


@pytest.mark.parametrize("harm", ["cut", "no card", "garbage card"])
def test_torn_store_is_built_again(data, harm):
    expected = np.array(pooled(data).pooled)
    (store,) = (data / "cache").glob("pooled-*/")
    if harm == "cut":
        content = (store / "pooled.npy").read_bytes()
        (store / "pooled.npy").write_bytes(content[:-7])
    elif harm == "no card":
        (store / "card.json").unlink()
        (store / "pooled.npy").write_bytes(b"")
    else:
        (store / "card.json").write_text("[1, 2")
    np.testing.assert_array_equal(pooled(data).pooled, expected)


def test_processes_that_build_the_same_store_do_not_collide(data, root):
    program = (
        "import sys; from pathlib import Path; from utils.features import pooled_features; "
        "d = Path(sys.argv[1]); "
        "print(pooled_features(d, 'egovlp', ['a', 'b', 'c'], 16, d / 'cache').pooled.sum())"
    )
    several = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(data)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(3)
    ]
    said = {process.communicate(timeout=60)[0] for process in several}
    assert len(said) == 1 and "" not in said
    stores = [p.name for p in (data / "cache").iterdir() if not p.name.endswith(".lock")]
    assert len(stores) == 1


def test_random_features_keep_the_clips(data):
    store = pooled(data)
    random = store.randomised(3)
    assert random.lengths.tolist() == store.lengths.tolist()
    assert not np.allclose(random.pooled[0], store.pooled[0])
    np.testing.assert_array_equal(random.pooled, store.randomised(3).pooled)
    assert (random.pooled[1, 7:] == 0).all()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.full((7, 5), torch.nan), "NaN or infinite values in row 0"),
        (torch.ones(7, 4), "features are 4 wide, those of a are 5"),
        (torch.ones(0, 5), "features are empty"),
        (torch.ones(7), r"not a tensor \(rows, width\)"),
        (torch.ones(7, 5, dtype=torch.int64), "is an integer tensor"),
        ([1, 2], "is list"),
        (Hostile(), r"refused, it holds a posix\.system"),
        (torch.ones(9, 5), "has 9 rows, feature_shapes.json says 7"),
    ],
)
@pytest.mark.parametrize("read", [pooled, joined])
def test_bad_files_are_named(data, content, words, read, monkeypatch):
    monkeypatch.chdir(data)
    torch.save(content, data / "features/egovlp/b.pt")
    with pytest.raises(UserError, match=rf"b\.pt: .*{words}"):
        read(data)
    assert not (data / "canary").exists()
    left = [path for path in (data / "cache").glob("*") if path.suffix != ".lock"]
    assert left == []


def test_wrong_requests(data):
    with pytest.raises(UserError, match=r"no such features \(there: egovlp\)"):
        pooled_features(data, "slowfast", ["a"], 16, data / "cache")
    with pytest.raises(UserError, match="plain folder name"):
        pooled_features(data, "../egovlp", ["a"], 16, data / "cache")
    with pytest.raises(UserError, match="features of none of the 1 clips"):
        pooled(data, ["gone"])
    with pytest.raises(UserError, match="features are 5 wide, --video_feature_dim says 256"):
        pooled(data, width=256)


def test_rows_that_do_not_fit_the_durations_are_said(data, capsys):
    rates = np.array([40, 7, 1, 16]) / 1.875
    pooled(data, durations=rates)
    assert capsys.readouterr().err.count("warning") == 0
    pooled(data, durations=rates * 2)
    said = capsys.readouterr().err
    assert "rows of 3 of 3 clips do not fit" in said and "a: 40 rows" in said
    (data / "features/egovlp/feature_card.json").write_text('{"frame_rate": 30, "stride": 32}')
    pooled(data, durations=rates * 2)
    assert "warning" not in capsys.readouterr().err
