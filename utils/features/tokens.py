"""Token features of a split's queries: encoded once into a mapped store, or live in the loop.

Shapes: S sentences, T tokens of all of them, B batch, Q query tokens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from msgspec import Struct
from tqdm import tqdm

from utils.base.errors import UserError
from utils.base.files import fingerprint, read_json
from utils.features.egovlp_text import EgoVLPText
from utils.features.stores import create_array, map_array, open_store
from utils.features.tensors import pad_to, resident, take, to_device
from utils.features.text_encoders import TextEncoder

FORMAT = 3  # raise when what is stored changes
TOKENS_AT_ONCE = 4096  # to the encoder


class Text(NamedTuple):
    """What a model reads of its queries: token features, or word and character numbers."""

    tokens: torch.Tensor  # (B, Q, width) features, or (B, Q) word numbers
    mask: torch.Tensor  # (B, Q)
    characters: torch.Tensor | None = None  # (B, Q, C) character numbers

    def cut(self, limit: int | None, first: int = 0) -> "Text":
        """The tokens of each query from the `first` up to the limit."""
        return Text(*(part if part is None else part[:, first:limit] for part in self))

    def pad(self, length: int) -> "Text":
        """Padding after each query, up to so many tokens."""
        return Text(*(part if part is None else pad_to(part, length) for part in self))


Gather = Callable[[np.ndarray], Text]  # of sentences by number


class EncoderDescription(Struct):
    """What a run folder says of the frozen encoder that its checkpoints leave out."""

    encoder: str
    width: int
    hash: str


def open_encoder(file: Path | None, name: str | None, default: str, **settings: Any) -> TextEncoder:
    """The encoder named, or that of the trained run whose `file` describes it, or the default.

    `settings` are as of `TextEncoder`. Raises `UserError` if the one named is not the run's.
    """
    trained = read_json(file, EncoderDescription) if file and file.is_file() else None
    name = name or (trained.encoder if trained else default)
    encoder = (EgoVLPText if Path(name).is_file() else TextEncoder)(name, **settings)
    if trained and trained.hash != encoder.fingerprint:
        raise UserError(
            f"{file}: the run was trained with the text encoder {trained.encoder} (width "
            f"{trained.width}), the weights or files of {encoder.name} (width {encoder.width}) are "
            "others; give the same with --text_encoder"
        )
    return encoder


class EncoderText(NamedTuple):
    """The token features of a frozen text encoder, as a model reads them."""

    encoder: TextEncoder
    live: bool  # encoded in the loop, instead of once into a store
    cache: Path  # folder of stores
    device_policy: str = "cpu"  # where a store is while batches are gathered: see `resident`
    limit: int | None = None  # tokens read of a query (default: all)
    padding: int = 0  # tokens after a query's end with the encoder's features of [PAD], not zeros
    skipped: int = 0  # tokens before the first word that are left out

    @property
    def width(self) -> int:
        """Width of the token features."""
        return self.encoder.width

    def describe(self) -> EncoderDescription:
        """The encoder that checkpoints leave out."""
        return EncoderDescription(self.encoder.name, self.width, self.encoder.fingerprint)

    def open(self, sentences: list[str], device: torch.device | str, train: bool) -> Gather:
        """A function that gathers the sentences' features on the device."""
        features: LiveTokens | TokenStore
        if self.live:
            features = LiveTokens(self.encoder, sentences, train, self.padding)
        else:
            features = encode_sentences(
                self.encoder, sentences, self.cache, device, self.padding, train, self.device_policy
            )
        return lambda rows: features.gather(rows, device).cut(self.limit, self.skipped)


class TokenStore(NamedTuple):
    """Token features of S sentences, joined, each with those of the padding after it."""

    tokens: torch.Tensor  # (T, width) float16 or float32
    offsets: np.ndarray  # (S + 1,) first token of each sentence
    lengths: np.ndarray  # (S,) tokens of each sentence

    @classmethod
    def open(cls, folder: Path, device: torch.device | str, device_policy: str) -> "TokenStore":
        """Map the arrays that `create_tokens` wrote."""
        files = (folder / f"{name}.npy" for name in cls._fields)
        tokens, offsets, lengths = map(map_array, files)
        return cls(resident(tokens, device, device_policy), offsets, lengths)

    def gather(self, sentences: np.ndarray, device: torch.device | str = "cpu") -> Text:
        """The sentences' features in float32; what is not stored of the padding is zero."""
        lengths = self.lengths[sentences]
        longest = lengths.max()
        index, stored = ragged_index(self.offsets, sentences)
        features = take(self.tokens, index[:, :longest], device).float()
        stored = to_device(stored[:, :longest], device)
        mask = to_device(np.arange(longest) < lengths[:, None], device)
        return Text(features * stored[..., None], mask.float())


def create_tokens(
    folder: Path, lengths: np.ndarray, padding: int, width: int, dtype: np.dtype | type
) -> tuple[np.ndarray, np.ndarray]:
    """Write the arrays of a `TokenStore`; returns its tokens, to be filled, and its offsets.

    `lengths` (S,) are tokens of the sentences, each of which gets so many of `padding`, as far as
    the longest sentence reaches.
    """
    offsets = np.concatenate(([0], np.cumsum(np.minimum(lengths + padding, lengths.max()))))
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "lengths.npy", lengths)
    return create_array(folder / "tokens.npy", (offsets[-1], width), dtype), offsets


def encode_sentences(
    encoder: TextEncoder,
    sentences: list[str],
    cache: Path,
    device: torch.device | str = "cpu",
    padding: int = 0,
    half: bool = True,
    device_policy: str = "cpu",
) -> TokenStore:
    """Encode each sentence once; the store is kept under the encoder's and the sentences' hash.

    Args:
        padding: tokens after a sentence's end to keep, as far as the longest sentence reaches.
        half: store half precision, for the many sentences of training; in single precision
            windows are those of an encoder in the loop.

    Raises `UserError` if the encoder can't be loaded, or its features do not fit the precision.
    """
    precision = np.float16 if half else np.float32

    def build(folder: Path) -> dict:
        tokens = LiveTokens(encoder, sentences)
        stored, offsets = create_tokens(folder, tokens.lengths, padding, encoder.width, precision)
        # Sentences of like length together: little padding; the longest first: if the memory is
        # short, it is known at once.
        remaining = np.argsort(-tokens.lengths, kind="stable")
        with tqdm(total=len(sentences), desc="encoding text", unit="sentence", leave=False) as bar:
            while len(remaining):
                count = max(1, TOKENS_AT_ONCE // tokens.lengths[remaining[0]])
                rows, remaining = remaining[:count], remaining[count:]
                index, mask = ragged_index(offsets, rows)
                features = tokens.encode(rows, device, mask.shape[1]).cpu().numpy()[mask]
                with np.errstate(over="ignore"):
                    features = features.astype(precision)
                if not np.isfinite(features).all():
                    raise UserError(
                        f"text encoder {encoder.name}: features are NaN or too large to be stored "
                        f"as {precision.__name__}; use --text_features live"
                    )
                stored[index[mask]] = features
                bar.update(len(rows))
        encoder.release()
        stored.flush()
        return {"encoder": encoder.name, "sentences": len(sentences), "width": encoder.width}

    key = fingerprint(FORMAT, encoder.fingerprint, sentences, padding, half)
    folder = open_store(cache, "tokens", key, build)
    return TokenStore.open(folder, device, device_policy)


class LiveTokens:
    """Token features of sentences, encoded when a batch is gathered.

    In training the encoder's dropout is active, but for CLIP: both as published.
    """

    def __init__(
        self, encoder: TextEncoder, sentences: list[str], train: bool = False, padding: int = 0
    ):
        self.encoder = encoder
        self.train = train and not encoder.is_clip
        self.padding = padding
        self.numbers, self.offsets = encoder.tokenize(sentences)  # (T,), (S + 1,)
        self.lengths = encoder.useful(np.diff(self.offsets))  # (S,)

    def gather(self, sentences: np.ndarray, device: torch.device | str = "cpu") -> Text:
        """The sentences' features in float32."""
        lengths = self.lengths[sentences]
        longest = lengths.max()
        self.encoder.model.train(self.train)
        try:
            features = self.encode(sentences, device, longest)
        finally:
            self.encoder.model.eval()
        stored, mask = (
            to_device(np.arange(longest) < ends[:, None], device).float()
            for ends in (lengths + self.padding, lengths)
        )
        return Text(features * stored[..., None], mask)

    def encode(self, sentences: np.ndarray, device: torch.device | str, width: int) -> torch.Tensor:
        """Features (B, Q, dim) float32 of the first Q = `width` tokens of each sentence.

        Those after its end are the encoder's features of padding.
        """
        index, mask = ragged_index(self.offsets, sentences)
        beyond = max(0, width - mask.shape[1])
        index, mask = (np.pad(x, ((0, 0), (0, beyond))) for x in (index, mask))
        numbers = np.where(mask, self.numbers[index], self.encoder.pad_token)
        numbers, mask = (to_device(x, device) for x in (numbers, mask))
        with torch.no_grad():
            return self.encoder.encode_batch(numbers, mask)[:, :width].float()


def ragged_index(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the entries of ragged rows lie: index (B, Q), and mask (B, Q) of valid entries.

    Row r covers `[offsets[r], offsets[r + 1])`; the index beyond a row's end is that of its first.
    """
    first = offsets[rows]
    lengths = offsets[rows + 1] - first
    mask = np.arange(lengths.max()) < lengths[:, None]
    return first[:, None] + np.where(mask, np.arange(mask.shape[1]), 0), mask
