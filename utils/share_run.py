"""Share a trained run: its weights and what loading needs, without optimizer, paths or pickles.

    python utils/share_run.py runs/tuned --to shared/tuned
    python utils/share_run.py runs/tuned --to hf://owner/name      # needs: hf auth login

The folder holds the best weights (model.safetensors), the options and the text encoder's name and
hash, and a model card with scores and protocol. It takes the place of a run folder everywhere:
`load_run("shared/tuned")`, `ask.py --checkpoint hf://owner/name`, `--init_from`.
"""

import sys
import tempfile
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import dataclasses
from argparse import Namespace
from typing import Any

from msgspec.structs import replace

from utils.base.errors import UserError, run_program
from utils.base.files import atomic_folder, atomic_write, read_json, write_json
from utils.base.hub import is_on_hub, send_folder
from utils.base.options import ArgumentParser
from utils.base.tensor_files import load_safely, write_safetensors
from utils.evaluation.calibration import CALIBRATION_FILE
from utils.search.models import Package, package_of_run
from utils.training.checkpoints import SHARED, checkpoint_hash, find_checkpoint
from utils.training.evaluations import FIGURES, best_evaluation
from utils.training.options import TEXT_FILE

LEFT_OUT = ("optimizer", "lr_scheduler", "scheduler")  # of a checkpoint
OPTIONS = {"opt", "options"}  # in a checkpoint
CARD = ("type", "model", "hash", "frame_rate", "stride", "window", "width")  # kept of feature cards


def main(arguments: list[str] | None = None) -> None:
    """Write the folder, or a temporary one that is uploaded."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder or checkpoint; the last one in it is shared")
    add("--to", required=True, metavar="DIR|hf://owner/name", help="new folder, or name on the hub")
    options = parser.parse_args(arguments)
    if is_on_hub(options.to):
        with tempfile.TemporaryDirectory() as folder:
            share(options.run, Path(folder), options.to)
            print(f"shared: {send_folder(Path(folder), options.to)}")
        return
    folder = Path(options.to)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; name a new folder")
    with atomic_folder(folder) as new:
        share(options.run, new, folder.name)
    print(f"shared: {folder}")


def share(run: str, folder: Path, name: str) -> None:
    """Write a run's weights, options, description of its text encoder and card into the folder."""
    from utils.search import search  # slow

    checkpoint = find_checkpoint(run)
    package = package_of_run(checkpoint)
    if package is None:
        raise UserError(f"{checkpoint}: no options beside it that say how it was trained")
    content = load_safely(checkpoint, allow=(Namespace,))
    content = {key: value for key, value in content.items() if key not in LEFT_OUT}
    for key in OPTIONS & content.keys():
        values = content[key]
        content[key] = shareable(values if isinstance(values, dict) else vars(values), package)
    options = read_json(checkpoint.parent / package.options_file, dict)
    task, fv, data_root = (options[name] for name in ("task", "fv", "data_root"))
    names = package.module("options").Options(task=task, fv=fv).features
    clips = search.TrainedClips(
        search.trained_clip_seconds(checkpoint.parent, data_root, task),
        shareable_cards(search.trained_cards(checkpoint.parent, data_root, names)),
    )
    trained = shareable(options, package)
    write_safetensors(content, folder / SHARED)
    write_json(folder / package.options_file, trained, indent=True)
    write_json(folder / search.CLIPS_FILE, clips)
    if (calibration := search.read_calibration(checkpoint)) is not None:
        calibration = replace(calibration, checkpoint=checkpoint_hash(folder / SHARED))
        write_json(folder / CALIBRATION_FILE, calibration)
    if text := shareable_text(checkpoint.parent):
        write_json(folder / TEXT_FILE, text)
    with atomic_write(folder / "README.md") as file:
        file.write(card(package, trained, text, checkpoint.parent, name).encode())


def shareable(trained: dict[str, Any], package: Package) -> dict[str, Any]:
    """A run's options without those that name files of the machine it was trained on."""
    fields = dataclasses.fields(package.module("options").Options)
    private = {f.name for f in fields if f.metadata["free"] or f.metadata["local"]}
    return {option: value for option, value in trained.items() if option not in private}


def shareable_text(folder: Path) -> dict[str, Any]:
    """A run's description of its text, without the folder that a local text encoder lies in."""
    text = read_json(folder / TEXT_FILE, dict) if (folder / TEXT_FILE).is_file() else {}
    if encoder := text.get("encoder"):
        text["encoder"] = shareable_encoder(encoder)
    return text


def shareable_cards(cards: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What feature cards say of the encoder and of time, by name."""
    kept = {name: {k: v for k, v in card.items() if k in CARD} for name, card in cards.items()}
    for card in kept.values():
        if "model" in card:
            card["model"] = shareable_encoder(str(card["model"]))
    return kept


def shareable_encoder(name: str) -> str:
    """An encoder's name; of a local folder or file without the folder that it lies in."""
    path = Path(name.partition("@")[0])
    return Path(name).name if path.is_absolute() or path.exists() else name


def card(
    package: Package, trained: dict[str, Any], text: dict[str, Any], run: Path, name: str
) -> str:
    """The model card: what it is, how well it does by which protocol, and how to use it."""
    scores = best_evaluation(run)
    figures = " | ".join(f"{scores[figure]:.2f}" for figure in FIGURES)
    encoder = text.get("encoder", "words of the queries")
    return f"""---
tags: [episodic-memory, video-search, ego4d, naq]
---
# {package.name} trained on {trained["task"]}

Given a long first-person video and a question, it finds the seconds that answer it. Trained with
NaQ, Narrations-as-Queries (arXiv:2301.00746).

| {" | ".join(FIGURES)} |
|{"---|" * len(FIGURES)}
| {figures} |

Per cent, of {scores["evaluated"]} of {scores["listed"]} queries of {trained["task"]}'s validation
split after step {scores["step"]}, which chose this checkpoint. Windows of a query overlap by an IoU
of at most {trained.get("nms_threshold") or 1}.

- video features: `{trained["fv"]}`
- text encoder: `{encoder}`; `{TEXT_FILE}` has its hash
- options: `{package.options_file}`; training data have licences of their own

```python
from utils.search import load_run
run = load_run("{name}")
answers = run.encode("features/video.pt").ask(["Where did I put the keys?"])
```
"""


if __name__ == "__main__":
    run_program(main)
