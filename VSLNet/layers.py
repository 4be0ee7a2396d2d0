"""VSLNet's layers, where video and query are fused.

Shapes: B batch, V video units, F feature dim, Q query tokens, D hidden, W width of a word's vector,
C characters of a word. Source: Zhang et al., ACL 2020, section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import nn

from utils.layers.dropout import Dropout
from utils.layers.span_encoder import (
    MASKED_LOGIT,
    Conv1D,
    WeightedPool,
    for_products,
    mask_logits,
)


class VideoAffine(nn.Module):
    """Features to hidden width: (B, V, F) -> (B, V, D)."""

    def __init__(self, inputs: int, dim: int, drop_rate: float):
        super().__init__()
        self.dropout = Dropout(drop_rate)
        self.linear = Conv1D(inputs, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.dropout(for_products(x)))


class ContextQueryAttention(nn.Module):
    """Attention of video units to the query and back: (B, V, D), (B, Q, D) -> (B, V, D)."""

    def __init__(self, dim: int, drop_rate: float):
        super().__init__()
        self.w4C = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))
        self.w4Q = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))
        self.w4mlu = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, dim)))
        self.dropout = Dropout(drop_rate)
        self.cqa_linear = Conv1D(4 * dim, dim)

    def forward(
        self,
        video: torch.Tensor,  # (B, V, D)
        query: torch.Tensor,  # (B, Q, D)
        video_mask: torch.Tensor,  # (B, V)
        query_mask: torch.Tensor,  # (B, Q)
    ) -> torch.Tensor:
        video, query = for_products(video), for_products(query)
        video_dropped, query_dropped = self.dropout(video), self.dropout(query)
        similarity = (
            video_dropped @ self.w4C
            + (query_dropped @ self.w4Q).transpose(1, 2)
            + (video_dropped * self.w4mlu) @ query_dropped.transpose(1, 2)
        ).float()  # (B, V, Q)
        over_query = similarity.masked_fill(query_mask[:, None] == 0, MASKED_LOGIT).softmax(2)
        over_video = similarity.masked_fill(video_mask[..., None] == 0, MASKED_LOGIT).softmax(1)
        over_query, over_video = over_query.to(query.dtype), over_video.to(query.dtype)
        to_query = over_query @ query
        to_video = over_query @ (over_video.transpose(1, 2) @ video)
        return self.cqa_linear(video, to_query, video * to_query, video * to_video)


class ContextQueryConcat(nn.Module):
    """Append the pooled query to every unit: (B, V, D), (B, Q, D) -> (B, V, D)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weighted_pool = WeightedPool(dim)
        self.conv1d = Conv1D(2 * dim, dim)

    def forward(
        self, video: torch.Tensor, query: torch.Tensor, query_mask: torch.Tensor
    ) -> torch.Tensor:
        return self.conv1d(video, self.weighted_pool(query, query_mask)[:, None])


class HighlightLayer(nn.Module):
    """How likely each unit is near the answer, as a logit: (B, V, D), (B, V) -> (B, V)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv1d = Conv1D(dim, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mask_logits(self.conv1d(x).squeeze(-1), mask)


class WordEmbedding(nn.Module):
    """Frozen GloVe vectors, and a trained one for unknown words: (B, Q) -> (B, Q, W)."""

    def __init__(self, vectors: torch.Tensor):
        super().__init__()
        width = vectors.shape[1]
        self.pad_vec = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        self.unk_vec = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, width)))
        self.glove_vec = nn.Parameter(vectors.clone(), requires_grad=False)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return F.embedding(words, torch.cat((self.pad_vec, self.unk_vec, self.glove_vec)))


class CharacterEmbedding(nn.Module):
    """Convolutions over a word's characters, max-pooled: (B, Q, C) -> (B, Q, 100).

    C is at least the widest kernel; shorter words are padded.
    """

    KERNELS, CHANNELS = (1, 2, 3, 4), (10, 20, 30, 40)

    def __init__(self, characters: int, dim: int, drop_rate: float):
        super().__init__()
        self.char_emb = nn.Embedding(characters, dim, padding_idx=0)
        self.char_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, channels, (1, kernel)), nn.ReLU())
            for kernel, channels in zip(self.KERNELS, self.CHANNELS, strict=True)
        )
        self.dropout = Dropout(drop_rate)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.char_emb(characters)).permute(0, 3, 1, 2)  # (B, dim, Q, C)
        return torch.cat([conv(x).amax(3) for conv in self.char_convs], 1).transpose(1, 2)


class WordsAndCharacters(nn.Module):
    """Word numbers and character numbers to hidden width: -> (B, Q, D)."""

    def __init__(
        self, vectors: torch.Tensor, characters: int, char_dim: int, dim: int, drop_rate: float
    ):
        super().__init__()
        self.word_emb = WordEmbedding(vectors)
        self.char_emb = CharacterEmbedding(characters, char_dim, drop_rate)
        self.linear = Conv1D(vectors.shape[1] + sum(CharacterEmbedding.CHANNELS), dim)
        self.dropout = Dropout(drop_rate)

    def forward(self, words: torch.Tensor, characters: torch.Tensor) -> torch.Tensor:
        x = torch.cat((self.dropout(self.word_emb(words)), self.char_emb(characters)), -1)
        return self.linear(x)
