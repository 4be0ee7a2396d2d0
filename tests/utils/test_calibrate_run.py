"""A run is calibrated, and everything that asks it shows chances from then on."""

import json

import msgspec
import numpy as np
import pytest

import utils.ask
import utils.calibrate_run
import utils.share_run
from tests.bad_inputs.world import CLIPS, GROUNDNLQ_RUN, PREPARED, RELER_RUN, VSLNET_RUN, checkpoint
from tests.utils.test_view_predictions import Page
from utils.base.errors import UserError
from utils.evaluation.calibration import Calibration
from utils.search import load_run
from utils.search.search import read_calibration


@pytest.fixture(params=[VSLNET_RUN, RELER_RUN, GROUNDNLQ_RUN])
def run(request, data):
    """The checkpoint of a run whose first windows are right, by the annotations."""
    file = data / PREPARED / "val.json"
    clips = json.loads(file.read_text())
    trained = load_run(data / request.param, str(data / "bert"), device="cpu")
    for uid in CLIPS["val"]:
        video = trained.encode(features(data, uid, trained.model.features))
        windows = video.ask(clips[uid]["sentences"], top=1).windows[:, 0]
        clips[uid]["exact_times"] = windows.tolist()
    file.write_text(json.dumps(clips))
    return checkpoint(data / request.param)


def features(data, uid, names):
    return [data / "features" / name / f"{uid}.pt" for name in names]


def calibrate(run, data):
    words = [run, "--data_root", data, "--text_encoder", data / "bert", "--device", "cpu"]
    utils.calibrate_run.main(list(map(str, words)))
    return msgspec.json.decode((run.parent / "calibration.json").read_bytes(), type=Calibration)


def test_chances_take_the_place_of_scores(run, data, capsys, tmp_path):
    words = {"text_encoder": str(data / "bert"), "device": "cpu"}
    names = load_run(run, **words).model.features
    video = features(data, "v1", names)
    before = load_run(run, **words).encode(video).ask(["where is the cup?"])
    fitted = calibrate(run, data)
    printed = capsys.readouterr().out
    assert "chance, %" in printed and "queries of val, each asked of its own clip: " in printed
    assert (run.parent / "calibration.png").read_bytes().startswith(b"\x89PNG")
    after = load_run(run, **words).encode(video).ask(["where is the cup?"])
    assert np.array_equal(before.windows, after.windows)
    assert fitted.slope > 0 and (after.scores > 0).all() and (after.scores < 1).all()

    page = tmp_path / "page.html"
    utils.ask.main([
        "--checkpoint", str(run), "--text_encoder", str(data / "bert"), "--device", "cpu",
        "--features", *map(str, video), "--query", "Where is the cup?", "--json",
        "--html", str(page),
    ])  # fmt: skip
    (entry,) = json.loads(capsys.readouterr().out)
    chances = [window["chance"] for window in entry["windows"]]
    assert chances == pytest.approx(after.scores[0].tolist())
    assert Page(page).data["runs"][0]["scoreName"] == "chance"


@pytest.mark.parametrize("run", [VSLNET_RUN], indirect=True)
def test_a_calibration_is_of_one_checkpoint_and_is_shared_with_it(run, data, tmp_path, capsys):
    fitted = calibrate(run, data)
    utils.share_run.main([str(run), "--to", str(tmp_path / "shared")])
    shared = load_run(tmp_path / "shared", str(data / "bert"), device="cpu").calibration
    assert (shared.slope, shared.intercept) == (fitted.slope, fitted.intercept)
    content = bytearray(run.read_bytes())
    run.write_bytes(content + b"\0")
    capsys.readouterr()
    assert read_calibration(run) is None
    assert "there are no chances; run calibrate_run.py again" in capsys.readouterr().err


@pytest.mark.parametrize("run", [VSLNET_RUN], indirect=True)
def test_what_gives_no_chances_is_refused(run, data):
    (run.parent / "calibration.json").write_text('{"slope": -1, "intercept": 0, "checkpoint": ""}')
    with pytest.raises(UserError, match=r"calibration\.json: .*slope"):
        load_run(run, str(data / "bert"), device="cpu")
    (run.parent / "calibration.json").unlink()
    file = data / PREPARED / "val.json"
    clips = json.loads(file.read_text())
    for clip in clips.values():
        clip["exact_times"] = [[0, 0]] * len(clip["sentences"])
    file.write_text(json.dumps(clips))
    with pytest.raises(UserError, match="no query of val has a window and features to search in"):
        calibrate(run, data)
    assert not (run.parent / "calibration.json").exists()
