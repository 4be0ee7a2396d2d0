"""Runs that predict with the options they were trained with, alone and in an ensemble."""

import shutil

import numpy as np
import pytest
import torch

from tests.bad_inputs.damages import edited
from tests.bad_inputs.world import PREPARED, RELER_RUN, SECONDS, VSLNET_RUN, WIDTH, checkpoint
from utils.base.errors import UserError
from utils.ensemble_predictions import main
from utils.evaluation.predictions import read_predictions
from utils.search.search import load_run
from utils.search.trained_runs import predict_run

OPTIONS = f"{VSLNET_RUN}/configs.json"


def test_every_query_is_answered_by_the_named_checkpoint(data):
    edited(f"{PREPARED}/val.json", "v1", "exact_times", 0, value=[3.0, 3.0])(data)
    edited(OPTIONS, "remove_empty_queries_from", value=["val"])(data)  # in training only
    last = checkpoint(data / VSLNET_RUN)
    early = last.with_name("vslnet_0.t7")
    shutil.copy(last, early)
    file = predict_run(data / VSLNET_RUN, "val", str(data))
    assert file == last.with_name(f"{last.stem}_val_result.json")
    assert len(read_predictions(file)) == 4
    assert predict_run(early, "val", str(data)) == early.with_name("vslnet_0_val_result.json")
    assert read_predictions(early.with_name("vslnet_0_val_result.json")) == read_predictions(file)


def test_an_ensemble_of_runs_is_that_of_their_files(data, capsys):
    folders = [str(data / VSLNET_RUN), str(data / RELER_RUN)]
    files = [str(predict_run(folder, "test", str(data))) for folder in folders]
    assert all(len(read_predictions(file)) == 2 for file in files)  # of the test split
    for name, sources in (("files", files), ("runs", folders)):
        output = ["--data_root", str(data), "--output", str(data / f"{name}.json")]
        main(["--predictions", *sources, *output])
        assert f"{files[0]}: its first window" in capsys.readouterr().out
    assert (data / "runs.json").read_bytes() == (data / "files.json").read_bytes()


def test_data_may_have_moved_but_options_must_be_there(data):
    edited(OPTIONS, "data_root", value="/gone")(data)
    with pytest.raises(UserError, match=r"/gone/dataset/nlq_official_v1/val\.json: no such file"):
        predict_run(data / VSLNET_RUN, "val")
    assert predict_run(data / VSLNET_RUN, "val", str(data)).is_file()
    (data / OPTIONS).unlink()
    with pytest.raises(UserError, match=r"no configs\.json or opt\.json or options\.json beside"):
        predict_run(data / VSLNET_RUN, "val", str(data))


def test_a_run_may_be_moved_and_a_checkpoint_stand_alone(data, tmp_path, capsys):
    def answer(run):
        return run.encode(torch.ones(200, WIDTH).cumsum(0)).ask(["where is the cup?"]).windows

    encoder = str(data / "bert")
    moved = shutil.copytree(data / VSLNET_RUN, tmp_path / "elsewhere")
    run = load_run(moved, encoder)
    assert np.array_equal(answer(run), answer(load_run(data / VSLNET_RUN, encoder)))
    assert run.clip_seconds == pytest.approx(SECONDS)
    # A relative data root is looked for where training was started.
    edited("configs.json", "data_root", value="data")(moved)
    edited("made.json", 0, "folder", value=str(tmp_path))(moved)
    assert load_run(moved, encoder).clip_seconds == pytest.approx(SECONDS)
    alone = load_run(shutil.copy(checkpoint(moved), tmp_path), encoder)
    assert alone.model.units == 16 and alone.clip_seconds == 480
    assert "using 480 s" in capsys.readouterr().err
    edited("text.json", "hash", value="other")(moved)
    with pytest.raises(UserError, match="trained with the text encoder"):
        load_run(moved, encoder)
