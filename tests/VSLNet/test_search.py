"""A trained VSLNet asked about videos: what search finds is what inference predicts."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import torch

import utils.search.ranking
from tests.bad_inputs.world import WORDS
from tests.utils.features.egovlp_sample import SMALL, released_shapes, write_checkpoint
from utils.ask import main
from utils.base.errors import UserError
from utils.base.files import write_json
from utils.base.tensor_files import save_atomically
from utils.search.search import load_run
from utils.training.processes import start_processes
from VSLNet.data import open_split
from VSLNet.infer import CANDIDATES, predict
from VSLNet.options import Options
from VSLNet.text import TEXT_FILE, open_text
from VSLNet.weights import build_model, checkpoint_state

LONG = 10_000.0  # seconds: every clip is one clip


def save_run(options, model, text):
    """A run folder as training leaves it."""
    write_json(options.run_folder / options.OPTIONS_FILE, dataclasses.asdict(options))
    write_json(options.run_folder / TEXT_FILE, text.describe())
    save_atomically(checkpoint_state(model, text, False), options.run_folder / "vslnet_7.t7")


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory):
    """A run whose weights have opinions, and what it predicts."""
    folder = tmp_path_factory.mktemp("search")
    options = Options(
        task="nlq_official_v1", fv="egovlp", mode="val", data_root=str(simulated),
        cache_dir=str(folder / "cache"), model_dir=str(folder), text_encoder="minilm",
        max_pos_len=32, dim=16, num_heads=2, nms_threshold=0.5, padding="masked",
    )  # fmt: skip
    processes = start_processes()
    text = open_text(options)
    split = open_split(options, "val", text, processes.device, tolerant=False)
    model = build_model(options, split.features.width, text)
    for block in (model.predictor.start_block, model.predictor.end_block):
        block[2].conv1d.weight.data *= 5
    save_run(options, model, text)
    windows = predict(model, split, options, processes)[0]
    return options, split.records, windows


def feature(data, uid):
    return data / "features" / "egovlp" / f"{uid}.pt"


def test_search_finds_what_inference_predicts(trained, simulated, monkeypatch):
    options, records, expected = trained
    monkeypatch.setattr(utils.search.ranking, "CANDIDATES", CANDIDATES)
    run = load_run(options.run_folder, clip_seconds=LONG)
    found = np.empty_like(expected)
    for clip in np.unique(records.clip):
        rows = np.flatnonzero(records.clip == clip)
        questions = [records.sentences[number] for number in records.sentence[rows]]
        file = feature(simulated, records.clip_uids[clip])
        found[rows] = run.encode(file).ask(questions).windows
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_clips_are_as_long_as_in_training(trained):
    options, records, _ = trained
    seconds = (records.num_frames / records.fps)[np.unique(records.clip)]
    assert seconds.min() <= load_run(options.run_folder).clip_seconds <= seconds.max()


def test_a_run_may_be_moved_and_a_checkpoint_stand_alone(trained, tmp_path, capsys):
    options, _, _ = trained
    moved = tmp_path / "elsewhere"
    shutil.copytree(options.run_folder, moved)
    video = torch.randn(200, 256)
    ask = ["where is the plate?"]
    expected = load_run(options.run_folder).encode(video).ask(ask).windows
    assert np.array_equal(load_run(moved).encode(video).ask(ask).windows, expected)

    alone = tmp_path / "vslnet_7.t7"
    shutil.copy(moved / "vslnet_7.t7", alone)
    run = load_run(alone, text_encoder="minilm")
    assert run.model.units == 32 and run.clip_seconds == 480
    assert "using 480 s" in capsys.readouterr().err
    with pytest.raises(UserError, match="trained with the text encoder minilm"):
        (moved / TEXT_FILE).write_text('{"encoder": "minilm", "width": 384, "hash": "other"}')
        load_run(moved)


def test_ask_prints_windows(trained, simulated, capsys, monkeypatch):
    options, records, _ = trained
    file = feature(simulated, records.clip_uids[0])
    command = ["--checkpoint", str(options.run_folder), "--features", str(file)]
    main([*command, "--query", "Where was the plate?", "--query", "Who was there?"])
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "Where was the plate?" and lines.count("Who was there?") == 1
    assert lines[2].split() == ["|", "|", "from", "|", "to", "|", "score", "|"]
    assert sum(line.startswith("| 5 | 0:0") for line in lines) == 2

    # Typed, one a line, with one that is none.
    monkeypatch.setattr("sys.stdin", io.StringIO("Where was the plate?\n?\nWho was there?\n"))
    main(command)
    typed = capsys.readouterr()
    assert typed.out == said and "the question is empty" in typed.err

    main([*command, "--query", "Where was the plate?", "--json", "--top", "3"])
    (entry,) = json.loads(capsys.readouterr().out)
    assert len(entry["windows"]) == 3 and set(entry["windows"][0]) == {"start", "end", "score"}


@pytest.fixture
def untrained(tmp_path):
    """A function that makes a run with random weights, and the command that asks it a video."""
    pytest.importorskip("av")
    from tests.utils.test_extract_features import write_video

    video = write_video(tmp_path / "day.mp4", 12)

    def make(fv, width, text_encoder):
        options = Options(
            task="mine", fv=fv, data_root=str(tmp_path), model_dir=str(tmp_path),
            text_encoder=str(text_encoder), max_pos_len=16, dim=16, num_heads=2,
        )  # fmt: skip
        text = open_text(options)
        model = build_model(options, width, text)
        save_run(options, model, text)
        return ["--checkpoint", str(options.run_folder), "--video", str(video)]

    return make


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_video_is_searched_with_egovlp_s_checkpoint_alone(untrained, tmp_path, capsys, full):
    """Features and token features out of one file; in full: of the released shapes."""
    file = write_checkpoint(tmp_path / "egovlp.pth", released_shapes() if full else SMALL)
    if not full:
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    command = untrained("egovlp", 256 if full else 16, file)
    main([*command, "--encoder", str(file), "--query", "Where is the cup?", "--json"])
    (entry,) = json.loads(capsys.readouterr().out)
    assert len(entry["windows"]) == 5
    assert all(0 <= w["start"] < w["end"] <= 13 for w in entry["windows"])
