"""Queries a second in inference of all models, compared with plain implementations.

Plain: each query's text goes through BERT or CLIP, its clip through the whole model (for ReLER at
each of the five scales, for GroundNLQ padded to 2,560 rows), and the best spans come from the whole
outer product. Ours reads stored token features, encodes a clip once for its queries (VSLNet,
GroundNLQ), embeds it once for all scales and gives each core its own queries (ReLER), pads a clip
no more than its numbers need (GroundNLQ), and forms only the rows of the outer product that can
hold a best span. Both must find the same windows; plain models are those of `vslnet_step.py`,
`reler_step.py` and `groundnlq_step.py`.

    python benchmarks/inference.py
    python benchmarks/inference.py --models GroundNLQ --clips 1
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import torch

from benchmarks import groundnlq_step, reler_step, vslnet_step
from benchmarks.evaluation import plain_best
from benchmarks.text import bert_in_the_loop, clip_in_the_loop, stored
from benchmarks.timing import Work, circumstances, compare
from GroundNLQ.infer import ranked_windows
from ReLER.infer import CPU_BATCH
from ReLER.model import ReLER
from ReLER.options import SCALES, ModelOptions
from utils.base.errors import UserError, run_program
from utils.base.machine import each_on_a_core
from utils.base.options import ArgumentParser
from utils.evaluation.decoding import best_spans
from VSLNet.model import VSLNet

QUERIES = 8  # a clip
SCORES_AGREE = 1e-3  # relative

Spans = tuple[torch.Tensor, torch.Tensor]  # of each query, and their scores
Versions = tuple[Callable[[], Spans], Callable[[], Spans]]  # plain, ours


def main(arguments: list[str] | None = None) -> None:
    """Check that both versions find the same windows, then time them."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[*VERSIONS], choices=VERSIONS, help="which")
    parser.add_argument("--clips", type=int, default=4, help="clips of a batch")
    parser.add_argument(
        "--units", type=int, nargs=3, default=[128, 600, 900], help="of a clip, model by model"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 2304], help="feature widths")
    parser.add_argument("--times", type=int, default=5, help="timed batches of each version")
    options = parser.parse_args(arguments)
    print(
        f"seconds for {options.clips} clips of {QUERIES} queries, {circumstances()}; wall time "
        f"(CPU time), medians of {options.times} batches in turn, ratios to plain; peak memory"
    )
    units = dict(zip(VERSIONS, options.units, strict=True))
    for model in options.models:
        for width in options.widths:
            versions = partial(VERSIONS[model], width, units[model], options.clips)
            makers = {
                "plain float32": partial(checked_plain, versions),
                "ours float32": partial(ours, versions, torch.float32),
                "ours bfloat16": partial(ours, versions, torch.bfloat16),
            }
            compare(f"{model}, {width} dims", makers, options.times)


def checked_plain(make: Callable[[], Versions]) -> Work:
    """The plain version; raises UserError if ours scores its windows differently."""
    version, other = map(torch.inference_mode(), make())
    if not torch.allclose(version()[1], other()[1], rtol=SCORES_AGREE):
        raise UserError("the two versions scored their windows differently")
    return lambda number: version()


def ours(make: Callable[[], Versions], dtype: torch.dtype) -> Work:
    """Our version in a precision."""
    version = torch.inference_mode()(make()[1])

    def work(number: int) -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            version()

    return work


def vslnet_versions(width: int, units: int, clip_count: int) -> Versions:
    """Both versions on the same clips."""
    torch.manual_seed(0)
    count = clip_count * QUERIES
    model = VSLNet(width, vslnet_step.TEXT_WIDTH, max_pos_len=units).eval()
    batch = vslnet_step.random_batch(count, units, width)
    clip_index = torch.arange(clip_count).repeat_interleave(QUERIES)  # of each query
    clips, masks = batch.video[:clip_count], batch.video_mask[:clip_count]
    batch = batch._replace(video=clips[clip_index], video_mask=masks[clip_index])
    text, text_mask, _ = batch.text
    bert = cache(partial(bert_in_the_loop, count, max(vslnet_step.TOKENS)))  # of plain alone
    store = stored(vslnet_step.TEXT_WIDTH, count, max(vslnet_step.TOKENS))

    def plain() -> Spans:
        bert()()
        _, start, end = vslnet_step.plain_logits(model, batch)
        return plain_best(start, end)

    def ours() -> Spans:
        store()
        video = model.encode_video(clips, masks)
        query = model.encode_query(text, text_mask)
        out = model.fuse(video[clip_index], masks[clip_index], query, text_mask)
        return best_spans(out.start_logits, out.end_logits, 5)

    return plain, ours


def reler_versions(width: int, units: int, clip_count: int) -> Versions:
    """Both versions on the same clips."""
    torch.manual_seed(0)
    count, width = clip_count * QUERIES, width + reler_step.FURTHER_DIMS
    model = ReLER(ModelOptions(max_v_l=units), width).eval()
    inputs = reler_step.random_batch(count, units, width).inputs
    clip_index = torch.arange(clip_count).repeat_interleave(QUERIES)  # of each query
    video, video_mask = inputs.video[clip_index], inputs.video_mask[clip_index]
    inputs = inputs._replace(video=video, video_mask=video_mask)
    clip = cache(partial(clip_in_the_loop, count))  # of plain alone
    store = stored(reler_step.TEXT_WIDTH, count, reler_step.TOKENS)

    def plain() -> Spans:
        clip()()
        candidates = []
        for parts in SCALES:
            outputs = reler_step.plain_outputs(model, inputs, parts)
            candidates.append(plain_best(outputs.start, outputs.end))
        scores = torch.cat([scores for _, scores in candidates], 1).topk(5)
        return torch.cat([spans for spans, _ in candidates], 1), scores.values

    def ours() -> Spans:
        store()
        dtype = torch.get_autocast_dtype("cpu")
        is_mixed = torch.is_autocast_enabled("cpu")

        @torch.inference_mode()
        def best(first: int) -> Spans:
            part = [x[first : first + CPU_BATCH] for x in inputs]
            with torch.autocast("cpu", dtype, enabled=is_mixed):  # in a thread of its own
                return model.predict_scales(*part, longest=part[0].shape[1])

        chunks = range(0, count, CPU_BATCH)
        spans, scores = zip(*each_on_a_core(best, chunks, torch.device("cpu")), strict=True)
        return torch.cat(spans), torch.cat(scores)

    return plain, ours


def groundnlq_versions(width: int, units: int, clip_count: int) -> Versions:
    """Both versions on the same clips."""
    count = clip_count * QUERIES
    model = groundnlq_step.make_model(width).eval()
    clip_index = torch.arange(clip_count).repeat_interleave(QUERIES)  # of each query

    def batch(padded: int) -> list[torch.Tensor]:
        inputs, _ = groundnlq_step.make_batch(width, count, units, padded)
        return [inputs.video[:clip_count], *inputs[1:]]

    padded = groundnlq_step.our_padding(units)
    video, mask, text, text_mask = batch(padded)
    plain_video, plain_mask, *_ = batch(groundnlq_step.PADDED)
    clip = cache(partial(clip_in_the_loop, count))  # of plain alone
    store = stored(groundnlq_step.TEXT_WIDTH, count, groundnlq_step.TOKENS)

    def plain() -> Spans:
        clip()()
        best = []
        for n in range(count):  # all of them at once would take ten GB
            one = plain_video[clip_index[n], None], plain_mask[:1], text[n, None], text_mask[:1]
            grounding = groundnlq_step.plain_grounding(model, *one)
            best.append(ranked_windows(grounding, groundnlq_step.PADDED, model.levels, 5))
        windows, scores = zip(*best, strict=True)
        return torch.cat(windows), torch.cat(scores)

    def ours() -> Spans:
        store()
        encoded = model.encode_video(video, mask[:clip_count])
        query = model.encode_query(text, text_mask)
        grounding = model.ground(encoded[clip_index], mask, query, text_mask)
        return ranked_windows(grounding, padded, model.levels, 5)

    return plain, ours


VERSIONS = {"VSLNet": vslnet_versions, "ReLER": reler_versions, "GroundNLQ": groundnlq_versions}


if __name__ == "__main__":
    run_program(main)
