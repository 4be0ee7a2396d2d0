"""A training step of VSLNet, compared with a plain implementation of the same model.

The plain version encodes the text in the loop with BERT base, runs width-1 convolutions as
convolutions on (B, D, V), computes attention as a softmax of a product and draws one random number
per dropped element; ours reads token features from their store. Both have the same weights, and
without dropout must give the same losses and gradients. Video features are random. Ours is also
timed in bfloat16.

    python benchmarks/vslnet_step.py                        # 256 and 2304 dims, batch 32
    OMP_NUM_THREADS=1 python benchmarks/vslnet_step.py --steps 5
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.plain_layers import (
    dropped,
    masked,
    plain_encoder,
    plain_linear,
    plain_predictor,
)
from benchmarks.text import bert_in_the_loop, stored
from benchmarks.timing import Contest, check_agreement, compare_steps, step_options
from utils.base.errors import run_program
from utils.features.tokens import Text
from VSLNet.data import Batch
from VSLNet.model import Predictions, VSLNet, losses, parameter_groups

TEXT_WIDTH, TOKENS = 768, (8, 12)


def main(arguments: list[str] | None = None) -> None:
    """Check that both versions agree, then time them in float32 and bfloat16."""
    options = step_options(__doc__.splitlines()[0], arguments, batch=32, units=128, steps=11)

    def contest(width: int) -> Contest:
        torch.manual_seed(0)
        model = VSLNet(width, TEXT_WIDTH, max_pos_len=options.units)
        batch = random_batch(options.batch, options.units, width)

        def check() -> None:
            model.eval()
            check_agreement(model, plain_loss(model, batch), our_loss(model, batch))
            model.train()

        return Contest(
            check=check,
            plain=lambda _: plain_loss(model, batch),
            ours=lambda _: our_loss(model, batch),
            optimizer=torch.optim.AdamW(parameter_groups(model), lr=1e-6, eps=1e-6, fused=True),
            clip_norm=1.0,
        )

    compare_steps(
        options,
        contest,
        lambda: bert_in_the_loop(options.batch, max(TOKENS)),
        lambda: stored(TEXT_WIDTH, options.batch, max(TOKENS)),
    )


def random_batch(size: int, units: int, width: int) -> Batch:
    """Clips of all units or fewer, queries of 8 to 12 tokens."""
    draw = np.random.default_rng(0)
    lengths = torch.from_numpy(draw.integers(units // 2, units, size, endpoint=True))
    lengths[0] = units
    tokens = torch.from_numpy(draw.integers(*TOKENS, size, endpoint=True))
    video_mask = (torch.arange(units) < lengths[:, None]).float()
    text_mask = (torch.arange(max(TOKENS)) < tokens[:, None]).float()
    start = (lengths * 0.4).long()
    end = start + units // 20
    unit = torch.arange(units)
    return Batch(
        video=torch.randn(size, units, width) * video_mask[..., None],
        video_mask=video_mask,
        text=Text(torch.randn(size, max(TOKENS), TEXT_WIDTH) * text_mask[..., None], text_mask),
        start=start,
        end=end,
        highlight=((unit >= start[:, None] - 1) & (unit <= end[:, None] + 1)).float(),
        units_total=float(lengths.sum()),
        weight=1.0,
    )


def our_loss(model: VSLNet, batch: Batch) -> torch.Tensor:
    """What a training step minimises."""
    out = model(batch.video, batch.video_mask, *batch.text)
    return losses(out, batch.start, batch.end, batch.highlight, batch.video_mask).total


# The plain version, on the same weights: B batch, D hidden, V units, Q tokens.


def plain_loss(model: VSLNet, batch: Batch) -> torch.Tensor:
    """The loss, from convolutions that swap (B, V, D) and (B, D, V) back and forth."""
    out = Predictions(*plain_logits(model, batch))
    highlight_loss = F.binary_cross_entropy_with_logits(
        out.highlight_logits, batch.highlight, reduction="none"
    )
    weight = torch.where(batch.highlight > 0, 2.0, 1.0) * batch.video_mask
    span = F.cross_entropy(out.start_logits, batch.start)
    span = span + F.cross_entropy(out.end_logits, batch.end)
    return span + 5 * (highlight_loss * weight).sum() / batch.video_mask.sum()


def plain_logits(model: VSLNet, batch: Batch) -> tuple[torch.Tensor, ...]:
    video_mask, (tokens, query_mask, _) = batch.video_mask, batch.text
    video = plain_linear(model.video_affine.linear, dropped(model, batch.video))
    video = plain_encoder(model.feature_encoder, video, video_mask)
    query = plain_encoder(model.feature_encoder, model.query_affine(tokens), query_mask)

    layer = model.cq_attention
    c, q = dropped(model, video), dropped(model, query)
    similarity = c @ layer.w4C + (q @ layer.w4Q).transpose(1, 2)
    similarity = (similarity + (c * layer.w4mlu) @ q.transpose(1, 2)).float()
    over_query = masked(similarity, query_mask[:, None]).softmax(2)
    over_video = masked(similarity, video_mask[..., None]).softmax(1)
    a = over_query @ query
    b = over_query @ over_video.transpose(1, 2) @ video
    x = plain_linear(layer.cqa_linear, torch.cat((video, a, video * a, video * b), 2))

    layer = model.cq_concat
    scores = masked((query @ layer.weighted_pool.weight).float(), query_mask[..., None])
    pooled = (scores.softmax(1) * query).sum(1, keepdim=True)
    x = plain_linear(layer.conv1d, torch.cat((x, pooled.expand(-1, x.shape[1], -1)), 2))

    highlight = masked(plain_linear(model.highlight_layer.conv1d, x)[..., 0].float(), video_mask)
    x = x * highlight.sigmoid()[..., None]
    return highlight, *plain_predictor(model.predictor, x, video_mask)


if __name__ == "__main__":
    run_program(main)
