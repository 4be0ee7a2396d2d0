"""Search with a trained VSLNet: clips are encoded once for any number of questions.

`utils/search` cuts long videos into clips and ranks their spans. Shapes: C clips, V units, U
averaged units, F feature dim, D hidden.
"""

from pathlib import Path

import numpy as np
import torch

from utils.evaluation.decoding import spans_to_compare
from utils.features.tokens import Gather
from VSLNet.weights import load_trained


class Searcher:
    """A run's model and text, see `utils.search.ranking.Searcher`."""

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
        """Rows (R, F) of the single feature."""
        return features[0]

    def read(self, questions: list[str]) -> Gather:
        """Text of the questions, gathered by number."""
        return self._text.open(questions, self.device, train=False)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) pooled rows of clips of one length -> (C, V, D)."""
        return self.model.encode_video(clips, clips.new_ones(clips.shape[:2]))

    def glance(self, clips: torch.Tensor, text: Gather, question: int) -> torch.Tensor:
        """The highest highlight logit of each clip: (C, U, D) -> (C,)."""
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

    def _query(self, text: Gather, question: int, clips: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An encoded question and its mask, repeated for `clips` clips."""
        tokens = text(np.array([question]))
        query = self.model.encode_query(tokens.tokens, tokens.mask, tokens.characters)
        return query.expand(clips, -1, -1), tokens.mask.expand(clips, -1)
