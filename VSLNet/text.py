"""VSLNet's text input: token features of a frozen encoder, or words and characters."""

from pathlib import Path

import numpy as np
import torch

from utils.base.files import read_json
from utils.data.records import read_records
from utils.features.tokens import EncoderText, Gather, open_encoder
from utils.layers.span_encoder import REACH
from utils.training.options import TEXT_FILE
from VSLNet.options import Options
from VSLNet.words import Vocabulary, build_vocabulary

DEFAULT_ENCODER = "bert-base-uncased"


class WordText:
    """Words with GloVe vectors and their characters (predictor rnn)."""

    width = None

    def __init__(self, options: Options, vocabulary: Vocabulary, vectors: np.ndarray):
        self.vocabulary = vocabulary
        self.vectors = torch.from_numpy(vectors)
        self._limit = options.max_pos_len
        self._padded_words = options.padding != "published"

    def describe(self) -> Vocabulary:
        """The vocabulary, which inference needs for the same numbers."""
        return self.vocabulary

    def open(self, sentences: list[str], device: torch.device, train: bool) -> Gather:
        """A function that gathers word and character numbers of the sentences."""
        encoded = self.vocabulary.encode(sentences)
        return lambda rows: encoded.batch(rows, device, self._padded_words).cut(self._limit)


def open_text(options: Options, run_folder: Path | None = None) -> EncoderText | WordText:
    """The text input of a new run, or of the trained run in a folder."""
    file = None if run_folder is None else run_folder / TEXT_FILE
    if options.predictor == "rnn" and file is not None and file.is_file():
        vocabulary = read_json(file, Vocabulary)
        # The checkpoint holds the vectors.
        vectors = np.zeros((len(vocabulary.words), options.word_dim), np.float32)
        return WordText(options, vocabulary, vectors)
    if options.predictor == "rnn":
        return WordText(options, *_vocabulary_of_splits(options))
    random_seed = options.seed if options.text_agnostic else None
    return EncoderText(
        open_encoder(file, options.text_encoder, DEFAULT_ENCODER, random_seed=random_seed),
        options.text_features == "live",
        options.cache,
        options.feature_device,
        limit=options.max_pos_len,
        padding=REACH if options.padding == "published" else 0,
    )


def _vocabulary_of_splits(options: Options) -> tuple[Vocabulary, np.ndarray]:
    folder = Path(options.data_root) / "dataset" / options.task
    files = [folder / f"{name}.json" for name in ("train", "val", "test")]
    sentences = [text for file in files if file.is_file() for text in read_records(file).sentences]
    glove = Path(options.data_root) / "features" / f"glove.840B.{options.word_dim}d.txt"
    return build_vocabulary(sentences, glove, options.word_dim)
