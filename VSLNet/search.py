"""A trained VSLNet asked about any video: clips are encoded once, for any number of questions.

`utils/search` cuts long videos into clips and ranks what they offer.
Shapes: C clips, V units, F feature dim, D hidden, k spans a clip.
"""

from pathlib import Path

import numpy as np
import torch

from utils.evaluation.decoding import spans_to_compare
from utils.features.tokens import Gather
from VSLNet.weights import load_trained


class Searcher:
    """Model and text of a run (see `utils.search.ranking.Searcher`)."""

    glanced = 32
    promising = (20_000,)

    def __init__(self, checkpoint: Path, text_encoder: str | None, device: torch.device):
        overrides = {"text_features": "live"}
        if text_encoder is not None:
            overrides["text_encoder"] = text_encoder
        self.options, self.model, self._text = load_trained(checkpoint, device, **overrides)
        self.features = self.options.features
        self.width = self.options.video_feature_dim
        self.units = self.options.max_pos_len
        self.device = device

    def join(self, features: list[np.ndarray]) -> np.ndarray:
        """Rows (R, F) as the model reads them, of the one feature there is."""
        return features[0]

    def read(self, questions: list[str]) -> Gather:
        """The questions, ready to be asked by number."""
        return self._text.open(questions, self.device, train=False)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) pooled rows of clips of one length -> (C, V, D)."""
        return self.model.encode_video(clips, clips.new_ones(clips.shape[:2]))

    def glance(self, clips: torch.Tensor, text: Gather, question: int) -> torch.Tensor:
        """The highest highlight of each clip's averaged units: (C, U, D) -> (C,)."""
        mask = clips.new_ones(clips.shape[:2])
        _, highlight = self.model.highlight(clips, mask, *self._query(text, question, len(clips)))
        return highlight.amax(1)

    def ask(
        self, clips: torch.Tensor, text: Gather, question: int, count: int, look: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best spans in units (C, count, 2) of each encoded clip, and scores (C, count)."""
        mask = clips.new_ones(clips.shape[:2])
        out = self.model.fuse(clips, mask, *self._query(text, question, len(clips)))
        return spans_to_compare(out.start_logits, out.end_logits, count)

    def _query(self, text: Gather, question: int, many: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A question, encoded, and its mask, for so many clips."""
        tokens = text(np.array([question]), self.device)
        query = self.model.encode_query(tokens.tokens, tokens.mask, tokens.characters)
        return query.expand(many, -1, -1), tokens.mask.expand(many, -1)
