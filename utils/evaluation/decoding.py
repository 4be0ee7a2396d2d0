"""Find the best spans of a model's start and end scores.

Shapes: B queries of a batch, V video units, k spans kept.
"""

import torch

PADDING = -1e29  # lower logits are of padding, which the models set to -1e30
LEAST = 1e-9  # lowest probability of a span, for its logarithm


@torch.no_grad()
def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, k: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k pairs i <= j with the highest P(start = i) * P(end = j).

    One of the k best products can only be in a row of the (V, V) table whose maximum is among the k
    highest: only these k rows are computed.

    Args:
        start_logits, end_logits: (B, V), padding -1e30.

    Returns:
        (B, k, 2) int64 first and last unit, and (B, k) float32 scores, best first; of equal scores
        the smallest i comes first, then the smallest j. In a clip with fewer than k pairs the best
        one is repeated with score 0.
    """
    start_logits, end_logits = start_logits.float(), end_logits.float()
    padding = start_logits < PADDING  # (B, V)
    start, end = start_logits.softmax(dim=1), end_logits.softmax(dim=1)
    units = start.shape[1]
    best_end = end.flip(1).cummax(dim=1).values.flip(1)  # over all j >= i
    _, rows = _first_best((start * best_end).masked_fill(padding, -1), k)
    rows = rows.sort(dim=1).values  # so that of equal products the smallest i comes first
    products = start.gather(1, rows)[..., None] * end[:, None]  # (B, k, V)
    columns = torch.arange(units, device=rows.device)
    no_span = (columns < rows[..., None]) | padding.gather(1, rows)[..., None] | padding[:, None]
    scores, positions = _first_best(products.masked_fill(no_span, -1).flatten(1), k)
    spans = torch.stack([rows.gather(1, positions // units), positions % units], dim=2)
    missing = k - scores.shape[1]
    scores = torch.nn.functional.pad(scores, (0, missing), value=-1)
    spans = torch.nn.functional.pad(spans, (0, 0, 0, missing))
    return torch.where(scores[..., None] < 0, spans[:, :1], spans), scores.clamp(min=0)


def _first_best(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest values (B, count) and their indices; of equal values the first ones.

    `torch.topk` picks any of equal values.
    """
    ordered, indices = values.sort(dim=1, descending=True, stable=True)
    return ordered[:, :count], indices[:, :count]


def spans_to_compare(
    start_logits: torch.Tensor, end_logits: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best spans of each clip (C, count, 2), and scores (C, count) that compare across clips.

    The probability of a span is relative to its own clip, where they sum to one in any case; its
    logits favour clips where all logits are high. The score is the mean of both as logarithms,
    which finds more than either (see docs/search.md).

    Args:
        start_logits, end_logits: (C, V).
    """
    spans, probability = best_spans(start_logits, end_logits, count)
    height = start_logits.gather(1, spans[..., 0]) + end_logits.gather(1, spans[..., 1])
    return spans, (height.float() + probability.clamp(min=LEAST).log()) / 2
