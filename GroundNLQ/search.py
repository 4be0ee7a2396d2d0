"""A trained GroundNLQ asked about any video: clips are encoded once, for any number of questions.

`utils/search` cuts long videos into clips and ranks what they offer.
Shapes: C clips, V rows, F feature dim, D hidden, k windows a clip.
"""

from pathlib import Path

import numpy as np
import torch

from GroundNLQ.infer import ranked_windows
from GroundNLQ.points import padded_rows
from GroundNLQ.text import clean
from GroundNLQ.weights import load_trained
from utils.base.tasks import STRIDE
from utils.evaluation.decoding import LEAST
from utils.features.tensors import pad_to
from utils.features.tokens import Gather


class Searcher:
    """Model and text encoder of a run (see `utils.search.ranking.Searcher`)."""

    units = 1 << 20  # rows are never pooled

    def __init__(self, checkpoint: Path, text_encoder: str | None, device: torch.device):
        overrides = {"text_features": "live", "text_encoder": text_encoder}
        self.options, self.model, self._text = load_trained(checkpoint, device, **overrides)
        self.features = self.options.features
        self.width = self.model.video_dim
        self.device = device
        # A glance at a day of video and the whole model take about a second on two cores.
        self.glanced = max(16, 3072 // self.options.dim)
        self.promising = (1_100_000 // self.options.dim,)

    def join(self, features: list[np.ndarray]) -> np.ndarray:
        """Rows (R, F) as the model reads them: side by side, the shorter feature padded."""
        rows = max(map(len, features))
        return np.concatenate([np.pad(x, ((0, rows - len(x)), (0, 0))) for x in features], 1)

    def read(self, questions: list[str]) -> Gather:
        """The questions, ready to be asked by number."""
        return self._text.open(list(map(clean, questions)), self.device, train=False)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(C, V, F) rows of clips of one length -> (C, V, D)."""
        video, mask = self._padded(clips.float())
        return self.model.encode_video(video, mask)[:, : clips.shape[1]]

    def glance(self, clips: torch.Tensor, text: Gather, question: int) -> torch.Tensor:
        """The highest score of each clip's averaged rows, finest level: (C, U, D) -> (C,)."""
        mask = clips.new_ones(*clips.shape[:2], 1)
        query, query_mask = self._query(text, question, len(clips))
        x = self.model.stem(clips, mask, query, query_mask[..., None])
        return self.model.cls_head(self.model.neck["fpn_norms"][0](x), mask).amax(1)

    def ask(
        self, clips: torch.Tensor, text: Gather, question: int, count: int, look: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best windows in rows (C, count, 2) of each encoded clip, and scores (C, count)."""
        rows = clips.shape[1]
        video, mask = self._padded(clips)  # what is encoded is 0 at padding
        grounding = self.model.ground(video, mask, *self._query(text, question, len(clips)))
        windows, scores = ranked_windows(grounding, video.shape[1], self.options.levels, count)
        windows = torch.where(scores[..., None] > 0, windows, windows[:, :1])
        windows = (windows * (self.options.row_frames / STRIDE)).clamp(0, rows)
        # As first and last unit, whose end is one later.
        spans = windows - torch.tensor([0.0, 1.0], device=self.device)
        return spans, scores.clamp(min=LEAST).log()

    def _query(self, text: Gather, question: int, many: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A question, encoded, and its mask, for so many clips."""
        tokens = text(np.array([question]))
        query = self.model.encode_query(tokens.tokens, tokens.mask)
        return query.expand(many, -1, -1), tokens.mask.expand(many, -1)

    def _padded(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = clips.shape[1]
        padded = int(padded_rows(np.array(rows), self.options.levels))
        mask = (torch.arange(padded, device=clips.device) < rows).float()
        return pad_to(clips, padded), mask.expand(len(clips), -1)
