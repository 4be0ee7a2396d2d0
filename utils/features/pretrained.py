"""Pretrained encoders as `transformers` saves them: in a folder or on the hub."""

import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct
from torch import nn

from utils.base.errors import UserError, in_brief, is_out_of_memory
from utils.base.files import read_json

WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")  # the first kind there is read
WEIGHT_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
HUB_SECONDS = 10.0  # to wait for the hub's first answer
LFS_POINTER = b"version https://git-lfs"  # begins the file that stands for one not fetched

Width = Annotated[int, Meta(ge=1, le=1 << 16)]
Layers = Annotated[int, Meta(ge=1, le=1000)]
Tokens = Annotated[int, Meta(ge=1, le=1 << 24)]


class Shape(Struct):
    """What a model's size depends on, as far as its config.json says it."""

    hidden_size: Width | None = None
    d_model: Width | None = None
    dim: Width | None = None
    intermediate_size: Annotated[int, Meta(ge=1, le=1 << 18)] | None = None
    projection_dim: Width | None = None
    num_hidden_layers: Layers | None = None
    num_layers: Layers | None = None
    n_layers: Layers | None = None
    num_attention_heads: Layers | None = None
    vocab_size: Tokens | None = None
    max_position_embeddings: Tokens | None = None
    image_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    patch_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    num_frames: Layers | None = None
    num_labels: Width | None = None


class Config(Shape):
    """A config.json."""

    model_type: str | None = None
    text_config: Shape | None = None
    vision_config: Shape | None = None


def read_config(folder: Path) -> Config:
    """The config.json of an encoder; raises UserError for sizes that no model has."""
    return read_json(folder / "config.json", Config)


def find_pretrained(name: str, what: str, files: Sequence[str], remedy: str) -> Path:
    """The folder with an encoder's config, weights and further `files`.

    `what` it is (`text encoder`) and the `remedy` are words for the `UserError` if there is none.
    """
    if not Path(name).is_dir():
        return _from_hub(name, what, files, remedy)
    if not (Path(name) / "config.json").is_file():
        raise UserError(f"{name}: no config.json, not the folder of a pretrained {what}")
    for file in filter(Path.is_file, Path(name).iterdir()):
        with file.open("rb") as content:
            if content.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(f"{file}: a pointer of git-lfs; fetch the file with git lfs pull")
    return Path(name)


def weight_files(folder: Path) -> list[Path]:
    """The files with an encoder's weights."""
    kinds = (sorted(folder.glob(kind)) for kind in WEIGHT_FILES)
    return next(filter(None, kinds), [])


def load_pretrained(model_class: Any, folder: Path, what: str, unread: Sequence[str]) -> nn.Module:
    """The model with all its weights, but for those whose names hold a word of `unread`."""
    config = load_config(model_class, folder, what)
    model, report = load_from(model_class, folder, what, config=config, output_loading_info=True)
    lacking = sorted(k for k in report["missing_keys"] if not any(w in k for w in unread))
    if lacking:  # the library would draw them at random, differently each time
        raise UserError(
            f"{folder}: {len(lacking)} weights of the {what} are missing "
            f"({lacking[0]}, ...); give the folder of a whole encoder"
        )
    return model


def load_config(model_class: Any, folder: Path, what: str) -> Any:
    """A model's configuration; CLIP's halves may lack `projection_dim`, which the whole has."""
    from transformers import AutoConfig

    width = read_config(folder).projection_dim
    config = load_from(getattr(model_class, "config_class", None) or AutoConfig, folder, what)
    if width:
        config.projection_dim = width
    return config


def load_from(loader: Any, folder: Path, what: str, **options: Any) -> Any:
    """What `loader.from_pretrained` makes of a folder; any failure is a `UserError`."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    options |= {"local_files_only": True, "trust_remote_code": False}
    return trying(folder, what, loader.from_pretrained, str(folder), **options)


def hash_weights(state: dict[str, torch.Tensor], settings: str = "") -> str:
    """A hash of weights, and of other settings that features depend on."""
    digest = hashlib.blake2b(settings.encode(), digest_size=10)
    for name, value in state.items():
        digest.update(name.encode() + value.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def trying(folder: Path, what: str, act: Callable, *arguments: Any, **options: Any) -> Any:
    """What `act` returns; any failure is a `UserError` about the folder it works with."""
    try:
        return act(*arguments, **options)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = in_brief(error, 150)
        raise UserError(f"{folder}: can't be used as the {what} ({reason})") from None


def _from_hub(name: str, what: str, files: Sequence[str], remedy: str) -> Path:
    """The folder of an encoder on the hub: an earlier download, or else a new one."""
    from huggingface_hub import HfApi, snapshot_download  # slow to import
    from huggingface_hub.errors import HFValidationError

    patterns = ["config.json", *files, *WEIGHT_INDICES]
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        if (folder / "config.json").is_file() and weight_files(folder):
            return folder
    except HFValidationError:
        raise UserError(f"{what} '{name}' is neither a folder nor a hub name") from None
    except Exception:  # not in the local cache; the library has no one error for it
        pass
    try:
        # Asked first with a limit: the download itself may wait for a silent server for ever.
        about = HfApi().model_info(name, timeout=HUB_SECONDS)
        names = [file.rfilename for file in about.siblings or []]
        kinds = [kind for kind in WEIGHT_FILES if fnmatch.filter(names, kind)]
        if not kinds:
            raise ValueError(f"it has no weights {' or '.join(WEIGHT_FILES)}")
        return Path(snapshot_download(name, allow_patterns=[*patterns, kinds[0]]))
    except Exception as error:
        reason = in_brief(error, 100)
        raise UserError(
            f"{what} '{name}' is not on this machine and can't be fetched ({reason}); {remedy}"
        ) from None
