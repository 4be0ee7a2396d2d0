"""The layers that VSLNet and ReLER share, computed plainly on the same weights.

Convolutions of width 1 run as convolutions on (B, D, V), attention is the softmax of a product, and
dropout draws one random number an element.

Shapes: B batch, V units (or query tokens), D hidden.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.layers.dropout import Dropout
from utils.layers.span_encoder import MASKED_LOGIT


def plain_predictor(
    predictor: nn.Module, x: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end logits (B, V) from x (B, V, D)."""
    start = plain_encoder(predictor.encoder, x, mask)
    end = plain_encoder(predictor.encoder, start, mask)
    logits = []
    for norm, block, states in (
        (predictor.start_layer_norm, predictor.start_block, start),
        (predictor.end_layer_norm, predictor.end_block, end),
    ):
        hidden = F.relu(plain_linear(block[0], torch.cat((norm(states), x), 2)))
        logits.append(masked(plain_linear(block[2], hidden)[..., 0].float(), mask))
    return logits[0], logits[1]


def plain_encoder(encoder: nn.Module, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The feature encoder: x (B, V, D) -> (B, V, D)."""
    positions = torch.arange(x.shape[1]).expand(x.shape[:2])
    x = x + encoder.pos_embedding.position_embeddings(positions)
    block = encoder.conv_block
    for convolutions, norm in zip(block.depthwise_separable_conv, block.layer_norms, strict=True):
        y = norm(x)
        if block.masked:
            y = y * mask[..., None]
        y = F.relu(convolutions(y.transpose(1, 2)))
        x = x + dropped(encoder, y).transpose(1, 2)
    block = encoder.attention_block
    y = dropped(encoder, block.layer_norm1(x))
    query, key, value = (
        plain_linear(layer, y).unflatten(2, (block.num_heads, -1)).transpose(1, 2)
        for layer in (block.query, block.key, block.value)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = masked(scores.float(), mask[:, None, None]).softmax(3)
    x = x + (dropped(encoder, weights) @ value).transpose(1, 2).flatten(2)
    y = plain_linear(block.out_layer, dropped(encoder, block.layer_norm2(x)))
    return x + dropped(encoder, y)


def plain_linear(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(B, V, inputs) -> (B, V, outputs), as a convolution."""
    return layer.conv1d(x.transpose(1, 2)).transpose(1, 2)


def dropped(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Dropout of x at the module's rate."""
    rate = next(part.p for part in module.modules() if isinstance(part, Dropout))
    return F.dropout(x, rate, module.training)


def masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores with MASKED_LOGIT added where the mask is 0."""
    return scores + (1 - mask) * MASKED_LOGIT
