"""Queries a second in inference of both models, compared with plain implementations.

Plain: each query's text goes through BERT or CLIP, its clip through the whole model (for ReLER at
each of the five scales), and the best spans come from the whole outer product. Ours reads stored
token features, encodes a clip once for its queries (VSLNet), embeds it once for all scales and
gives each core its own queries (ReLER), and forms only the rows of the outer product that can hold
a best span. Both must find the same windows; plain models are those of `vslnet_step.py` and
`reler_step.py`. Each version runs in its own process, ours in one set up like our
programs.

    python benchmarks/inference.py
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks import reler_step, vslnet_step
from benchmarks.evaluation import plain_best
from benchmarks.text import bert_in_the_loop, clip_in_the_loop, stored
from benchmarks.timing import Work, alternate, as_our_programs, circumstances
from ReLER.infer import CPU_BATCH
from ReLER.model import ReLER
from ReLER.options import SCALES, ModelOptions
from utils.base.errors import UserError, run_program
from utils.base.machine import each_on_a_core
from utils.base.options import ArgumentParser
from utils.evaluation.decoding import best_spans
from VSLNet.model import VSLNet

CLIPS, QUERIES = 4, 8  # queries a clip
SCORES_AGREE = 1e-3  # relative


def main(arguments: list[str] | None = None) -> None:
    """Check that both versions find the same windows, then time them."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="timed batches of each version")
    options = parser.parse_args(arguments)
    print(
        f"{CLIPS} clips of {QUERIES} queries, {circumstances()}; queries a second by the clock "
        f"(by CPU time), medians of {options.times} batches taken in turn"
    )
    for width in (256, 2304):
        compare(f"VSLNet, {width} dims", lambda width=width: vslnet_versions(width), options.times)
    for width in (256, 2304):
        name = f"ReLER, {width}+512 dims"
        compare(name, lambda width=width: reler_versions(width), options.times)


Version = Callable[[torch.dtype | None], tuple[torch.Tensor, torch.Tensor]]


def compare(name: str, versions: Callable[[], tuple[Version, Version]], times: int) -> None:
    """Queries a second of both, in float32 and ours in bfloat16 too."""

    def plain() -> Work:
        version, other = versions()
        with torch.inference_mode():
            if not torch.allclose(version(None)[1], other(None)[1], rtol=SCORES_AGREE):
                raise UserError(f"{name}: the two versions scored their windows differently")
        return lambda number: torch.inference_mode()(version)(None)

    def ours(dtype: torch.dtype | None) -> Work:
        _, version = versions()
        return lambda number: torch.inference_mode()(version)(dtype)

    for precision in (None, torch.bfloat16):
        makers = plain, as_our_programs(lambda dtype=precision: ours(dtype))
        rates = CLIPS * QUERIES / np.median(alternate(makers, times), 0)
        print(
            f"{name}: plain float32 {rates[0][0]:.1f} ({rates[0][1]:.1f})   ours "
            f"{'bfloat16' if precision else 'float32 '} {rates[1][0]:.1f} ({rates[1][1]:.1f})   "
            f"ratio {rates[1][0] / rates[0][0]:.1f}x ({rates[1][1] / rates[0][1]:.1f}x)",
            flush=True,
        )


def vslnet_versions(width: int) -> tuple[Version, Version]:
    """Both versions on the same clips."""
    torch.manual_seed(0)
    units, count = 128, CLIPS * QUERIES
    model = VSLNet(width, vslnet_step.TEXT_WIDTH, max_pos_len=units).eval()
    batch = vslnet_step.random_batch(count, units, width)
    clip_index = torch.arange(CLIPS).repeat_interleave(QUERIES)  # of each query
    clips, masks = batch.video[:CLIPS], batch.video_mask[:CLIPS]
    batch = batch._replace(video=clips[clip_index], video_mask=masks[clip_index])
    bert = bert_in_the_loop(count, max(vslnet_step.TOKENS))
    store = stored(vslnet_step.TEXT_WIDTH, count, max(vslnet_step.TOKENS))

    def plain(dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        bert()
        _, start, end = vslnet_step.plain_logits(model, batch)
        return plain_best(start, end)

    def ours(dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        store()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            video = model.encode_video(clips, masks)
            query = model.encode_query(batch.text, batch.text_mask)
            out = model.fuse(video[clip_index], masks[clip_index], query, batch.text_mask)
            return best_spans(out.start_logits, out.end_logits, 5)

    return plain, ours


def reler_versions(width: int) -> tuple[Version, Version]:
    """Both versions on the same clips."""
    torch.manual_seed(0)
    units, count = 600, CLIPS * QUERIES
    model = ReLER(ModelOptions(max_v_l=units), width + 514).eval()
    batch = reler_step.random_batch(count, units, width + 514)
    clip_index = torch.arange(CLIPS).repeat_interleave(QUERIES)  # of each query
    batch = batch._replace(video=batch.video[clip_index], video_mask=batch.video_mask[clip_index])
    clip = clip_in_the_loop(count)
    store = stored(reler_step.TEXT_WIDTH, count, reler_step.TOKENS)

    def plain(dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        clip()
        candidates = []
        for parts in SCALES:
            outputs = reler_step.plain_outputs(model, batch, parts)
            candidates.append(plain_best(outputs.start, outputs.end))
        scores = torch.cat([scores for _, scores in candidates], 1).topk(5)
        return torch.cat([spans for spans, _ in candidates], 1), scores.values

    def ours(dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        store()

        @torch.inference_mode()
        def best(first: int) -> tuple[torch.Tensor, torch.Tensor]:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                part = [x[first : first + CPU_BATCH] for x in batch[:4]]
                return model.predict_scales(*part, longest=part[0].shape[1])

        chunks = range(0, count, CPU_BATCH)
        spans, scores = zip(*each_on_a_core(best, chunks, torch.device("cpu")), strict=True)
        return torch.cat(spans), torch.cat(scores)

    return plain, ours


if __name__ == "__main__":
    run_program(main)
