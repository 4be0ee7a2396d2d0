"""VSLNet's weights: a new model from options, and checkpoints in the published layout.

A checkpoint is a plain state dict. Published ones include the frozen text encoder under
`embedding_net.embedder.`; ours only with `--save_text_encoder`, since `text.json` in the run folder
describes it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.options import adopt
from utils.base.tensor_files import load_safely
from utils.features.tokens import EncoderText
from utils.training.checkpoints import Trained, find_checkpoint, fit_state
from utils.training.options import INHERITED
from VSLNet.model import VSLNet
from VSLNet.options import NEW_PADDING, SHAPE, Options
from VSLNet.text import WordText, open_text

ENCODER_PREFIX = "embedding_net.embedder."
VIDEO_WEIGHT = "video_affine.linear.conv1d.weight"  # (D, F, 1)
POSITIONS = "feature_encoder.pos_embedding.position_embeddings.weight"  # (units, D)


def load_trained(checkpoint: Path, device: torch.device, **overrides: Any) -> Trained:
    """Load the model of a checkpoint, with the options of its run except for `overrides`.

    The model's shape is always that of the run. Without options beside the checkpoint, the shape is
    read from its weights, and padding is `published`.

    Raises:
        UserError: not a VSLNet checkpoint, or one that its options don't fit.
    """
    state = load_safely(checkpoint)
    units, dim = _shape(state, POSITIONS, 2, checkpoint)
    width = _shape(state, VIDEO_WEIGHT, 3, checkpoint)[1]
    trained = {"max_pos_len": units, "dim": dim} | read_options(checkpoint.parent)
    options = _trained_options(checkpoint, trained, overrides)
    if options.video_feature_dim not in (None, width):
        raise UserError(
            f"--video_feature_dim is {options.video_feature_dim}, but {checkpoint} was trained on "
            f"features of {width}"
        )
    options = dataclasses.replace(options, video_feature_dim=width)
    text = open_text(options, checkpoint.parent)
    model = build_model(options, width, text)
    load_weights(model, state, checkpoint)
    return Trained(options, model.to(device).eval(), text)


def _trained_options(checkpoint: Path, trained: dict, overrides: dict) -> Options:
    names = (*INHERITED, "predictor", "max_pos_len", "text_agnostic", "video_agnostic", "seed")
    values = {"mode": "val"} | {name: trained[name] for name in names if name in trained}
    values |= overrides
    values |= {name: trained[name] for name in SHAPE if name in trained}
    values["padding"] = overrides.get("padding") or trained.get("padding") or "published"
    file = checkpoint.parent / Options.OPTIONS_FILE
    return adopt(Options(task="unknown", fv="unknown"), values, file)


def with_padding(options: Options) -> Options:
    """Set the padding of a training: as given, or as its first weights were trained.

    The latter is read from the run folder of a continued run, or beside the checkpoint that a new
    run begins with; otherwise it is `NEW_PADDING`.
    """
    if options.padding is not None:
        return options
    folder = options.run_folder
    if options.restart or not (folder / Options.OPTIONS_FILE).is_file():
        if options.init_from is None:
            return dataclasses.replace(options, padding=NEW_PADDING)
        folder = find_checkpoint(options.init_from).parent
    padding = read_options(folder).get("padding") or "published"
    return adopt(options, {"padding": padding}, folder / Options.OPTIONS_FILE)


def read_options(folder: Path) -> dict[str, Any]:
    """The options in a run folder by name, empty if it has none."""
    file = folder / Options.OPTIONS_FILE
    return read_json(file, dict[str, Any]) if file.is_file() else {}


def build_model(options: Options, video_dim: int, text: EncoderText | WordText) -> VSLNet:
    """Initialise a model that fits the features and the text."""
    torch.manual_seed(options.seed)
    words = {}
    if isinstance(text, WordText):
        words = {"word_vectors": text.vectors, "characters": text.vocabulary.character_count}
    return VSLNet(
        video_dim=video_dim,
        text_dim=text.width,
        dim=options.dim,
        num_heads=options.num_heads,
        max_pos_len=options.max_pos_len,
        drop_rate=options.drop_rate,
        predictor=options.predictor,
        num_extra_attn_blocks=options.num_extra_attn_blocks,
        **words,
        char_dim=options.char_dim,
        padding=options.padding,
    )


def load_weights(model: VSLNet, state: Any, file: Path) -> None:
    """Load a checkpoint, ours or a published one, into the model."""
    if isinstance(state, dict):
        state = {k: v for k, v in state.items() if not str(k).startswith(ENCODER_PREFIX)}
    fit_state(model, state, file)


def _shape(state: Any, name: str, dimensions: int, file: Path) -> torch.Size:
    weight = state.get(name) if isinstance(state, dict) else None
    if not torch.is_tensor(weight) or weight.ndim != dimensions:
        raise UserError(f"{file}: not a VSLNet checkpoint, it has no {name}")
    return weight.shape


def checkpoint_state(model: VSLNet, text: EncoderText | WordText, with_encoder: bool) -> dict:
    """The state dict to save, optionally with the frozen text encoder as published."""
    state = dict(model.state_dict())
    if with_encoder and isinstance(text, EncoderText):
        encoder = text.encoder.model.state_dict()
        state |= {f"{ENCODER_PREFIX}{name}": value for name, value in encoder.items()}
    return state
