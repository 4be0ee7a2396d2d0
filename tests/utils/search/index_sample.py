"""A run with random weights that reads tiny CLIP features, and videos that show their own time."""

import shutil
from pathlib import Path

from tests.bad_inputs.world import write_text_encoder
from tests.utils.features.clocked import BASE, encode
from tests.VSLNet.test_search import save_run
from utils.base.files import write_json
from VSLNet.options import Options
from VSLNet.text import open_text
from VSLNet.weights import build_model

CLIP_SECONDS = 8


def make_run(folder: Path, seed: int = 1) -> Path:
    """A run folder of VSLNet, whose clips are 8 s long."""
    if not (folder / "bert").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text_encoder(folder / "bert")
    options = Options(
        task="mine", fv="clip", data_root=str(folder), model_dir=str(folder / f"run{seed}"),
        text_encoder=str(folder / "bert"), max_pos_len=16, dim=16, num_heads=2, seed=seed,
    )  # fmt: skip
    text = open_text(options)
    model = build_model(options, 32, text)
    for block in (model.predictor.start_block, model.predictor.end_block):
        block[2].conv1d.weight.data *= 20  # it has opinions
    save_run(options, model, text)
    write_json(options.run_folder / "clips.json", {"median_seconds": CLIP_SECONDS})
    return options.run_folder


def make_videos(folder: Path) -> Path:
    """Two videos of 20 and 12 s, and a broken one."""
    folder.mkdir(parents=True)
    shutil.copy(BASE, folder / "monday.mp4")
    encode(folder / "tuesday.webm", "libvpx", gop=15, seconds=12)
    (folder / "broken.mp4").write_bytes(BASE.read_bytes()[:9000])
    return folder
