"""The text side of GroundNLQ: token features of a frozen encoder, or out of a file.

CLIP's are its last hidden states after the final norm, without the text projection, of the tokens
between the start and the end mark.
"""

from pathlib import Path

import torch

from GroundNLQ.options import Options
from utils.data.records import Records
from utils.features.token_files import read_tokens
from utils.features.tokens import EncoderText, Gather, open_encoder
from utils.training.options import TEXT_FILE

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"


def open_text(options: Options, trained: Path | None = None) -> EncoderText | None:
    """The encoder of a new run, or of the run whose folder is given; None if a file replaces it."""
    if options.text_features not in ("cached", "live"):
        return None
    file = None if trained is None else trained / TEXT_FILE
    encoder = open_encoder(file, options.text_encoder, DEFAULT_ENCODER, projected=False)
    live, skipped = options.text_features == "live", int(encoder.is_clip)
    return EncoderText(encoder, live, options.cache, options.feature_device, skipped=skipped)


def open_queries(
    options: Options,
    text: EncoderText | None,
    records: Records,
    device: torch.device,
    train: bool,
) -> tuple[Gather, int]:
    """A function that gathers token features of queries by their row numbers, and their width.

    They are the encoder's or, without one, out of the file that the options name.
    """
    if text is not None:
        gather = text.open([clean(sentence) for sentence in records.sentences], device, train)
        return lambda rows: gather(records.sentence[rows]), text.width
    keys = [f"{annotation}_{number}" for _, annotation, number in records.keys]
    file, policy = Path(options.text_features), options.feature_device
    store = read_tokens(file, keys, options.cache, train, device, policy)
    return lambda rows: store.gather(rows, device), store.tokens.shape[1]


def clean(sentence: str) -> str:
    """A query as published: full stops at its ends are taken off, too."""
    return sentence.removesuffix("?").strip(".").strip(" ").strip("?") + "?"
