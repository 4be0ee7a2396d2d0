"""Multi-head attention, with cheap dropout of its weights when training on a CPU.

There PyTorch's own draws one random number per weight and walks through memory many times. Here a
few heads are done at a time, whose weights stay in the processor's cache, and the backward pass
keeps the weights and one byte each; inference in bfloat16 goes the same way. Without dropout,
attention of many to few (video units to query tokens) is done on a CPU with the many in the last
dimension, along which it computes several times as fast. Everywhere else PyTorch's own is used.

Shapes: B batch, L positions that attend, S positions attended to, D hidden, H heads, E = D / H.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from utils.layers.dropout import eager_on_cpu, is_cheap, keep_bits, keep_scale

WEIGHTS_AT_ONCE = 1 << 20  # 2 to 4 MB: within the cores' caches, yet worth a call
FEW = 32  # positions attended to

Part = tuple[slice, slice]  # samples and heads done at once


def attend(
    query: torch.Tensor,  # (B, L, D)
    key: torch.Tensor,  # (B, S, D)
    value: torch.Tensor,  # (B, S, D)
    bias: torch.Tensor,  # (B, S) added to the scores: very negative where not to attend
    num_heads: int,
    drop_rate: float,  # 0 outside training
) -> torch.Tensor:
    """What each position finds: (B, L, D)."""
    query, key, value = (x.unflatten(-1, (num_heads, -1)) for x in (query, key, value))
    if is_cheap(query, drop_rate):
        # On a CPU float16 is only slow.
        dtype = torch.bfloat16 if query.dtype == torch.bfloat16 else torch.float32
        with torch.autocast("cpu", enabled=False):
            found = _CheapAttention.apply(
                *(x.to(dtype) for x in (query, key, value, bias)), drop_rate
            )
    elif _is_to_few(query, key, drop_rate):
        found = _attend_to_few(query, key, value, bias.to(query.dtype))
    elif _is_plain_bfloat16(query, drop_rate):
        with torch.autocast("cpu", enabled=False):
            found = _attend_in_parts(query, key, value, bias.to(query.dtype))
    else:
        found = F.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (query, key, value)),
            attn_mask=bias[:, None, None].to(query.dtype),
            dropout_p=drop_rate,
        ).transpose(1, 2)
    return found.flatten(2).contiguous()


def _is_to_few(query: torch.Tensor, key: torch.Tensor, drop_rate: float) -> bool:
    return key.shape[1] <= FEW < query.shape[1] and not drop_rate and eager_on_cpu(query)


def _is_plain_bfloat16(query: torch.Tensor, drop_rate: float) -> bool:
    inference = not drop_rate and not torch.is_grad_enabled()
    return query.dtype == torch.bfloat16 and inference and eager_on_cpu(query)


def _attend_to_few(
    query: torch.Tensor,  # (B, L, H, E)
    key: torch.Tensor,  # (B, S, H, E)
    value: torch.Tensor,  # (B, S, H, E)
    bias: torch.Tensor,  # (B, S)
) -> torch.Tensor:
    """(B, L, H, E)."""
    key = key.transpose(1, 2) * query.shape[-1] ** -0.5
    scores = key @ query.permute(0, 2, 3, 1) + bias[:, None, :, None]  # (B, H, S, L)
    found = value.permute(0, 2, 3, 1) @ scores.softmax(2).to(value.dtype)  # (B, H, E, L)
    return found.permute(0, 3, 1, 2)


def _attend_in_parts(
    query: torch.Tensor,  # (B, L, H, E)
    key: torch.Tensor,  # (B, S, H, E)
    value: torch.Tensor,  # (B, S, H, E)
    bias: torch.Tensor,  # (B, S)
) -> torch.Tensor:
    """(B, L, H, E)."""
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    for part in _parts(query, key):
        _put(output, part, torch.bmm(_weights(query, key, bias, part), _take(value, part)))
    return output


class _CheapAttention(torch.autograd.Function):
    """softmax(query @ key / sqrt(E) + bias), dropped, @ value."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        query: torch.Tensor,  # (B, L, H, E)
        key: torch.Tensor,  # (B, S, H, E)
        value: torch.Tensor,  # (B, S, H, E)
        bias: torch.Tensor,  # (B, S)
        drop_rate: float,
    ) -> torch.Tensor:
        ctx.scale = keep_scale(drop_rate)
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        weights, kept = [], []
        for part in _parts(query, key):
            shares = _weights(query, key, bias, part)
            bits = keep_bits(shares.shape, drop_rate)
            dropped = bits.to(shares.dtype).mul_(shares)
            _put(output, part, torch.bmm(dropped, _take(value, part)).mul_(ctx.scale))
            weights.append(shares)
            kept.append(bits)
        ctx.save_for_backward(query, key, value, *weights, *kept)
        return output

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        for_query, for_key, for_value = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
        )
        parts = _parts(query, key)
        weights, kept = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        for part, shares, bits in zip(parts, weights, kept, strict=True):
            g = _take(gradient, part).mul_(ctx.scale)
            mask = bits.to(shares.dtype)
            for_shares = torch.bmm(g, _take(value, part).transpose(1, 2)).mul_(mask)
            scores = torch._softmax_backward_data(for_shares, shares, 2, shares.dtype)
            dropped = mask.mul_(shares)
            _put(for_value, part, torch.bmm(dropped.transpose(1, 2), g))
            scale = query.shape[-1] ** -0.5
            _put(for_query, part, torch.bmm(scores, _take(key, part)).mul_(scale))
            _put(for_key, part, torch.bmm(scores.transpose(1, 2), _take(query, part)).mul_(scale))
        return for_query, for_key, for_value, None, None


def _parts(query: torch.Tensor, key: torch.Tensor) -> Iterator[Part]:
    """All samples and heads: some samples with all heads, or one sample with some heads."""
    batch, length, heads, _ = query.shape
    some = max(1, WEIGHTS_AT_ONCE // (length * key.shape[1]))
    samples = max(1, some // heads)
    for sample in range(0, batch, samples):
        for head in range(0, heads, some):
            yield slice(sample, sample + samples), slice(head, head + some)


def _weights(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor, part: Part
) -> torch.Tensor:
    """The softmax of a part's scores: (samples * heads, L, S)."""
    q, masking = _take(query, part), bias[part[0]]
    scores = torch.baddbmm(
        masking.repeat_interleave(len(q) // len(masking), 0)[:, None],
        q,
        _take(key, part).transpose(1, 2),
        alpha=query.shape[-1] ** -0.5,
    )
    return scores.softmax(2)


def _take(x: torch.Tensor, part: Part) -> torch.Tensor:
    """A copy of a part: (B, L, H, E) -> (samples * heads, L, E)."""
    taken = x[part[0], :, part[1]].transpose(1, 2)
    return taken.clone(memory_format=torch.contiguous_format).flatten(0, 1)


def _put(x: torch.Tensor, part: Part, values: torch.Tensor) -> None:
    """The inverse of `_take`, into `x`."""
    place = x[part[0], :, part[1]].transpose(1, 2)
    place.copy_(values.view_as(place))
