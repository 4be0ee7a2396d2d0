"""A trained VSLNet asked about any video: clips are encoded once, for any number of questions.

`utils/search/search.py` cuts a long video into clips and merges the answers.
Shapes: C clips, V units, F feature dim, D hidden, k spans a clip.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from utils.base.errors import UserError
from utils.base.files import read_json
from utils.base.options import adopt
from utils.base.tensor_files import load_safely
from utils.evaluation.decoding import spans_to_compare
from utils.features.tokens import Gather
from VSLNet.options import OPTIONS_FILE, Options
from VSLNet.text import open_text
from VSLNet.weights import build_model, load_weights

VIDEO_WEIGHT = "video_affine.linear.conv1d.weight"  # (D, F, 1)
POSITIONS = "feature_encoder.pos_embedding.position_embeddings.weight"  # (units, D)


class Searcher:
    """Model and text of a run (see `utils.search.search.Searcher`)."""

    looks = 1

    def __init__(self, checkpoint: Path, text_encoder: str | None, device: torch.device):
        state = load_safely(checkpoint)
        if VIDEO_WEIGHT not in state or POSITIONS not in state:
            raise UserError(f"{checkpoint}: not a VSLNet checkpoint, it has no {VIDEO_WEIGHT}")
        self.width = state[VIDEO_WEIGHT].shape[1]
        self.options = _trained_options(checkpoint, state, text_encoder)
        self.features = (self.options.fv,)
        self.units = self.options.max_pos_len
        self.device = device
        self._text = open_text(self.options)
        self.model = build_model(self.options, self.width, self._text)
        load_weights(self.model, checkpoint)
        self.model.to(device).eval()

    def join(self, features: list[np.ndarray]) -> np.ndarray:
        """Rows (R, F) as the model reads them, of the one feature there is."""
        return features[0]

    def read(self, questions: list[str]) -> Gather:
        """The questions, ready to be asked by number."""
        return self._text.open(questions, self.device, train=False)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) pooled rows of clips of one length -> (C, V, D)."""
        return self.model.encode_video(clips, clips.new_ones(clips.shape[:2]))

    def ask(
        self, clips: torch.Tensor, text: Gather, question: int, count: int, look: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best spans in units (C, count, 2) of each encoded clip, and scores (C, count)."""
        tokens = text(np.array([question]), self.device)
        query = self.model.encode_query(tokens.tokens, tokens.mask, tokens.characters)
        many = len(clips)
        out = self.model.fuse(
            clips,
            clips.new_ones(clips.shape[:2]),
            query.expand(many, -1, -1),
            tokens.mask.expand(many, -1),
        )
        return spans_to_compare(out.start_logits, out.end_logits, count)


def _trained_options(checkpoint: Path, state: dict, text_encoder: str | None) -> Options:
    """The options the run was trained with; of a checkpoint alone, what its weights tell."""
    file = checkpoint.parent / OPTIONS_FILE
    units, dim = state[POSITIONS].shape
    trained = read_json(file) if file.is_file() else {"dim": dim}
    names = {field.name for field in dataclasses.fields(Options)}
    chosen = {"max_pos_len": units, "padding": "published"}
    chosen |= {name: value for name, value in trained.items() if name in names}
    chosen |= {"mode": "val", "text_features": "live"}
    if text_encoder is not None:
        chosen["text_encoder"] = text_encoder

    class Trained(Options):
        run_folder = checkpoint.parent  # wherever the run was moved, and whatever it is called

    return adopt(Trained(task="unknown", fv="unknown"), chosen, file)
