"""VSLNet's weights: a new model from options, and checkpoints in the published layout.

A checkpoint is a plain state dict. Published ones carry the frozen text encoder under
`embedding_net.embedder.`; ours leave it out unless asked to include it, and the run folder's
`text.json` says which it was.
"""

from pathlib import Path

import torch

from utils.base.tensor_files import load_safely
from utils.features.tokens import EncoderText
from utils.training.checkpoints import fit_state
from VSLNet.model import VSLNet
from VSLNet.options import Options
from VSLNet.text import WordText

ENCODER_PREFIX = "embedding_net.embedder."


def build_model(options: Options, video_dim: int, text: EncoderText | WordText) -> VSLNet:
    """A freshly initialised model that fits the features and the text."""
    words = {}
    if isinstance(text, WordText):
        words = {"word_vectors": text.vectors, "characters": text.vocabulary.character_count}
    torch.manual_seed(options.seed)
    return VSLNet(
        video_dim=video_dim,
        text_dim=text.width,
        dim=options.dim,
        num_heads=options.num_heads,
        max_pos_len=options.max_pos_len,
        drop_rate=options.drop_rate,
        predictor=options.predictor,
        num_extra_attn_blocks=options.num_extra_attn_blocks,
        char_dim=options.char_dim,
        padding=options.padding,
        **words,
    )


def load_weights(model: VSLNet, file: Path) -> None:
    """Fill the model from a checkpoint, ours or a published one."""
    state = load_safely(file)
    if isinstance(state, dict):
        state = {k: v for k, v in state.items() if not str(k).startswith(ENCODER_PREFIX)}
    fit_state(model, state, file)


def checkpoint_state(model: VSLNet, text: EncoderText | WordText, with_encoder: bool) -> dict:
    """The state dict to save, on request with the frozen text encoder as published."""
    state = dict(model.state_dict())
    if with_encoder and isinstance(text, EncoderText):
        encoder = text.encoder.model.state_dict()
        state |= {f"{ENCODER_PREFIX}{name}": value for name, value in encoder.items()}
    return state
