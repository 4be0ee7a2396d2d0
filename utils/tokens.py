"""Token features of a split's sentences: encoded once into a mapped store, or live in the loop."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.files import fingerprint
from utils.stores import create_array, map_array, open_store
from utils.text import TextEncoder, pad_tokens

FORMAT = 1  # raise when what is stored changes
SENTENCES_AT_ONCE = 128


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
) -> "TokenStore | LiveTokens":
    """Token features of the sentences, stored or encoded in the loop."""
    if live:
        return LiveTokens(encoder, sentences, train)
    return encode_sentences(encoder, sentences, cache, device)


@dataclass(frozen=True)
class TokenStore:
    """Token features of S sentences, joined, in half precision."""

    tokens: np.ndarray  # (T, width) float16
    offsets: np.ndarray  # (S + 1,) first token of each sentence

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
        features = torch.from_numpy(self.tokens[places]).to(device).float()
        return features * there[..., None], there


def encode_sentences(
    encoder: TextEncoder,
    sentences: list[str],
    cache: Path,
    device: torch.device | str = "cpu",
) -> TokenStore:
    """Encode each sentence once; the store is kept under the encoder's and the sentences' hash."""

    def build(folder: Path) -> dict:
        tokens = encoder.tokenize(sentences)
        lengths = np.array([encoder.useful(sentence) for sentence in tokens], np.int64)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        shape = (offsets[-1], encoder.width)
        stored = create_array(folder / "tokens.npy", shape, np.float16)
        by_length = np.argsort(lengths, kind="stable")  # little padding within a batch
        with tqdm(total=len(sentences), desc="encoding text", unit="sentence", leave=False) as bar:
            for at in range(0, len(sentences), SENTENCES_AT_ONCE):
                rows = by_length[at : at + SENTENCES_AT_ONCE]
                numbers, mask = pad_tokens([tokens[row] for row in rows])
                with torch.inference_mode():
                    features = encoder.encode(
                        torch.from_numpy(numbers).to(device),
                        torch.from_numpy(mask).to(device, torch.int64),
                    )
                wanted = np.arange(mask.shape[1]) < lengths[rows, None]
                places, _ = ragged_places(offsets, rows)
                stored[places[wanted[:, : places.shape[1]]]] = features.cpu().numpy()[wanted]
                bar.update(len(rows))
        stored.flush()
        np.save(folder / "offsets.npy", offsets)
        return {"encoder": encoder.name, "sentences": len(sentences), "width": encoder.width}

    key = fingerprint(FORMAT, encoder.fingerprint, sentences)
    folder = open_store(cache, "tokens", key, build)
    return TokenStore(map_array(folder / "tokens.npy"), np.load(folder / "offsets.npy"))


class LiveTokens:
    """The same interface, encoding in the loop.

    In training the encoder's dropout is active, but for CLIP: both as published.
    """

    def __init__(self, encoder: TextEncoder, sentences: list[str], train: bool):
        tokens = encoder.tokenize(sentences)
        self.encoder = encoder
        self.train = train and not encoder.is_clip
        self.offsets = np.concatenate(([0], np.cumsum([len(sentence) for sentence in tokens])))
        self.numbers = np.concatenate(tokens).astype(np.int64)
        self.lengths = np.array([encoder.useful(sentence) for sentence in tokens])

    def gather(
        self, sentences: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, Q, width) float32 of the sentences, zero at padding, and mask (B, Q)."""
        places, mask = ragged_places(self.offsets, sentences)
        numbers = torch.from_numpy(np.where(mask, self.numbers[places], 0)).to(device)
        self.encoder.model.train(self.train)
        with torch.no_grad():
            features = self.encoder.encode(numbers, torch.from_numpy(mask).to(device).long())
        self.encoder.model.eval()
        useful = np.arange(mask.shape[1]) < self.lengths[sentences, None]
        useful = useful[:, : self.lengths[sentences].max()]
        there = torch.from_numpy(useful).to(device).float()
        return features[:, : there.shape[1]].float() * there[..., None], there
