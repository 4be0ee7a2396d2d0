"""A shared run: a folder without pickles and paths in the run's place, here or on the hub."""

import json
import shutil
from types import SimpleNamespace
from unittest.mock import create_autospec

import huggingface_hub
import numpy as np
import pytest
import torch

from tests.bad_inputs import world
from utils.base.errors import UserError
from utils.base.tensor_files import load_safely, write_safetensors
from utils.search import load_run
from utils.search.models import PACKAGES, package_of
from utils.share_run import main, shareable, shareable_cards, shareable_text
from utils.training.checkpoints import find_checkpoint

FOLDERS = {"VSLNet": "--model_dir", "ReLER": "--results_root", "GroundNLQ": "--results_root"}


@pytest.fixture(scope="module", params=FOLDERS)
def run(request, small_root, tmp_path_factory):
    """A run of a model whose text encoder has a name."""
    program, folder = f"{request.param}/main.py", tmp_path_factory.mktemp("run")
    words = world.COMMANDS[f"{program} train"] + f" --cache_dir {folder}/cache"
    words += f" --text_encoder minilm {FOLDERS[request.param]} {folder}/run"
    assert world.run_here(program, words.replace("DATA", str(small_root)).split(), folder) is None
    return find_checkpoint(folder / "run")


def weights_of(checkpoint):
    trained = package_of(checkpoint).module("weights").load_trained
    return trained(checkpoint, torch.device("cpu"))


def test_a_shared_folder_takes_the_place_of_the_run(run, tmp_path, small_root, capsys):
    shared = tmp_path / "shared"
    main([str(run), "--to", str(shared)])
    assert capsys.readouterr().out == f"shared: {shared}\n"
    names = {file.name for file in shared.iterdir()}
    options_file = package_of(run).options_file
    assert names == {"README.md", "clips.json", "model.safetensors", "text.json", options_file}
    ours, theirs = weights_of(run), weights_of(find_checkpoint(shared))
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name])
    assert ours.options.task == theirs.options.task

    content = b"".join(file.read_bytes() for file in shared.iterdir())
    assert not any(str(folder).encode() in content for folder in (small_root, run.parent.parent))
    card = (shared / "README.md").read_text()
    best = json.loads(run.with_name("metrics.jsonl").read_text().splitlines()[-1])
    assert f"of {best['evaluated']} of {best['listed']} queries" in card
    assert f"| {best['R@1 IoU=0.3']:.2f} |" in card and "text encoder: `minilm`" in card

    names = ("egovlp", "clip") if package_of(run).name == "ReLER" else ("egovlp",)
    video = [small_root / "features" / name / "v1.pt" for name in names]
    one, other = (
        load_run(path, device="cpu").encode(video).ask(["Where is the cup?"])
        for path in (run, shared)
    )
    assert np.array_equal(one.windows, other.windows) and np.array_equal(one.scores, other.scores)
    with pytest.raises(UserError, match="is not empty"):
        main([str(run), "--to", str(shared)])


def test_what_names_a_file_of_the_machine_stays_there(tmp_path):
    trained = {"fv": "egovlp", "text_encoder": f"{tmp_path}@0", "text_features": "tokens.npz",
               "init_from": "runs/joint", "data_root": "data"}  # fmt: skip
    assert shareable(trained, PACKAGES[2]) == {"fv": "egovlp"}
    folder = tmp_path / "encoder"
    folder.mkdir()
    names = {f"{folder}@0": "encoder@0", "/gone/encoder": "encoder", "minilm@0": "minilm@0",
             "openai/clip": "openai/clip"}  # fmt: skip
    cards = {"clip": {"model": str(folder), "stride": 16, "source": str(tmp_path)}, "slowfast": {}}
    assert shareable_cards(cards) == {"clip": {"model": "encoder", "stride": 16}, "slowfast": {}}
    for name, shared in names.items():
        (tmp_path / "text.json").write_text(json.dumps({"encoder": name, "width": 4}))
        assert shareable_text(tmp_path) == {"encoder": shared, "width": 4}


def test_values_and_tensors_come_back_as_they_were(tmp_path):
    content = {"a": {"b": torch.arange(3), "c": {"d": [1, "x", None]}}, "e": torch.ones(2, 2)}
    write_safetensors(content, tmp_path / "x.safetensors")
    found = load_safely(tmp_path / "x.safetensors")
    assert torch.equal(found["a"]["b"], content["a"]["b"]) and torch.equal(found["e"], content["e"])
    assert found["a"]["c"] == content["a"]["c"]
    damaged = tmp_path / "cut.safetensors"
    for length in np.linspace(0, (tmp_path / "x.safetensors").stat().st_size - 1, 9).astype(int):
        damaged.write_bytes((tmp_path / "x.safetensors").read_bytes()[:length])
        with pytest.raises(UserError, match="damaged or cut off"):
            load_safely(damaged)


@pytest.mark.parametrize("run", ["VSLNet"], indirect=True)
def test_a_run_travels_over_the_hub(run, tmp_path, monkeypatch, capsys):
    """A folder stands for the hub, and functions of the same signatures for its library."""
    api = create_autospec(huggingface_hub.HfApi, instance=True)
    download = create_autospec(huggingface_hub.snapshot_download)

    def upload(*, repo_id, folder_path):
        shutil.copytree(folder_path, tmp_path / repo_id)
        return SimpleNamespace(commit_url="https://hub/me/run/commit/0")

    api.upload_folder.side_effect = upload
    download.side_effect = lambda name: str((tmp_path / name).resolve(strict=True))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    main([str(run), "--to", "hf://me/run"])
    assert capsys.readouterr().out == "shared: https://hub/me/run/commit/0\n"
    api.create_repo.assert_called_once_with("me/run", exist_ok=True)
    copy = find_checkpoint("hf://me/run")
    assert copy.parent == tmp_path / "me/run"
    assert weights_of(copy).options.task == "nlq_official_v1"
    with pytest.raises(UserError, match="hf://me/none: can't be fetched"):
        find_checkpoint("hf://me/none")
