"""The text side of ReLER: the frozen encoder whose token features it reads."""

from pathlib import Path

from ReLER.options import Options
from utils.features.text_encoders import TextEncoder, load_encoder, load_trained_encoder

DEFAULT_ENCODER = "openai/clip-vit-base-patch16"
TEXT_FILE = "text.json"  # in the run folder: which encoder it was


def open_encoder(options: Options, trained: Path | None = None) -> TextEncoder:
    """The encoder of a new run, or of the run whose folder is given."""
    if trained is None:
        return load_encoder(options.text_encoder or DEFAULT_ENCODER)
    return load_trained_encoder(trained / TEXT_FILE, options.text_encoder, DEFAULT_ENCODER)
