"""Multi-head attention.

Shapes: B batch, L positions that attend, S positions attended to, D hidden, H heads, E = D / H.
"""

import torch
import torch.nn.functional as F

from utils.layers.dropout import drop


def attend(
    query: torch.Tensor,  # (B, L, D)
    key: torch.Tensor,  # (B, S, D)
    value: torch.Tensor,  # (B, S, D)
    bias: torch.Tensor,  # (B, S) added to the scores: very negative where not to attend
    num_heads: int,
    drop_rate: float,  # 0 outside training
) -> torch.Tensor:
    """What each position finds: (B, L, D)."""
    query, key, value = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )  # (B, H, L or S, E)
    bias = bias[:, None, None].to(query.dtype)
    if drop_rate and query.device.type == "cpu":
        # PyTorch's own draws one random number per weight, see `drop`.
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3) + bias  # (B, H, L, S)
        weights = drop(scores.softmax(-1).to(query.dtype), drop_rate)
        output = weights @ value
    else:
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=drop_rate
        )
    return output.transpose(1, 2).flatten(2)
