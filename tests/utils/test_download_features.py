"""Features from a server into the data root."""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from tests.simulated import refuse, succeed
from tests.utils.file_server import Behaviour, serve
from utils.base.errors import UserError
from utils.base.tasks import FEATURES
from utils.download_features import (
    MANIFEST,
    Source,
    choose,
    download,
    is_complete,
    main,
    read_manifest,
    unpack,
)

CLIPS = {
    f"clip-{n}": torch.randn(5 + n, 6, generator=torch.Generator().manual_seed(n)) for n in range(4)
}


def saved(tensor):
    stream = io.BytesIO()
    torch.save(tensor, stream)
    return stream.getvalue()


def features(clips=CLIPS):
    shapes = {uid: len(rows) for uid, rows in clips.items()}
    files = {f"some/where/{uid}.pt": saved(rows) for uid, rows in clips.items()}
    return files | {"some/where/feature_shapes.json": json.dumps(shapes).encode()}


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def place(tmp_path):
    """Write a manifest of these parts; give its path."""

    def write(parts, width=6, name="egovlp"):
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({"features": {name: {"width": width, "parts": parts}}}))
        return path

    return write


def contents(root, name="egovlp"):
    folder = root / "features" / name
    assert {path.name for path in folder.parent.iterdir()} == {name}
    return {p.stem: torch.load(p) for p in folder.glob("*.pt")}


def same(found, expected=CLIPS):
    return found.keys() == expected.keys() and all(
        torch.equal(found[u], expected[u]) for u in found
    )


def test_program(tmp_path, place):
    content = zipped(features())
    third = len(content) // 3
    pieces = content[:third], content[third : 2 * third], content[2 * third :]
    files = {
        f"/x.zip.part-a{'abc'[n]}": Behaviour(piece, drop_after=[1000])
        for n, piece in enumerate(pieces)
    }
    with serve(files) as address:
        parts = [
            {
                "url": address + path,
                "size": len(file.content),
                "sha256": hashlib.sha256(file.content).hexdigest(),
            }
            for path, file in files.items()
        ]
        command = (
            "utils/download_features.py",
            "--manifest",
            place(parts),
            "--data_root",
            tmp_path,
        )
        printed = succeed(*command, "--feature_types", "egovlp")
        assert "egovlp: 4 clips fetched, 4 there" in printed
        assert same(contents(tmp_path))
        shapes = json.loads((tmp_path / "features/egovlp/feature_shapes.json").read_text())
        assert shapes == {uid: len(rows) for uid, rows in CLIPS.items()}
        assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["egovlp.lock"]
        requests = sum(len(file.ranges) for file in files.values())
        assert requests == 6
        assert "are there" in succeed(*command)
        assert sum(len(file.ranges) for file in files.values()) == requests


def test_addresses_of_the_command_line_and_several_names(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in features().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    packed = stream.getvalue()
    files = {
        "/1": Behaviour(packed[:900]),
        "/2": Behaviour(packed[900:]),
        "/o": Behaviour(zipped(features())),
    }
    with serve(files) as address:
        urls = f"mine={address}/1", f"other={address}/o", "--url", f"mine={address}/2"
        names = "--feature_types", "mine", "other", "--data_root", str(tmp_path)
        main([*names, "--keep_archives", "--url", *urls])
    for name in ("mine", "other"):
        assert is_complete(tmp_path / "features" / name)
        assert len(list((tmp_path / "features" / name).glob("*.pt"))) == 4
    assert len(list((tmp_path / "downloads" / "mine").iterdir())) == 2


def test_clips_that_are_there_are_kept(tmp_path, place):
    folder = tmp_path / "features" / "egovlp"
    folder.mkdir(parents=True)
    own = torch.zeros(50, 6)
    torch.save(own, folder / "clip-1.pt")
    torch.save(own, folder / "mine.pt")
    (folder / "feature_shapes.json").write_text('{"clip-1": 50, "clip-2": 9, "mine": 50}')
    with serve({"/x": Behaviour(zipped(features()))}) as address:
        source = read_manifest(place([{"url": f"{address}/x"}]))["egovlp"]
        assert download(tmp_path, "egovlp", source) == 3
    assert same(contents(tmp_path), {**CLIPS, "clip-1": own, "mine": own})
    shapes = json.loads((folder / "feature_shapes.json").read_text())
    assert shapes == {"clip-0": 5, "clip-1": 50, "clip-2": 7, "clip-3": 8, "mine": 50}


@pytest.mark.parametrize(
    ("content", "width", "words"),
    [
        (zipped(features()), 7, r"not a tensor \(rows, 7\) but \(5, 6\)"),
        (zipped({"a.pt": saved({"x": 1})}), None, "but dict"),
        (zipped({"a.pt": b"words"}), None, "damaged|not a file of tensors"),
        (zipped({"readme.txt": b"words"}), None, "holds no <clip_uid>.pt"),
        (zipped({"../clip.pt": b"words"}), None, "leads out"),
        (zipped(features())[:-30], None, "damaged or cut off"),
        (b"words", None, "not a zip"),
    ],
)
def test_a_bad_archive_leaves_nothing(tmp_path, place, content, width, words):
    with serve({"/x": Behaviour(content)}) as address:
        manifest = place([{"url": f"{address}/x"}])
        parts = read_manifest(manifest)["egovlp"]
        with pytest.raises(UserError, match=words):
            download(tmp_path, "egovlp", type(parts)(parts.parts, width))
    assert not list((tmp_path / "features").iterdir())


def test_remains_of_a_program_that_was_killed(tmp_path, place):
    remains = tmp_path / "features" / ".egovlp.unpacking.abc"
    remains.mkdir(parents=True)
    (remains / "clip-0.pt").write_bytes(b"half")
    with serve({"/x": Behaviour(zipped(features()))}) as address:
        download(tmp_path, "egovlp", read_manifest(place([{"url": f"{address}/x"}]))["egovlp"])
    assert same(contents(tmp_path))


def test_our_manifest_holds_the_published_links():
    sources = read_manifest(MANIFEST)
    assert {name: source.width for name, source in sources.items()} == FEATURES
    counts = {name: len(source.parts) for name, source in sources.items()}
    assert counts == {"slowfast": 11, "egovlp": 1, "internvideo": 3, "clip": 1}
    for source in sources.values():
        first, *others = [part.url for part in source.parts]
        assert first.startswith("https://utexas.box.com/shared/static/") and first.endswith(".zip")
        assert [url[-4:] for url in others] == [f".z{n:02d}" for n in range(1, len(others) + 1)]
        assert source.folder and source.size


def test_a_zip_in_volumes_behind_redirections(tmp_path, golden):
    names = ("x.zip", "x.z01", "x.z02", "x.z03")
    files, parts = {}, []
    with serve(files) as address:
        for number, name in enumerate(names):
            content = (golden / "volumes" / name).read_bytes()
            files[f"/download/{number}"] = Behaviour(content, drop_after=[9000])
            link = f"/shared/static/random{number}{name[1:]}"
            files[link] = Behaviour(redirect=f"{address}/download/{number}")
            parts.append({"url": address + link})
        manifest = tmp_path / "manifest.json"
        feature = {"width": 6, "folder": "official", "bytes": 230_000, "parts": parts}
        manifest.write_text(json.dumps({"features": {"slowfast": feature}}))
        data = tmp_path / "data"
        printed = succeed(
            "utils/download_features.py", "--feature_types", "slowfast",
            "--manifest", manifest, "--data_root", data,
        )  # fmt: skip
    assert "slowfast: 3 clips fetched, 3 there" in printed
    found = contents(data, "slowfast")
    assert {uid: rows[0, 0].item() for uid, rows in found.items()} == {
        "clip-a": 0, "clip-b": 1, "clip-c": 2,
    }  # fmt: skip
    assert all(rows.shape == (3000, 6) for rows in found.values())


def test_a_zip_that_lacks_a_volume_is_refused(tmp_path, golden):
    files = [shutil.copy(golden / "volumes" / name, tmp_path) for name in ("x.z01", "x.zip")]
    with pytest.raises(UserError, match="one of its 2 parts is missing"):
        unpack([Path(file) for file in files], tmp_path / "features", Source(()))


def test_what_is_missing_is_said_in_a_line(tmp_path, place):
    root = ("--data_root", tmp_path / "data")
    line = refuse("utils/download_features.py", *root, "--manifest", place([]))
    assert "no links are known to egovlp" in line and "--url egovlp=URL" in line
    line = refuse("utils/download_features.py", "--feature_types", "slowfast,clip", *root)
    assert "unknown feature type 'slowfast,clip'" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("names", "urls", "words"),
    [
        (["clip"], ["egovlp=http://a/b"], "'egovlp' is not among"),
        (["clip"], ["http://a/b"], "must be TYPE=URL"),
        (["clip"], ["../x=http://a/b"], "must be TYPE=URL"),
        (["clip"], ["clip=file:///etc/passwd"], "not an address"),
    ],
)
def test_addresses_that_are_refused(names, urls, words):
    with pytest.raises(UserError, match=words):
        choose(names, MANIFEST, urls)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "a list 'parts'"),
        (["http://a/b"], r"parts\[0\]: must be an object with a text 'url'"),
        ([{"url": "ftp://a"}], r"parts\[0\].url: .*not an address"),
        ([{"url": "http://a/b", "size": "9"}], "size: must be"),
        ([{"url": "http://a/b", "sha256": "9"}], "sha256: must be"),
    ],
)
def test_faulty_manifests(place, parts, words):
    with pytest.raises(UserError, match=words):
        read_manifest(place(parts))
    with pytest.raises(UserError, match="width: must be"):
        read_manifest(place([], width="6"))
    with pytest.raises(UserError, match="separators"):
        read_manifest(place([], name="a/b"))
