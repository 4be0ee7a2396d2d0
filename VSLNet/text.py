"""The text side of VSLNet: a frozen encoder's token features, or words and characters."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.data.records import read_records
from utils.features.tensors import pad_to
from utils.features.text_encoders import (
    TextEncoder,
    describe_encoder,
    load_encoder,
    load_trained_encoder,
)
from utils.features.tokens import open_tokens
from utils.layers.span_encoder import REACH
from VSLNet.options import Options
from VSLNet.words import Vocabulary, build_vocabulary

DEFAULT_ENCODER = "bert-base-uncased"
TEXT_FILE = "text.json"  # in the run folder: what inference needs to read text the same way


class Text(NamedTuple):
    """What the model reads: token features, or word and character numbers."""

    tokens: torch.Tensor  # (B, Q, T) features, or (B, Q) word numbers
    mask: torch.Tensor  # (B, Q)
    characters: torch.Tensor | None  # (B, Q, C) character numbers

    def cut(self, limit: int) -> "Text":
        """The first `limit` tokens of each query: there are no more positions than that."""
        return Text(*(part if part is None else part[:, :limit] for part in self))

    def pad(self, length: int) -> "Text":
        """Padding after each query, up to so many tokens."""
        return Text(*(part if part is None else pad_to(part, length) for part in self))


Gather = Callable[[np.ndarray, torch.device], Text]


class EncoderText:
    """Token features of a frozen text encoder, from the store or encoded in the loop.

    With published padding, those of the padding that convolutions see are the encoder's own.
    """

    characters = 0
    vectors = None

    def __init__(self, options: Options, encoder: TextEncoder):
        self.encoder = encoder
        self.width = encoder.width
        self._live = options.text_features == "live"
        self._cache = options.cache
        self._limit = options.max_pos_len
        self._place = options.feature_device
        self._padding = REACH if options.padding == "published" else 0

    def describe(self) -> dict:
        """The encoder that checkpoints leave out: name, width and hash."""
        return describe_encoder(self.encoder)

    def open(self, sentences: list[str], device: torch.device, train: bool) -> Gather:
        """A function from sentence numbers to `Text`."""
        tokens = open_tokens(
            self.encoder,
            sentences,
            self._cache,
            device,
            self._live,
            train,
            self._place,
            self._padding,
        )

        def gather(rows: np.ndarray, device: torch.device) -> Text:
            features, mask = tokens.gather(rows, device)
            return Text(features, mask, None).cut(self._limit)

        return gather


class WordText:
    """Words with GloVe vectors and their characters (predictor rnn)."""

    width = None

    def __init__(self, options: Options, vocabulary: Vocabulary, vectors: np.ndarray):
        self.vocabulary = vocabulary
        self._limit = options.max_pos_len
        self._spelled_alone = options.padding != "published"
        self.characters = vocabulary.character_count
        self.vectors = torch.from_numpy(vectors)

    def describe(self) -> dict:
        """The vocabulary: inference needs the same numbers."""
        return {"words": self.vocabulary.words, "characters": self.vocabulary.characters}

    def open(self, sentences: list[str], device: torch.device, train: bool) -> Gather:
        """A function from sentence numbers to `Text`."""
        encoded = self.vocabulary.encode(sentences)

        def gather(rows: np.ndarray, device: torch.device) -> Text:
            words, characters, mask = encoded.batch(rows, device, self._spelled_alone)
            return Text(words, mask, characters).cut(self._limit)

        return gather


def open_text(options: Options, run_folder: Path | None = None) -> EncoderText | WordText:
    """The text side of a new run, or of the trained run in a folder."""
    file = None if run_folder is None else run_folder / TEXT_FILE
    trained = file is not None and file.is_file()
    if options.predictor == "rnn":
        if trained:
            # The vectors themselves come with the checkpoint.
            vocabulary = _read_vocabulary(file)
            vectors = np.zeros((len(vocabulary.words), options.word_dim), "f4")
            return WordText(options, vocabulary, vectors)
        return WordText(options, *_vocabulary_of_splits(options))
    name, random = options.text_encoder, options.text_agnostic
    if trained:
        encoder = load_trained_encoder(file, name, DEFAULT_ENCODER, random, options.seed)
    else:
        encoder = load_encoder(name or DEFAULT_ENCODER, random, options.seed)
    return EncoderText(options, encoder)


def _read_vocabulary(file: Path) -> Vocabulary:
    described = read_json(file)
    known = described if isinstance(described, dict) else {}
    lists = [known.get(name) for name in ("words", "characters")]
    for some in lists:
        if not isinstance(some, list) or not all(isinstance(text, str) for text in some):
            raise UserError(f"{file}: must hold lists of words and characters; copy the run again")
    return Vocabulary(*lists)


def _vocabulary_of_splits(options: Options) -> tuple[Vocabulary, np.ndarray]:
    folder = Path(options.data_root) / "dataset" / options.task
    files = [folder / f"{name}.json" for name in ("train", "val", "test")]
    sentences = [text for file in files if file.is_file() for text in read_records(file).sentences]
    glove = Path(options.data_root) / "features" / f"glove.840B.{options.word_dim}d.txt"
    return build_vocabulary(sentences, glove, options.word_dim)
