"""Search with a trained ReLER: clips are embedded once for any number of questions.

`utils/search` cuts long videos into clips and ranks their spans. Shapes: C clips, V units, U
averaged units, F feature dim, D hidden, k spans per clip.
"""

from pathlib import Path

import numpy as np
import torch

from ReLER.options import SCALES
from ReLER.pooling import NORM_EPS, temporal_endpoints
from ReLER.weights import load_trained
from utils.evaluation.decoding import spans_to_compare
from utils.features.tokens import Gather

# Scales of the first look, at all clips, and of the second, at the most promising ones.
LOOKS = ((4,), tuple(parts for parts in SCALES if parts != 4))


class Searcher:
    """A run's model and text encoder, see `utils.search.ranking.Searcher`."""

    glanced = 32

    def __init__(self, checkpoint: Path, text_encoder: str | None, device: torch.device):
        overrides = {"text_features": "live"}
        if text_encoder is not None:
            overrides["text_encoder"] = text_encoder
        self.options, self.model, self._text = load_trained(checkpoint, device, **overrides)
        self.features = self.options.features
        self.width = self.model.video_dim - 2  # without temporal endpoints
        self.units = self.options.max_v_l
        self.device = device
        width = self.options.hidden_dim
        self.promising = (1_250_000 // width, 160_000 // width)  # less than a second on two cores

    def join(self, features: list[np.ndarray]) -> np.ndarray:
        """Concatenate features to rows (R, F); the shorter feature is padded."""
        rows = max(map(len, features))
        joined = np.zeros((rows, sum(part.shape[1] for part in features)), np.float32)
        column = 0
        for part in features:
            block = joined[: len(part), column : column + part.shape[1]]
            block[:] = part
            if not self.options.no_norm_vfeat:
                block /= np.linalg.norm(block, axis=1, keepdims=True) + NORM_EPS
            column += part.shape[1]
        return joined

    def read(self, questions: list[str]) -> Gather:
        """Text of the questions, gathered by number."""
        return self._text.open(questions, self.device, train=False)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) pooled rows of clips of one length -> (C, V, D)."""
        count, units, _ = clips.shape
        ends = temporal_endpoints(np.full(count, units), units).to(clips.device)
        return self.model.embed_video(torch.cat((clips, ends), 2))

    def glance(self, clips: torch.Tensor, text: Gather, question: int) -> torch.Tensor:
        """The highest highlight logit of each clip, in one part: (C, U, D) -> (C,)."""
        mask, *query = self._query(clips, text, question)
        encoded, _, _ = self.model.encode(clips, mask, *query, num_parts=1)
        return self.model.highlight_proj(encoded)[..., 0].amax(1)

    def ask(
        self, clips: torch.Tensor, text: Gather, question: int, count: int, look: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best spans in units (C, k, 2) of each encoded clip, and their scores (C, k).

        Each scale of the look gives `count` spans.
        """
        mask, *query = self._query(clips, text, question)
        offers = []
        for parts in LOOKS[look]:
            encoded, _, _ = self.model.encode(clips, mask, *query, parts)
            offers.append(spans_to_compare(*self.model.predictor(encoded, mask), count))
        spans, scores = zip(*offers, strict=True)
        return torch.cat(spans, 1), torch.cat(scores, 1)

    def _query(
        self, clips: torch.Tensor, text: Gather, question: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The clips' mask, and a question's embedded tokens and mask, repeated for the clips."""
        query = text(np.array([question]))
        tokens = self.model.embed_text(query.tokens).expand(len(clips), -1, -1)
        return clips.new_ones(clips.shape[:2]), tokens, query.mask.expand(len(clips), -1)
