"""Multi-head attention, with cheap dropout of its weights when training on a CPU.

There PyTorch's own draws one random number per weight and walks through memory many times. Ours
does a few heads at a time, whose weights stay in the processor's cache, and keeps the weights and
one byte each for the backward pass. Everywhere else PyTorch's own is used.

Shapes: B batch, L positions that attend, S positions attended to, D hidden, H heads, E = D / H.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx

from utils.layers.dropout import is_cheap, keep_bits, keep_scale

WEIGHTS_AT_ONCE = 1 << 20  # 4 MB: within the cores' caches, yet worth a call


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
    if is_cheap(query, drop_rate):
        dtype = torch.bfloat16 if query.dtype == torch.bfloat16 else torch.float32
        heads = (x.flatten(0, 1).to(dtype) for x in (query, key, value))
        bias = bias.repeat_interleave(num_heads, 0)[:, None].to(dtype)
        with torch.autocast("cpu", enabled=False):
            output = _CheapAttention.apply(*heads, bias, drop_rate)
        output = output.unflatten(0, (-1, num_heads)).to(query.dtype)
    else:
        bias = bias[:, None, None].to(query.dtype)
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=drop_rate
        )
    return output.transpose(1, 2).flatten(2)


class _CheapAttention(torch.autograd.Function):
    """dropout(softmax(query @ key / sqrt(E) + bias)) @ value for each of B * H heads."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,  # (B * H, L, E)
        key: torch.Tensor,  # (B * H, S, E)
        value: torch.Tensor,  # (B * H, S, E)
        bias: torch.Tensor,  # (B * H, 1, S)
        drop_rate: float,
    ) -> torch.Tensor:
        ctx.keep_scale = keep_scale(drop_rate)
        output = torch.empty_like(query)
        saved = []
        for part in _parts(query, key):
            scale = query.shape[-1] ** -0.5
            scores = torch.baddbmm(bias[part], query[part], key[part].transpose(1, 2), alpha=scale)
            weights = scores.softmax(2)  # (heads of the part, L, S)
            bits = keep_bits(weights.shape, drop_rate)
            output[part] = torch.bmm(bits.to(weights.dtype).mul_(weights), value[part])
            saved += weights, bits
        ctx.save_for_backward(query, key, value, *saved)
        return output.mul_(ctx.keep_scale)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
        grad_output = grad_output * ctx.keep_scale
        for part, weights, bits in zip(_parts(query, key), saved[::2], saved[1::2], strict=True):
            kept = bits.to(weights.dtype)
            grad_weights = torch.bmm(grad_output[part], value[part].transpose(1, 2)).mul_(kept)
            dropped = kept.mul_(weights)
            grad_value[part] = torch.bmm(dropped.transpose(1, 2), grad_output[part])
            # Of the softmax: weights * (g - the sum of weights * g).
            mean = torch.linalg.vecdot(grad_weights, weights)[..., None]
            grad_scores = grad_weights.sub_(mean).mul_(weights).mul_(query.shape[-1] ** -0.5)
            grad_query[part] = torch.bmm(grad_scores, key[part])
            grad_key[part] = torch.bmm(grad_scores.transpose(1, 2), query[part])
        return grad_query, grad_key, grad_value, None, None


def _parts(query: torch.Tensor, key: torch.Tensor) -> list[slice]:
    """The heads that are done together."""
    count = max(1, WEIGHTS_AT_ONCE // (query.shape[1] * key.shape[1]))
    return [slice(first, first + count) for first in range(0, len(query), count)]
