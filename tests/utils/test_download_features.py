"""Features from a server into the data root."""

import hashlib
import io
import json

import pytest
import torch

from tests.simulated import refuse, succeed
from tests.utils.download.file_server import Behaviour, serve
from tests.utils.download.test_archives import make_zip
from utils.base.errors import UserError
from utils.base.tasks import FEATURES
from utils.download.manifest import read_manifest
from utils.download_features import download, main

PROGRAM = "utils/download_features.py"
CLIPS = {f"clip-{n}": torch.rand(5 + n, 6) for n in range(4)}
SHAPES = {uid: len(rows) for uid, rows in CLIPS.items()}


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


FILES = {f"some/where/{uid}.pt": saved(rows) for uid, rows in CLIPS.items()}
FILES |= {"some/where/feature_shapes.json": json.dumps(SHAPES).encode(), "__MACOSX/._a.pt": b"x"}


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of these parts; give its path."""

    def write(parts, name="egovlp", pages=None, **more):
        path = tmp_path / "manifest.json"
        features = {name: {"width": 6, "parts": parts, **more}}
        path.write_text(json.dumps({"features": features, "pages": pages or {}}))
        return path

    return write


def contents(root, name="egovlp"):
    """Features by clip uid, and the rows listed beside them; nothing else is there."""
    folder = root / "features" / name
    names = [path.name for path in folder.iterdir() if path.suffix != ".pt"]
    assert names == ["feature_shapes.json"]
    shapes = json.loads((folder / "feature_shapes.json").read_text())
    return {path.stem: torch.load(path) for path in folder.glob("*.pt")}, shapes


def assert_same(features, clips=CLIPS):
    assert features.keys() == clips.keys()
    assert all(torch.equal(features[uid], clips[uid]) for uid in features)


def test_features_are_fetched_in_parts_and_unpacked(tmp_path, manifest):
    content = make_zip(FILES)
    third = len(content) // 3
    pieces = content[:third], content[third : 2 * third], content[2 * third :]
    files = {f"/x.part-{n}": Behaviour(piece, drop_after=[1000]) for n, piece in enumerate(pieces)}
    with serve(files) as address:
        parts = [
            {"url": address + path, "sha256": hashlib.sha256(file.content).hexdigest()}
            for path, file in files.items()
        ]
        command = PROGRAM, "--manifest", manifest(parts, bytes=10_000), "--data_root", tmp_path
        printed = succeed(*command, "--feature_types", "egovlp")
        assert "egovlp: takes 20.0 kB" in printed
        assert "egovlp: 4 clips fetched, 4 there" in printed
        features, shapes = contents(tmp_path)
        assert_same(features)
        assert shapes == SHAPES
        assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["egovlp.lock"]
        assert "are there" in succeed(*command)
    assert [len(file.ranges) for file in files.values()] == [2, 2, 2]


def test_addresses_may_come_from_the_command_line(tmp_path):
    content = make_zip(FILES)
    files = {"/1": Behaviour(content[:900]), "/2": Behaviour(content[900:])}
    with serve(files) as address:
        main([
            "--feature_types", "mine", "--data_root", str(tmp_path), "--keep_archives",
            "--url", f"mine={address}/1", "--url", f"mine={address}/2",
        ])  # fmt: skip
    assert_same(contents(tmp_path, "mine")[0])
    assert len(list((tmp_path / "downloads" / "mine").glob("*-*"))) == 2


def test_the_published_layout_is_read_behind_redirections(tmp_path, manifest, golden):
    names = ("x.zip", "x.z01", "x.z02", "x.z03")
    files, parts = {}, []
    with serve(files) as address:
        for number, name in enumerate(names):
            content = (golden / "volumes" / name).read_bytes()
            files[f"/download/{number}"] = Behaviour(content, drop_after=[9000])
            link = f"/shared/static/random{number}{name[1:]}"
            files[link] = Behaviour(redirect=f"{address}/download/{number}")
            parts.append({"url": address + link})
        path = manifest(parts, "slowfast", folder="official", bytes=230_000)
        printed = succeed(
            PROGRAM, "--feature_types", "slowfast", "--manifest", path, "--data_root", tmp_path
        )
    assert "slowfast: 3 clips fetched, 3 there" in printed
    features, _ = contents(tmp_path, "slowfast")
    assert {uid: rows[0, 0].item() for uid, rows in features.items()} == {
        "clip-a": 0, "clip-b": 1, "clip-c": 2,
    }  # fmt: skip
    assert all(rows.shape == (3000, 6) for rows in features.values())


def test_our_manifest_holds_the_published_links():
    sources = read_manifest().features
    assert {name: source.width for name, source in sources.items()} == FEATURES
    counts = {name: len(source.parts) for name, source in sources.items()}
    assert counts == {"slowfast": 11, "egovlp": 1, "internvideo": 3, "clip": 1}
    for source in sources.values():
        first, *others = [part.url for part in source.parts]
        assert first.startswith("https://utexas.box.com/shared/static/") and first.endswith(".zip")
        assert [url[-4:] for url in others] == [f".z{n:02d}" for n in range(1, len(others) + 1)]
        assert source.folder and source.bytes


def test_clips_that_are_there_are_kept(tmp_path, manifest):
    folder = tmp_path / "features" / "egovlp"
    folder.mkdir(parents=True)
    mine = torch.zeros(50, 6)
    torch.save(mine, folder / "clip-1.pt")
    torch.save(mine, folder / "mine.pt")
    (folder / "feature_shapes.json").write_text('{"clip-1": 50, "clip-2": 9, "mine": 50}')
    with serve({"/x": Behaviour(make_zip(FILES))}) as address:
        source = read_manifest(manifest([{"url": f"{address}/x"}])).features["egovlp"]
        assert download(tmp_path, "egovlp", source) == 3
    features, shapes = contents(tmp_path)
    assert_same(features, {**CLIPS, "clip-1": mine, "mine": mine})
    assert shapes == {"clip-0": 5, "clip-1": 50, "clip-2": 7, "clip-3": 8, "mine": 50}


@pytest.mark.parametrize(
    ("content", "width", "words"),
    [
        (make_zip(FILES), 7, r"holds features 6 wide, not 7"),
        (make_zip({"a.pt": saved({"x": 1})}), None, "is dict"),
        (make_zip({"../../clip.pt": b"words"}), None, "damaged|not a file of tensors"),
        (make_zip({"readme.txt": b"words"}), None, "holds no <clip_uid>.pt"),
        (make_zip(FILES)[:-30], None, "damaged, cut off"),
    ],
)
def test_a_bad_archive_leaves_nothing(tmp_path, manifest, content, width, words):
    with serve({"/x": Behaviour(content)}) as address:
        source = read_manifest(manifest([{"url": f"{address}/x"}], width=width)).features["egovlp"]
        with pytest.raises(UserError, match=words):
            download(tmp_path, "egovlp", source)
    assert not list((tmp_path / "features" / "egovlp").iterdir())
    assert not list(tmp_path.rglob("clip.pt"))


def test_too_small_a_disk_is_seen_first(tmp_path, manifest):
    with serve({"/x": Behaviour()}) as address:
        path = manifest([{"url": f"{address}/x"}], bytes=10**15)
        line = refuse(PROGRAM, "--manifest", path, "--data_root", tmp_path)
    assert "fetching and unpacking egovlp takes 2000 TB" in line
