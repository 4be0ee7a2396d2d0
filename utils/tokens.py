"""Token features of a split's sentences: encoded once into a mapped store, or live in the loop."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.files import fingerprint
from utils.resident import resident, take
from utils.stores import create_array, map_array, open_store
from utils.text import TextEncoder

FORMAT = 2  # raise when what is stored changes
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
) -> "TokenStore | LiveTokens":
    """Token features of the sentences, stored (where: see `resident`) or encoded in the loop."""
    if live:
        return LiveTokens(encoder, sentences, train)
    store = encode_sentences(encoder, sentences, cache, device)
    return replace(store, table=resident(store.tokens, device, place))


@dataclass(frozen=True)
class TokenStore:
    """Token features of S sentences, joined, in half precision."""

    tokens: np.ndarray  # (T, width) float16
    offsets: np.ndarray  # (S + 1,) first token of each sentence
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
        """Features (B, Q, width) float32 of the sentences, zero at padding, and mask (B, Q)."""
        places, mask = ragged_places(self.offsets, sentences)
        there = torch.from_numpy(mask).to(device).float()
        features = take(self.table, places, device).float()
        return features * there[..., None], there


def encode_sentences(
    encoder: TextEncoder,
    sentences: list[str],
    cache: Path,
    device: torch.device | str = "cpu",
) -> TokenStore:
    """Encode each sentence once; the store is kept under the encoder's and the sentences' hash.

    Raises `UserError` if the encoder can't be loaded, or its features do not fit half precision.
    """

    def build(folder: Path) -> dict:
        tokens = RaggedTokens.of(encoder, sentences)
        offsets = np.concatenate(([0], np.cumsum(tokens.useful)))
        stored = create_array(folder / "tokens.npy", (offsets[-1], encoder.width), np.float16)
        # Sentences of like length together: little padding; the longest first: if the memory is
        # short, it is known at once.
        waiting = np.argsort(-tokens.useful, kind="stable")
        with tqdm(total=len(sentences), desc="encoding text", unit="sentence", leave=False) as bar:
            while len(waiting):
                count = max(1, TOKENS_AT_ONCE // tokens.useful[waiting[0]])
                rows, waiting = waiting[:count], waiting[count:]
                places, there = ragged_places(offsets, rows)
                features, _ = tokens.encode(rows, device)
                half = features.half().cpu().numpy()[there]
                if not np.isfinite(half).all():
                    raise UserError(
                        f"text encoder {encoder.name}: features are NaN or too large to be stored "
                        "in half precision; encode them in the loop with --text_features live"
                    )
                stored[places[there]] = half
                bar.update(len(rows))
        encoder.release()
        stored.flush()
        np.save(folder / "offsets.npy", offsets)
        return {"encoder": encoder.name, "sentences": len(sentences), "width": encoder.width}

    key = fingerprint(FORMAT, encoder.fingerprint, sentences)
    folder = open_store(cache, "tokens", key, build)
    return TokenStore(map_array(folder / "tokens.npy"), map_array(folder / "offsets.npy"))


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

    def encode(
        self, sentences: np.ndarray, device: torch.device | str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, Q, width) float32 of the sentences, zero at padding, and mask (B, Q)."""
        places, mask = ragged_places(self.offsets, sentences)
        numbers = torch.from_numpy(np.where(mask, self.numbers[places], 0)).to(device)
        with torch.no_grad():
            features = self.encoder.encode_batch(numbers, torch.from_numpy(mask).to(device))
        useful = self.useful[sentences]
        there = torch.from_numpy(np.arange(useful.max()) < useful[:, None]).to(device).float()
        return features[:, : there.shape[1]].float() * there[..., None], there


class LiveTokens:
    """The same interface, encoding in the loop.

    In training the encoder's dropout is active, but for CLIP: both as published.
    """

    def __init__(self, encoder: TextEncoder, sentences: list[str], train: bool):
        self.encoder = encoder
        self.train = train and not encoder.is_clip
        self.tokens = RaggedTokens.of(encoder, sentences)

    def gather(
        self, sentences: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, Q, width) float32 of the sentences, zero at padding, and mask (B, Q)."""
        self.encoder.model.train(self.train)
        try:
            return self.tokens.encode(sentences, device)
        finally:
            self.encoder.model.eval()
