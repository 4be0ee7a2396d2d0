"""The simulated data root: complete, valid, odd as the real one is, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.killing import run_killed
from tests.samples import raw_queries, timed, write_annotations
from tests.simulated import refuse
from utils.base.errors import UserError
from utils.data.annotations import iter_clips, iter_queries, read_annotations
from utils.data.words import content_words
from utils.simulate_dataset import main
from utils.simulation.phrasing import TEMPLATES


def simulate(folder: Path, *options: object) -> Path:
    main(["--data_root", str(folder), "--preset", "tiny", *map(str, options)])
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    return simulate(folder, "--features", "egovlp", "clip", "--nlq_clips", 12, 6, 6)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("version", ["", "_v2"])
def test_files_are_as_odd_as_real_ones(root, version):
    for name in ("nlq_train", "nlq_val"):
        path = root / f"{name}{version}.json"
        queries = raw_queries(path)
        assert any("query" not in query for query in queries)
        assert any("query" in query and query["query"] is None for query in queries)
        assert any(query.get("query") == "" for query in queries)
        widths = [query["clip_end_sec"] - query["clip_start_sec"] for query in queries]
        assert 0 < sum(width == 0 for width in widths) < len(widths) / 8
        annotations = read_annotations(path)
        duration = {clip.clip_uid: clip.duration for _, clip in iter_clips(annotations)}
        assert any(q.window[1] > duration[q.clip_uid] for q in iter_queries(annotations))
        of_clips = [clip.annotations for _, clip in iter_clips(annotations)]
        assert max(map(len, of_clips)) > 1
        assert any(a.language_queries is None for annotations in of_clips for a in annotations)


def test_some_windows_start_before_their_clip(tmp_path):
    """With more questions some event goes on when its clip begins."""
    root = simulate(tmp_path, "--features", "none", "--nlq_clips", 60, 2, 2, "--queries", 20)
    queries = raw_queries(root / "nlq_train.json")
    starts = [query["clip_start_sec"] for query in queries]
    assert all(start >= 0 or start == -4e-7 for start in starts) and min(starts) < 0
    assert {query["template"] for query in queries} == {template.name for template in TEMPLATES}
    assert len(TEMPLATES) == 13


def test_version_2_holds_version_1_and_more(root):
    first, second = (
        {q["query"] for q in raw_queries(root / f"nlq_train{end}.json") if q.get("query")}
        for end in ("", "_v2")
    )
    assert len(second) > len(first)
    assert len(first - second) <= 4  # those that the second version's oddities have blanked


@pytest.mark.parametrize("version", ["", "_v2"])
def test_the_test_split_has_no_times_and_its_answers_lie_beside(root, version):
    files = [f"{name}{version}.json" for name in (
        "nlq_test_unannotated", "simulated_test_ground_truth")]  # fmt: skip
    unannotated, annotated = (list(iter_queries(read_annotations(root / f))) for f in files)
    assert len(unannotated) == len(annotated) > 10
    for question, answer in zip(unannotated, annotated, strict=True):
        assert question[:5] == answer[:5] and question.window is None
        assert answer.window[1] >= answer.window[0]
    assert all(len(query) <= 1 for query in raw_queries(root / files[0]))


@pytest.mark.parametrize(("annotated", "number"), [(False, 190), (True, 45)])
def test_a_simulation_that_was_killed_goes_on(root, tmp_path, annotated, number):
    files = [root / f"nlq_{split}.json" for split in ("train", "val")]
    words = ["--annotations", *map(str, files)] if annotated else ["--preset", "tiny"]
    words += ["--features", "clip", "--data_root"]
    main([*words, str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    run_killed("utils/simulate_dataset.py", [*words, killed], killed, number)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("killed/features/*/*.pt")}
    assert 0 < len(written) < len(list(tmp_path.glob("whole/features/*/*.pt")))
    main([*words, str(tmp_path / "killed")])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert all(file.stat().st_mtime_ns == time for file, time in written.items())


def test_another_simulation_replaces_one_that_was_there(tmp_path):
    for seed, folder in ((1, "both"), (2, "both"), (2, "alone"), (1, "first")):
        simulate(tmp_path / folder, "--features", "clip", "--seed", seed)
    first, both, alone = (contents(tmp_path / name) for name in ("first", "both", "alone"))
    assert alone.items() <= both.items() and first["nlq_train.json"] != alone["nlq_train.json"]


@pytest.mark.parametrize("name", ["nlq_train_v2.json", "vq_val.json", "egoclip.csv"])
def test_no_file_of_real_data_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("licensed")
    assert f"{name} exists and is not simulated" in refuse(
        "utils/simulate_dataset.py", "--data_root", tmp_path, "--preset", "tiny"
    )
    assert [file.read_text() for file in tmp_path.iterdir()] == ["licensed"]


def test_real_data_is_not_overwritten(tmp_path):
    real = tmp_path / "nlq_train.json"
    real.write_text('{"videos": []}')
    line = refuse("utils/simulate_dataset.py", "--data_root", tmp_path, "--preset", "tiny")
    assert "nlq_train.json" in line and "--overwrite" in line
    assert [file.name for file in tmp_path.iterdir()] == ["nlq_train.json"]
    simulate(tmp_path, "--features", "none", "--overwrite")
    assert read_annotations(real).videos
    simulate(tmp_path, "--features", "none")  # what is simulated may be simulated anew


def test_real_features_are_not_overwritten(tmp_path):
    real = tmp_path / "features" / "egovlp" / "clip.pt"
    real.parent.mkdir(parents=True)
    real.touch()
    with pytest.raises(UserError, match="not simulated"):
        simulate(tmp_path, "--features", "egovlp")
    assert not (tmp_path / "nlq_train.json").exists()
    simulate(tmp_path, "--features", "clip")
    simulate(tmp_path, "--features", "egovlp", "--overwrite")
    simulate(tmp_path, "--features", "egovlp", "clip")


def test_windows_of_real_annotations_show_their_words(tmp_path):
    incomplete = [{}, {"query": "Who?"}]
    queries = [timed("He cuts the onion", 10, 30), *incomplete]
    first = write_annotations(tmp_path / "a.json", a=queries)
    queries = [timed("cutting an onion", 50, 70), timed("washes a plate", 80, 90), *incomplete]
    second = write_annotations(tmp_path / "b.json", b=queries)
    simulate(tmp_path, "--features", "egovlp", "--annotations", first, second)
    folder = tmp_path / "features" / "egovlp"
    a, b = (torch.load(folder / f"{uid}.pt", weights_only=True).numpy() for uid in "ab")
    assert a.shape == b.shape == (187, 256)
    onion = a[19:56].mean(0) - a[75:].mean(0)
    same = b[94:131].mean(0) - b[:90].mean(0)
    other = b[150:168].mean(0) - b[:90].mean(0)
    assert np.corrcoef(onion, same)[0, 1] > 0.55 > 0.35 > np.corrcoef(onion, other)[0, 1]
    assert not (tmp_path / "nlq_train.json").exists()


def test_forms_of_a_word_are_one_word():
    assert content_words("#C C cuts the onion?") == ["cut", "onion"]
    for words in ("slice slices slicing sliced", "roll rolls rolling", "chop chopping"):
        assert len(set(content_words(words))) == 1


def test_durations_that_differ_are_refused(tmp_path):
    first = write_annotations(tmp_path / "a.json", a=[])
    second = write_annotations(tmp_path / "b.json", 90.0, a=[])
    with pytest.raises(UserError, match="another duration"):
        simulate(tmp_path / "out", "--annotations", first, second)
