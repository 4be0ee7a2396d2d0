"""Words and characters for the predictor `rnn`: a vocabulary and its GloVe vectors.

Words are lower-cased and split by NLTK; those without a GloVe vector share a trained vector. Rare
characters are unknown. Number 0 is padding, 1 is unknown.

Shapes: S sentences, W distinct words, B batch, Q words of a query, C characters of a word.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from msgspec import Struct
from nltk.tokenize import word_tokenize
from tqdm import tqdm

from utils.base.errors import UserError
from utils.features.tensors import to_device
from utils.features.tokens import Text

PADDING, UNKNOWN = 0, 1
FIRST = 2  # number of the first known word or character
MIN_CHARACTER_COUNT = 5
WIDEST_KERNEL = 4  # of the convolutions over characters


def tokenize(sentence: str) -> list[str]:
    """The words of a sentence, without NLTK's downloaded models."""
    return word_tokenize(sentence.lower(), preserve_line=True)


class Vocabulary(Struct, frozen=True):
    """Words and characters, numbered in order from 2 on."""

    words: list[str]
    characters: list[str]

    @property
    def character_count(self) -> int:
        """Size of the character embedding."""
        return FIRST + len(self.characters)

    def encode(self, sentences: list[str]) -> "EncodedSentences":
        """Numbers of the words and characters of each sentence."""
        word_numbers = {word: number for number, word in enumerate(self.words, FIRST)}
        letter_numbers = {letter: number for number, letter in enumerate(self.characters, FIRST)}
        tokenized = [tokenize(sentence) or [""] for sentence in sentences]
        distinct = sorted({word for words in tokenized for word in words})
        index = {word: number for number, word in enumerate(distinct)}
        indices, mask = _pad([[index[word] for word in words] for words in tokenized])
        numbers = np.array([word_numbers.get(word, UNKNOWN) for word in distinct])
        spelled, _ = _pad([[letter_numbers.get(c, UNKNOWN) for c in word] for word in distinct])
        spelled = np.pad(spelled, ((0, 0), (0, WIDEST_KERNEL)), constant_values=PADDING)
        return EncodedSentences(indices, mask, numbers, spelled)


@dataclass(frozen=True)
class EncodedSentences:
    """S sentences of W distinct words."""

    indices: np.ndarray  # (S, Q) of distinct words
    mask: np.ndarray  # (S, Q)
    numbers: np.ndarray  # (W,) word numbers
    spelled: np.ndarray  # (W, C) character numbers

    def batch(
        self, sentences: np.ndarray, device: torch.device | str = "cpu", padded_words: bool = True
    ) -> Text:
        """Word numbers (B, Q), mask (B, Q) and character numbers (B, Q, C), zeros at padding.

        With `padded_words`, each word is followed by as much padding as the widest convolution
        reads, so that its features do not depend on longer words of the batch. Otherwise C is the
        length of the longest word, as published.
        """
        mask = self.mask[sentences]
        mask = mask[:, : mask.sum(1).max()]
        indices = self.indices[sentences, : mask.shape[1]]
        words = np.where(mask, self.numbers[indices], PADDING)
        letters = np.where(mask[..., None], self.spelled[indices], PADDING)
        if not padded_words:
            longest = np.flatnonzero((letters != PADDING).any((0, 1))).max(initial=0) + 1
            letters = letters[..., : max(longest, WIDEST_KERNEL)]
        words, letters, mask = (to_device(x, device) for x in (words, letters, mask))
        return Text(words, mask.float(), letters)


def _pad(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Pad lists of numbers with zeros: numbers (S, Q) and mask (S, Q)."""
    lengths = np.array(list(map(len, lists)))
    mask = np.arange(lengths.max()) < lengths[:, None]
    numbers = np.zeros(mask.shape, np.int64)
    numbers[mask] = np.concatenate(lists)
    return numbers, mask


def build_vocabulary(
    sentences: list[str], glove: Path, word_dim: int
) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary of sentences, and the GloVe vectors (words, word_dim) of its words."""
    words = [word for sentence in sentences for word in tokenize(sentence)]
    letters = Counter("".join(words))
    vectors = read_glove(glove, set(words), word_dim)
    frequent = sorted(letter for letter, count in letters.items() if count >= MIN_CHARACTER_COUNT)
    vocabulary = Vocabulary(sorted(vectors), frequent)
    return vocabulary, np.stack([vectors[word] for word in vocabulary.words])


def read_glove(file: Path, words: set[str], width: int) -> dict[str, np.ndarray]:
    """The vectors (width,) float32 of those words that have one.

    Raises `UserError` for a missing file, and for a line that is not a word and `width` numbers.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; predictor rnn needs the word vectors (GloVe) there")
    first_parts = {word.encode() for word in words}
    vectors: dict[str, np.ndarray] = {}
    size = file.stat().st_size
    bar = tqdm(total=size, desc="reading GloVe", unit="B", unit_scale=True, leave=False)
    with file.open("rb") as lines, bar:
        for number, line in enumerate(lines, 1):
            bar.update(len(line))
            if line.count(b" ") >= width and line[: line.index(b" ")] not in first_parts:
                continue  # most lines; splitting them would take most of the time
            # Some "words" contain spaces: count the numbers from the right.
            word, *numbers = line.decode("utf-8", "replace").rstrip().rsplit(" ", width)
            try:
                vector = np.array(numbers, dtype=np.float32)
            except ValueError:
                vector = np.empty(0, np.float32)
            if len(vector) != width or not np.isfinite(vector).all():
                raise UserError(
                    f"{file}: line {number} is not a word and {width} numbers (--word_dim)"
                )
            if word in words:
                vectors.setdefault(word, vector)
    if not vectors:
        raise UserError(
            f"{file}: has vectors of {width} numbers (--word_dim) for none of the {len(words)} "
            "words of the queries"
        )
    return vectors
