"""The text side of VSLNet: a frozen encoder's token features, or words and characters."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.errors import UserError
from utils.files import read_json
from utils.records import read_records
from utils.text import load_encoder
from utils.tokens import LiveTokens, encode_sentences
from VSLNet.options import Options
from VSLNet.words import Vocabulary, build_vocabulary

DEFAULT_ENCODER = "bert-base-uncased"
TEXT_FILE = "text.json"  # in the run folder: what inference needs to read text the same way


class Text(NamedTuple):
    """What the model reads: token features, or word and character numbers."""

    tokens: torch.Tensor  # (B, Q, T) features, or (B, Q) word numbers
    mask: torch.Tensor  # (B, Q)
    characters: torch.Tensor | None  # (B, Q, C) character numbers


Gather = Callable[[np.ndarray, torch.device], Text]


class EncoderText:
    """Token features of a frozen text encoder, from the store or encoded in the loop."""

    characters = 0
    vectors = None

    def __init__(self, options: Options, name: str):
        self.encoder = load_encoder(name, options.text_agnostic, options.seed)
        self.width = self.encoder.width
        self._live = options.text_features == "live"
        self._cache = options.cache

    def describe(self) -> dict:
        """The encoder that checkpoints leave out: name, width and hash."""
        encoder = self.encoder
        return {"encoder": encoder.name, "width": self.width, "hash": encoder.fingerprint}

    def open(self, sentences: list[str], device: torch.device, train: bool) -> Gather:
        """A function from sentence numbers to `Text`."""
        if self._live:
            tokens = LiveTokens(self.encoder, sentences, train)
        else:
            tokens = encode_sentences(self.encoder, sentences, self._cache, device)

        def gather(rows: np.ndarray, device: torch.device) -> Text:
            features, mask = tokens.gather(rows, device)
            return Text(features, mask, None)

        return gather


class WordText:
    """Words with GloVe vectors and their characters (predictor rnn)."""

    width = None

    def __init__(self, vocabulary: Vocabulary, vectors: np.ndarray):
        self.vocabulary = vocabulary
        self.characters = vocabulary.character_count
        self.vectors = torch.from_numpy(vectors)

    def describe(self) -> dict:
        """The vocabulary: inference needs the same numbers."""
        return {"words": self.vocabulary.words, "characters": self.vocabulary.characters}

    def open(self, sentences: list[str], device: torch.device, train: bool) -> Gather:
        """A function from sentence numbers to `Text`."""
        encoded = self.vocabulary.encode(sentences)

        def gather(rows: np.ndarray, device: torch.device) -> Text:
            words, characters, mask = encoded.batch(rows, device)
            return Text(words, mask, characters)

        return gather


def open_text(options: Options) -> EncoderText | WordText:
    """The text side of a new run, or of the run whose checkpoint is to be used."""
    trained = options.run_folder / TEXT_FILE
    known = options.mode != "train" and trained.is_file()
    described = read_json(trained) if known else {}
    if options.predictor == "rnn":
        if described:
            # The vectors themselves come with the checkpoint.
            vocabulary = Vocabulary(described["words"], described["characters"])
            return WordText(vocabulary, np.zeros((len(vocabulary.words), options.word_dim), "f4"))
        return WordText(*_vocabulary_of_splits(options))
    text = EncoderText(options, options.text_encoder or described.get("encoder") or DEFAULT_ENCODER)
    if described and described["hash"] != text.encoder.fingerprint:
        raise UserError(
            f"{trained}: the run was trained with the text encoder {described['encoder']} "
            f"(width {described['width']}), {text.encoder.name} is another (width {text.width}); "
            "give the same with --text_encoder"
        )
    return text


def _vocabulary_of_splits(options: Options) -> tuple[Vocabulary, np.ndarray]:
    folder = Path(options.data_root) / "dataset" / options.task
    files = [folder / f"{name}.json" for name in ("train", "val", "test")]
    sentences = [text for file in files if file.is_file() for text in read_records(file).sentences]
    glove = Path(options.data_root) / "features" / f"glove.840B.{options.word_dim}d.txt"
    return build_vocabulary(sentences, glove, options.word_dim)
