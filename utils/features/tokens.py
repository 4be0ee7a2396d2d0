"""Token features of a split's sentences: encoded once into a mapped store, or live in the loop."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.base.errors import UserError
from utils.base.files import fingerprint
from utils.features.stores import create_array, map_array, open_store
from utils.features.tensors import resident, take
from utils.features.text_encoders import TextEncoder

FORMAT = 3  # raise when what is stored changes
TOKENS_AT_ONCE = 4096  # to the encoder


def ragged_places(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the entries of ragged rows lie: places (B, Q) and mask (B, Q) of what is there.

    Row r covers `[offsets[r], offsets[r + 1])`; places beyond a row's end repeat its first.
    """
    first = offsets[rows]
    lengths = offsets[rows + 1] - first
    mask = np.arange(lengths.max()) < lengths[:, None]
    return first[:, None] + np.where(mask, np.arange(mask.shape[1]), 0), mask


def open_tokens(
    encoder: TextEncoder,
    sentences: list[str],
    cache: Path,
    device: torch.device | str,
    live: bool,
    train: bool,
    place: str = "cpu",
    padding: int = 0,
) -> "TokenStore | LiveTokens":
    """Token features of the sentences, stored (where: see `resident`) or encoded in the loop.

    With `padding`, so many tokens after a sentence's end have the encoder's own features of [PAD]
    instead of zeros, in batches with longer sentences.
    """
    if live:
        return LiveTokens(encoder, sentences, train, padding)
    store = encode_sentences(encoder, sentences, cache, device, padding, half=train)
    return replace(store, table=resident(store.tokens, device, place))


@dataclass(frozen=True)
class TokenStore:
    """Token features of S sentences, joined, each with those of the padding after it."""

    tokens: np.ndarray  # (T, width) float16 or float32
    offsets: np.ndarray  # (S + 1,) first token of each sentence
    lengths: np.ndarray  # (S,) tokens of each sentence
    table: torch.Tensor | None = None  # what batches are gathered from; by default the mapping

    def __post_init__(self) -> None:
        if self.table is None:
            object.__setattr__(self, "table", resident(self.tokens))

    @property
    def width(self) -> int:
        """Width of the token features."""
        return self.tokens.shape[1]

    def gather(
        self, sentences: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, Q, width) float32 of the sentences, and mask (B, Q) of their tokens.

        What is not stored of the padding is zero.
        """
        lengths = self.lengths[sentences]
        longest = lengths.max()
        places, stored = ragged_places(self.offsets, sentences)
        features = take(self.table, places[:, :longest], device).float()
        stored = torch.from_numpy(stored[:, :longest]).to(device)
        mask = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(device)
        return features * stored[..., None], mask.float()


def encode_sentences(
    encoder: TextEncoder,
    sentences: list[str],
    cache: Path,
    device: torch.device | str = "cpu",
    padding: int = 0,
    half: bool = True,
) -> TokenStore:
    """Encode each sentence once; the store is kept under the encoder's and the sentences' hash.

    Args:
        padding: tokens after a sentence's end to keep, as far as the longest sentence reaches.
        half: keep half precision, for the many sentences of training. Those of prediction are kept
            whole, so that windows are those of an encoder in the loop.

    Raises `UserError` if the encoder can't be loaded, or its features do not fit the precision.
    """
    precision = np.float16 if half else np.float32

    def build(folder: Path) -> dict:
        tokens = RaggedTokens.of(encoder, sentences)
        kept = np.minimum(tokens.useful + padding, tokens.useful.max())
        offsets = np.concatenate(([0], np.cumsum(kept)))
        stored = create_array(folder / "tokens.npy", (offsets[-1], encoder.width), precision)
        # Sentences of like length together: little padding; the longest first: if the memory is
        # short, it is known at once.
        waiting = np.argsort(-tokens.useful, kind="stable")
        with tqdm(total=len(sentences), desc="encoding text", unit="sentence", leave=False) as bar:
            while len(waiting):
                count = max(1, TOKENS_AT_ONCE // tokens.useful[waiting[0]])
                rows, waiting = waiting[:count], waiting[count:]
                places, there = ragged_places(offsets, rows)
                features = tokens.encode(rows, device, there.shape[1])
                features = features.cpu().numpy()[there].astype(precision)
                if not np.isfinite(features).all():
                    raise UserError(
                        f"text encoder {encoder.name}: features are NaN or too large to be stored "
                        f"as {precision.__name__}; encode them in the loop with --text_features "
                        "live"
                    )
                stored[places[there]] = features
                bar.update(len(rows))
        encoder.release()
        stored.flush()
        np.save(folder / "offsets.npy", offsets)
        np.save(folder / "lengths.npy", tokens.useful)
        return {"encoder": encoder.name, "sentences": len(sentences), "width": encoder.width}

    key = fingerprint(FORMAT, encoder.fingerprint, sentences, padding, half)
    folder = open_store(cache, "tokens", key, build)
    return TokenStore(
        *(map_array(folder / f"{name}.npy") for name in ("tokens", "offsets", "lengths"))
    )


@dataclass(frozen=True)
class RaggedTokens:
    """Token numbers of S sentences, joined, and the encoder that reads them."""

    encoder: TextEncoder
    numbers: np.ndarray  # (T,)
    offsets: np.ndarray  # (S + 1,)
    useful: np.ndarray  # (S,) tokens with features worth keeping, from the first

    @classmethod
    def of(cls, encoder: TextEncoder, sentences: list[str]) -> "RaggedTokens":
        """The sentences cut into tokens."""
        numbers, offsets = encoder.tokenize(sentences)
        return cls(encoder, numbers, offsets, encoder.useful(np.diff(offsets)))

    def encode(self, sentences: np.ndarray, device: torch.device | str, width: int) -> torch.Tensor:
        """Features (B, Q, dim) float32 of the first Q = `width` tokens of each sentence.

        Those after its end are the encoder's features of padding.
        """
        places, mask = ragged_places(self.offsets, sentences)
        beyond = max(0, width - mask.shape[1])
        places, mask = (np.pad(x, ((0, 0), (0, beyond))) for x in (places, mask))
        numbers = np.where(mask, self.numbers[places], self.encoder.pad_token)
        with torch.no_grad():
            features = self.encoder.encode_batch(
                torch.from_numpy(numbers).to(device), torch.from_numpy(mask).to(device)
            )
        return features[:, :width].float()


class LiveTokens:
    """The same interface, encoding in the loop.

    In training the encoder's dropout is active, but for CLIP: both as published.
    """

    def __init__(self, encoder: TextEncoder, sentences: list[str], train: bool, padding: int = 0):
        self.encoder = encoder
        self.padding = padding
        self.train = train and not encoder.is_clip
        self.tokens = RaggedTokens.of(encoder, sentences)

    def gather(
        self, sentences: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, Q, width) float32 of the sentences, and mask (B, Q) of their tokens."""
        lengths = self.tokens.useful[sentences]
        self.encoder.model.train(self.train)
        try:
            features = self.tokens.encode(sentences, device, lengths.max())
        finally:
            self.encoder.model.eval()
        column = np.arange(lengths.max())
        kept, mask = (
            torch.from_numpy(column < length[:, None]).to(device).float()
            for length in (lengths + self.padding, lengths)
        )
        return features * kept[..., None], mask
