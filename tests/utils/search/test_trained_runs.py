"""Runs that predict with the options they were trained with, alone and in an ensemble."""

import json
import shutil

import pytest

from tests.simulated import succeed
from utils.base.errors import UserError
from utils.ensemble_predictions import main
from utils.evaluation.predictions import read_predictions
from utils.search.trained_runs import predict_run

pytestmark = pytest.mark.slow
VSLNET = ["--max_pos_len", 32, "--dim", 16, "--num_heads", 2, "--remove_empty_queries_from", "val"]
RELER = [
    "--max_v_l", 32, "--hidden_dim", 16, "--bi_num_attention_heads", 2, "--v_intermediate_size", 16,
    "--intermediate_size", 16, "--conditioned_span_pred_num_heads", 2,
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(simulated, tmp_path_factory):
    """A folder with a run of each model, `vslnet` and `reler`, trained for an epoch."""
    folder = tmp_path_factory.mktemp("runs")
    common = [
        "--task", "nlq_official_v1", "--fv", "egovlp", "--data_root", simulated,
        "--cache_dir", folder / "cache", "--text_encoder", "minilm", "--epochs", 1,
    ]  # fmt: skip
    succeed("VSLNet/main.py", *common, *VSLNET, "--model_dir", folder / "vslnet")
    succeed("ReLER/main.py", *common, *RELER, "--results_root", folder / "reler")
    return folder


def test_every_query_is_answered_by_the_named_checkpoint_wherever_it_lies(runs, tmp_path):
    shutil.copytree(runs / "vslnet", tmp_path / "moved")
    (last,) = tmp_path.rglob("*.t7")
    early = last.with_name("vslnet_0.t7")
    shutil.copy(last, early)
    file = predict_run(tmp_path / "moved", "val")
    assert file == last.with_name(f"{last.stem}_val_result.json")
    assert len(read_predictions(file)) == 12  # one of them has an empty window
    assert predict_run(early, "val") == early.with_name("vslnet_0_val_result.json")
    assert read_predictions(early.with_name("vslnet_0_val_result.json")) == read_predictions(file)


def test_an_ensemble_of_runs_is_that_of_their_files(runs, tmp_path, capsys):
    folders = [str(runs / "vslnet"), str(runs / "reler")]
    files = [str(predict_run(folder, "test")) for folder in folders]
    for name, sources in (("files", files), ("runs", folders)):
        main(["--predictions", *sources, "--output", str(tmp_path / f"{name}.json")])
        assert f"{files[0]}: its first window" in capsys.readouterr().out
    assert (tmp_path / "runs.json").read_bytes() == (tmp_path / "files.json").read_bytes()
    main(["--predictions", *folders, "--split", "val", "--output", str(tmp_path / "val.json")])
    assert len(read_predictions(tmp_path / "val.json")) == 12


def test_data_may_have_moved(runs, simulated, tmp_path):
    options = next(runs.glob("vslnet/*/model/configs.json"))
    shutil.copytree(options.parent, tmp_path / "run")
    trained = json.loads(options.read_text())
    gone = trained | {"data_root": "/gone", "cache_dir": None}
    (tmp_path / "run" / "configs.json").write_text(json.dumps(gone))
    with pytest.raises(UserError, match=r"/gone/dataset/nlq_official_v1/val\.json: no such file"):
        predict_run(tmp_path / "run", "val")
    (tmp_path / "data").symlink_to(simulated)
    assert predict_run(tmp_path / "run", "val", str(tmp_path / "data")).is_file()
