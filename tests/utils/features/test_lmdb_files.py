"""Features and tokens out of LMDB files."""

import io

import numpy as np
import pytest

from tests.utils.features.feature_sample import LENGTHS
from utils.base.errors import UserError
from utils.features.lmdb_files import LmdbFile, read_array
from utils.features.mapped import open_features
from utils.features.token_files import read_tokens
from utils.prepare_features import main


def value(save, **arrays):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def write(folder, values):
    """An LMDB file of values by key."""
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=1 << 24) as file, file.begin(write=True) as transaction:
        for key, content in values.items():
            transaction.put(key.encode(errors="surrogateescape"), content)
    return folder


def features():
    draw = np.random.default_rng(0)
    return {uid: draw.standard_normal((rows, 6), np.float32) for uid, rows in LENGTHS.items()}


def test_video_features_are_packed(tmp_path):
    clips = {uid: rows for uid, rows in features().items() if len(rows)}
    (tmp_path / "features").mkdir()
    file = write(tmp_path / "video.lmdb", {
        uid: value(np.savez, features=rows) for uid, rows in clips.items()
    })  # fmt: skip
    command = ["--features", "mine", "--data_root", str(tmp_path), "--from_lmdb", str(file)]
    main(command)
    store = open_features(tmp_path, "mine", list(clips), tmp_path / "cache")
    for number, rows in enumerate(clips.values()):
        assert np.array_equal(store.rows(number), rows)
    with pytest.raises(SystemExit):
        main([*command, "--features", "mine", "other"])


@pytest.mark.parametrize("kind", ["lmdb", "npz"])
def test_tokens_of_queries_are_read(tmp_path, kind):
    tokens = {"a_0": np.ones((3, 4), np.float32), "a_2": np.arange(4, dtype=np.float64)}
    if kind == "lmdb":
        saved = {key: value(np.savez, token_features=x, other=0) for key, x in tokens.items()}
        file = write(tmp_path / "tokens", saved)
    else:
        file = tmp_path / "tokens.npz"
        np.savez(file, **tokens)
    store = read_tokens(file, ["a_2", "a_0"], tmp_path / "cache", half=False)
    query = store.gather(np.array([1, 0]))
    assert query.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert query.tokens[1].tolist() == [[0, 1, 2, 3], [0] * 4, [0] * 4]
    with pytest.raises(UserError, match="has no features of query a_1"):
        read_tokens(file, ["a_0", "a_1"], tmp_path / "cache", half=False)


def test_what_is_no_array_is_refused(tmp_path):
    stream = io.BytesIO(value(np.save, arr=np.array([{"a": 1}], dtype=object)))
    for content in (stream, io.BytesIO(b"rubbish"), io.BytesIO(value(np.save, arr=np.arange(3)))):
        with pytest.raises(UserError, match="somewhere: "):
            read_array(content, "somewhere")
    pytest.importorskip("lmdb")
    (tmp_path / "file").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="not an LMDB file"):
        LmdbFile(tmp_path / "file")
    folder = write(tmp_path / "odd", {"\udcff": b"", "a": bytes(9000)})
    with pytest.raises(UserError, match="no clip uid"):
        LmdbFile(folder).keys()
    data = folder / "data.mdb"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(UserError, match="odd: cut off"):
        LmdbFile(folder)
