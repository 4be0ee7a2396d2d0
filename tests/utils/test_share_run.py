"""A shared run: a folder without pickles and paths in the run's place, here or on the hub."""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from tests.bad_inputs import world
from tests.simulated import refuse, succeed
from utils.base.errors import UserError
from utils.base.tensor_files import load_safely, write_safetensors
from utils.search import load_run
from utils.search.models import package_of
from utils.training.checkpoints import find_checkpoint

FOLDERS = {"VSLNet": "--model_dir", "ReLER": "--results_root", "GroundNLQ": "--results_root"}


@pytest.fixture(scope="module", params=FOLDERS)
def run(request, small_root, tmp_path_factory):
    """A run of a model whose text encoder has a name."""
    name, folder = request.param, tmp_path_factory.mktemp("run")
    options = ["--text_encoder", "minilm", "--cache_dir", folder / "cache"]
    options += [FOLDERS[name], folder / "run"]
    assert world.run(f"{name}/main.py train", small_root, *map(str, options)) is None
    return find_checkpoint(folder / "run")


def weights_of(checkpoint):
    trained = package_of(checkpoint).module("weights").load_trained
    return trained(checkpoint, torch.device("cpu"))


def test_a_shared_folder_takes_the_place_of_the_run(run, tmp_path, small_root):
    shared = tmp_path / "shared"
    said = succeed("utils/share_run.py", run, "--to", shared)
    assert said == f"shared: {shared}\n"
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
    assert "is not empty" in refuse("utils/share_run.py", run, "--to", shared)


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


@pytest.fixture
def hub():
    """The address of a stand-in for the hub, and the files that were uploaded to it."""
    files: dict[str, bytes] = {}

    class Hub(BaseHTTPRequestHandler):
        def answer(self, content, **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(200)
            headers |= {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            if "/resolve/" in self.path:
                name = self.path.rsplit("/", 1)[-1]
                self.answer(files[name], ETag=f'"{name}"')
            elif "/tree/" in self.path:
                self.answer([
                    {"type": "file", "path": name, "size": len(content), "oid": name}
                    for name, content in files.items()
                ])  # fmt: skip
            else:
                self.answer({"id": "me/run", "sha": COMMIT, "private": False,
                             "siblings": [{"rfilename": name} for name in files]})  # fmt: skip

        do_HEAD = do_GET

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("/repos/create"):
                self.answer({"url": f"{address}/me/run"})
            elif "/preupload/" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                self.answer({"files": [
                    {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
                ]})  # fmt: skip
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        files[value["path"]] = base64.b64decode(value["content"])
                self.answer({"commitUrl": f"{address}/me/run/commit/{COMMIT}", "commitOid": COMMIT})
            else:
                self.answer({})

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield address, files
    server.shutdown()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("run", ["VSLNet"], indirect=True)
def test_a_run_travels_over_the_hub(run, hub, tmp_path):
    address, files = hub
    there = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_x"}
    said = succeed("utils/share_run.py", run, "--to", "hf://me/run", **there)
    assert said == f"shared: {address}/me/run/commit/{COMMIT}\n"
    assert {"README.md", "model.safetensors", "text.json"} < set(files)
    code = (
        "from utils.training.checkpoints import find_checkpoint as find;print(find('hf://me/run'))"
    )
    copy = succeed(sys.executable, "-c", code, **there).strip()
    assert weights_of(find_checkpoint(copy)).options.task == "nlq_official_v1"
    assert "can't be fetched" in refuse(
        "utils/ask.py", "--checkpoint", "hf://me/none", "--features", "x.pt", "--query", "?",
        HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "other"),
    )  # fmt: skip
