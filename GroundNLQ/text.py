"""The text side of GroundNLQ: token features of a frozen encoder, or out of a file.

CLIP's are its last hidden states after the final norm, without the text projection, of the tokens
between the start and the end mark.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from GroundNLQ.options import Options
from utils.data.records import Records
from utils.features.tensors import resident
from utils.features.text_encoders import TextEncoder, load_encoder, load_trained_encoder
from utils.features.token_files import read_tokens
from utils.features.tokens import LiveTokens, TokenStore, open_tokens

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
TEXT_FILE = "text.json"  # in the run folder: which encoder it was
WAYS = ("cached", "live")  # to read an encoder's features


def open_encoder(options: Options, trained: Path | None = None) -> TextEncoder | None:
    """The encoder of a new run, or of the run whose folder is given; None if a file replaces it."""
    if options.text_features not in WAYS:
        return None
    if trained is None:
        return load_encoder(options.text_encoder or DEFAULT_ENCODER, projected=False)
    file, name = trained / TEXT_FILE, options.text_encoder
    return load_trained_encoder(file, name, DEFAULT_ENCODER, projected=False)


def clean(sentence: str) -> str:
    """A query as published: full stops at its ends are taken off, too."""
    return sentence.removesuffix("?").strip(".").strip(" ").strip("?") + "?"


class Text(NamedTuple):
    """Token features of each query."""

    tokens: TokenStore | LiveTokens
    numbers: np.ndarray  # (R,) the query's place among the tokens' sentences
    width: int
    leading: int  # tokens before the first word, which are left out

    def gather(self, rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, Q, width) float32 of queries, and their mask (B, Q)."""
        features, mask = self.tokens.gather(self.numbers[rows], device)
        return features[:, self.leading :], mask[:, self.leading :]


def open_text(
    options: Options,
    encoder: TextEncoder | None,
    records: Records,
    device: torch.device,
    train: bool,
) -> Text:
    """Token features of a split's queries, of the encoder or, without one, of the options' file."""
    if encoder is None:
        queries = zip(records.annotation.tolist(), records.query_idx.tolist(), strict=True)
        keys = [f"{records.annotation_uids[number]}_{place}" for number, place in queries]
        tokens = read_tokens(Path(options.text_features), keys, options.cache, train)
        table = resident(tokens.tokens, device, options.feature_device)
        return Text(replace(tokens, table=table), np.arange(len(records)), tokens.width, 0)
    tokens = open_tokens(
        encoder,
        [clean(sentence) for sentence in records.sentences],
        options.cache,
        device,
        options.text_features == "live",
        train,
        options.feature_device,
    )
    return Text(tokens, records.sentence, encoder.width, int(encoder.is_clip))
