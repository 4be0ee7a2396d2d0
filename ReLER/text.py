"""ReLER's text input: token features of whole queries from a frozen encoder."""

from pathlib import Path

from ReLER.options import Options
from utils.features.tokens import EncoderText, open_encoder
from utils.training.options import TEXT_FILE

DEFAULT_ENCODER = "openai/clip-vit-base-patch16"


def open_text(options: Options, trained: Path | None = None) -> EncoderText:
    """The text input of a new run, or of the trained run in a folder."""
    file = None if trained is None else trained / TEXT_FILE
    encoder = open_encoder(file, options.text_encoder, DEFAULT_ENCODER)
    live = options.text_features == "live"
    return EncoderText(encoder, live, options.cache, options.feature_device)
