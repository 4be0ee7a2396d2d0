"""Packed features: what the folder gives, and one line for a file that is something else."""

import os

import h5py
import numpy as np
import pytest

from tests.utils.features.feature_sample import LENGTHS, source, write_features
from utils.base.errors import UserError
from utils.features.mapped import open_features
from utils.features.pooled import pooled_features

WANTED = ["a", "b", "gone", "c"]


def pack(file, features, **more):
    """Write a packed feature file, its clips in the order given."""
    rows = np.concatenate(list(features.values()))
    with h5py.File(file, "w") as packed:
        packed.create_dataset("rows", data=rows, **more)
        packed["clip_uids"] = list(features)
        packed["offsets"] = np.cumsum([0, *map(len, features.values())])
        packed.attrs.update(frame_rate=30.0, stride=16, width=rows.shape[1], model="made up")


@pytest.fixture
def data(tmp_path):
    """A folder of features, and the same in one file, beside others, in another order."""
    write_features(tmp_path)
    order = ("c", "unwanted", "b", "a")
    features = {u: np.ones((3, 5), "f4") if u == "unwanted" else source(tmp_path, u) for u in order}
    pack(tmp_path / "features/packed.h5", features)
    return tmp_path


def opened(data, uids=WANTED, name="packed", **more):
    return open_features(data, name, list(uids), data / "cache", **more)


def test_a_packed_file_gives_what_the_folder_gives(data):
    store, expected = opened(data), opened(data, name="egovlp")
    assert store.width == 5 and store.lengths.tolist() == expected.lengths.tolist()
    for clip in range(4):
        np.testing.assert_array_equal(store.rows(clip), expected.rows(clip))
    pool, same = (
        pooled_features(data, name, WANTED, 16, data / "cache") for name in ("packed", "egovlp")
    )
    np.testing.assert_array_equal(pool.table, same.table)
    assert pool.lengths.tolist() == same.lengths.tolist()


def test_a_packed_file_is_mapped_and_not_copied_and_preferred(data):
    file = data / "features/packed.h5"
    assert opened(data).joined.filename == file
    assert sum(f.stat().st_size for f in (data / "cache").glob("checked-packed-*/*")) < 500
    pack(file, {uid: source(data, uid).astype(np.float16) for uid in LENGTHS})
    assert opened(data).joined.dtype == np.float16
    file.rename(data / "features/egovlp.h5")
    assert opened(data, name="egovlp").joined.filename == data / "features/egovlp.h5"


def put(name, value, **more):
    """Another data set under a name."""

    def harm(packed):
        del packed[name]
        packed.create_dataset(name, data=value, **more)

    return harm


def link(name, target):
    def harm(packed):
        del packed[name]
        packed[name] = target

    return harm


def sizes_beyond_the_file(packed):
    """A data set that was never written may be declared as large as one likes."""
    del packed["rows"]
    packed.create_dataset("rows", (10**12, 5), "f4")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (put("clip_uids", ["a", "a", "b", "c"]), "holds a clip twice"),
        (put("offsets", [0, 16, 19, 26, 67]), "offsets must rise"),
        (put("offsets", [0, 1000, 19, 26, 66]), "offsets must rise"),
        (put("offsets", [0, 16, 19, 26]), "one more than there are"),
        (put("rows", np.zeros((66, 5), "f4"), chunks=(4, 5)), "rows must be contiguous"),
        (put("rows", np.zeros((66, 5))), "float64"),
        (put("rows", np.full((66, 5), np.nan, "f4")), "NaN or infinite values in row 0"),
        (sizes_beyond_the_file, "rows must be contiguous|longer than the file"),
        (link("rows", h5py.SoftLink("/rows")), "rows is not in the file itself"),
        (link("offsets", h5py.ExternalLink("other.h5", "/offsets")), "offsets is not in the file"),
        (link("clip_uids", h5py.ExternalLink("pipe", "/clip_uids")), "clip_uids is not in the"),
    ],
)
def test_other_content_is_refused_in_one_line(data, harm, words):
    os.mkfifo(data / "features/pipe")  # opening it would wait for ever
    with h5py.File(data / "features/packed.h5", "a") as packed:
        harm(packed)
    with pytest.raises(UserError, match=rf"packed\.h5: .*({words})"):
        opened(data, ["a", "b"])
