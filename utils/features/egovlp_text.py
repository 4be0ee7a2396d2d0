"""The text branch of EgoVLP's checkpoint, as a text encoder."""

from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from utils.features.egovlp import (
    HEAD_DIM,
    WHAT,
    State,
    count_layers,
    load_weights,
    read_checkpoint,
)
from utils.features.pretrained import hash_weights, trying
from utils.features.text_encoders import VOCABULARY_FILES, TextEncoder, find_encoder


class EgoVLPText(TextEncoder):
    """The text branch of EgoVLP's checkpoint: DistilBERT, then a ReLU and a projection.

    It gives the features of all tokens, the special ones included, as for BERT. The tokenizer is
    BERT's uncased one: files beside the checkpoint, or else those that MiniLM's package carries.
    """

    is_clip = False
    _tokenizer_class = "BertTokenizerFast"

    def __init__(self, name: str, random_seed: int | None = None, projected: bool = True):
        self.name, self.projected = name, projected
        self._random_seed = random_seed
        state = read_checkpoint(Path(name))
        text = ("text_model.", "txt_proj.")
        self._state = {name: state[name] for name in state if name.startswith(text)}
        self._config, self.width = trying(Path(name), WHAT, _distilbert_sizes, self._state)
        self.max_tokens = self._config["max_position_embeddings"]
        self._vocabulary = self._config["vocab_size"]
        beside = Path(name).parent
        has_tokenizer = any((beside / file).is_file() for file in VOCABULARY_FILES)
        self.folder = beside if has_tokenizer else find_encoder("minilm")

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights (and of the seed, if they are random)."""
        return hash_weights(self._state, f"{self._random_seed}")

    def encode_batch(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token features: (B, Q) numbers and mask -> (B, Q, width) float32."""
        model = self.model.to(tokens.device)
        states = model["text_model"](input_ids=tokens, attention_mask=mask.long())
        return model["txt_proj"](states.last_hidden_state)

    @cached_property
    def model(self) -> nn.ModuleDict:
        """Encoder and projection: frozen, in evaluation mode unless told otherwise."""
        from transformers import DistilBertConfig, DistilBertModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._random_seed or 0)
            encoder = DistilBertModel(DistilBertConfig(**self._config))
            projection = nn.Sequential(nn.ReLU(), nn.Linear(encoder.config.dim, self.width))
        model = nn.ModuleDict({"text_model": encoder, "txt_proj": projection})
        if self._random_seed is None:
            trying(Path(self.name), WHAT, load_weights, model, self._state)
        return model.requires_grad_(False).eval()


def _distilbert_sizes(state: State) -> tuple[dict[str, int], int]:
    """The sizes of a DistilBERT as its configuration has them, and the width of the projection."""
    vocabulary, dim = state["text_model.embeddings.word_embeddings.weight"].shape
    config = {
        "vocab_size": vocabulary,
        "max_position_embeddings": len(state["text_model.embeddings.position_embeddings.weight"]),
        "n_layers": count_layers(state, "text_model.transformer.layer."),
        "n_heads": max(1, dim // HEAD_DIM),
        "dim": dim,
        "hidden_dim": len(state["text_model.transformer.layer.0.ffn.lin1.bias"]),
    }
    return config, len(state["txt_proj.1.bias"])
