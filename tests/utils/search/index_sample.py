"""A run with random weights that reads tiny CLIP features, and videos that show their own time."""

import dataclasses
import shutil
from pathlib import Path

from tests.bad_inputs.world import write_text_encoder
from tests.utils.features.clocked import BASE, encode
from utils.base.files import write_json
from utils.base.tensor_files import save_atomically
from VSLNet.options import Options
from VSLNet.text import TEXT_FILE, open_text
from VSLNet.weights import build_model, checkpoint_state

CLIP_SECONDS = 8


def make_run(
    folder: Path, seed: int = 1, fv: str = "clip", width: int = 32, text_encoder: Path | None = None
) -> Path:
    """A run folder of VSLNet, as training leaves it, whose clips are 8 s long."""
    if text_encoder is None and not (text_encoder := folder / "bert").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text_encoder(text_encoder)
    options = Options(
        task="mine", fv=fv, data_root=str(folder), model_dir=str(folder / f"run{seed}"),
        text_encoder=str(text_encoder), max_pos_len=16, dim=16, num_heads=2, seed=seed,
    )  # fmt: skip
    text = open_text(options)
    model = build_model(options, width, text)
    for block in (model.predictor.start_block, model.predictor.end_block):
        block[2].conv1d.weight.data *= 20  # it has opinions
    write_json(options.run_folder / options.OPTIONS_FILE, dataclasses.asdict(options))
    write_json(options.run_folder / TEXT_FILE, text.describe())
    write_json(options.run_folder / "clips.json", {"median_seconds": CLIP_SECONDS})
    save_atomically(checkpoint_state(model, text, False), options.run_folder / "vslnet_7.t7")
    return options.run_folder


def make_videos(folder: Path) -> Path:
    """Two videos of 20 and 12 s, and a broken one."""
    folder.mkdir(parents=True)
    shutil.copy(BASE, folder / "monday.mp4")
    encode(folder / "tuesday.webm", "libvpx", gop=15, seconds=12)
    (folder / "broken.mp4").write_bytes(BASE.read_bytes()[:9000])
    return folder
