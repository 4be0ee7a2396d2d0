"""What a GPU makes of the models, in under ten minutes: steps, memory, inference, extraction.

For each model and feature width, with the batch of the published training: queries a second in
float32 (TF32), bfloat16, bfloat16 compiled, and with the batch waiting in the host's memory; bytes
a step takes at most, and in how many pieces the batch has to be computed; kernels a step and the
share of the time that they fill; hours of the published stages at that rate. Then queries a second
in inference, and feature rows a second of CLIP's image encoder (ViT-B/16, random weights). Batches
are random, and lie on the GPU.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --small       # only tries whether it runs
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

import torch
from terminaltables import AsciiTable
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_map
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks import groundnlq_step, reler_step, vslnet_step
from benchmarks.timing import Work, circumstances, median_time, training_step
from ReLER.losses import losses
from ReLER.model import ReLER, real_parts
from ReLER.options import LossOptions, ModelOptions
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.base.stages import NAQ, STAGES, TUNING
from utils.features.tensors import to_device
from utils.training.memory import free_memory, measured_peak, pieces_that_fit
from utils.training.precision import autocast, fast_products, mixed_dtype
from utils.training.steps import compiled
from VSLNet.model import VSLNet, parameter_groups

QUERIES = {NAQ: 850_000, TUNING: 11_000}  # of an epoch
IMAGES = 256
PARTS = 4  # of ReLER's clips: the mean of the scales


class Case(NamedTuple):
    """A model with the batch of its published training."""

    package: str
    what: str  # its features and batch
    model: nn.Module
    batch: Callable[[int], Any]  # of so many queries, on the host
    loss: Callable[[nn.Module, Any], torch.Tensor]
    predict: Callable[[nn.Module, Any], object]
    queries: int  # a step

    @property
    def name(self) -> str:
        return f"{self.package}, {self.what}"


def main(arguments: list[str] | None = None) -> None:
    """Print a table of training, then lines of inference and extraction."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each kind")
    parser.add_argument("--small", action="store_true", help="small models and batches")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU here; --device cpu --small tries whether this runs")
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, {circumstances()}")
    rows, lines = [], []
    for case in cases(options):
        case.model.to(options.device)
        rows += training(case, options)
        lines.append(inference(case, options))
        case.model.to("cpu")
    head = ["", "queries/s", "peak GB", "pieces", "kernels", "filled", *(f"h {s}" for s in QUERIES)]
    print(AsciiTable([head, *rows]).table)
    print("\n".join([*lines, extraction(options)]))


def cases(options: Namespace) -> Iterator[Case]:
    """All models, at the narrowest and the widest features."""
    units = {"VSLNet": 128, "ReLER": 600, "GroundNLQ": 900}
    if options.small:
        units = {"VSLNet": 16, "ReLER": 32, "GroundNLQ": 60}
    torch.manual_seed(0)
    for width in (8,) if options.small else (256, 2304):
        for queries in (4,) if options.small else published_batches("VSLNet"):
            yield Case(
                "VSLNet",
                f"{width} dims, batch {queries}",
                VSLNet(width, vslnet_step.TEXT_WIDTH, max_pos_len=units["VSLNet"]),
                partial(vslnet_step.random_batch, units=units["VSLNet"], width=width),
                vslnet_step.our_loss,
                lambda model, batch: model(
                    batch.video, batch.video_mask, batch.text.tokens, batch.text.mask
                ),
                queries,
            )
        for queries in (4,) if options.small else published_batches("ReLER"):
            further = width + reler_step.FURTHER_DIMS
            yield Case(
                "ReLER",
                f"{width}+512 dims, batch {queries}",
                ReLER(ModelOptions(max_v_l=units["ReLER"]), further),
                partial(reler_batch, units=units["ReLER"], width=further),
                reler_loss,
                lambda model, batch: model.predict_scales(
                    *batch.inputs, longest=batch.inputs.video.shape[1]
                ),
                queries,
            )
        queries = 4 if options.small else STAGES["GroundNLQ"][NAQ].batch_size
        yield Case(
            "GroundNLQ",
            f"{width} dims, batch {queries}",
            groundnlq_step.make_model(width),
            partial(groundnlq_step.random_batch, rows=units["GroundNLQ"], width=width),
            groundnlq_step.our_loss,
            lambda model, batch: model(*batch[0]),
            queries,
        )


def published_batches(package: str) -> list[int]:
    """Queries a step, in both stages."""
    return [STAGES[package][stage].batch_size for stage in (TUNING, NAQ)]


def reler_batch(size: int, units: int, width: int) -> reler_step.Batch:
    """A random batch whose parts are counted on the host, as in training."""
    inputs, targets = reler_step.random_batch(size, units, width)
    parts = float(real_parts(inputs.video_mask.sum(1), units, PARTS).sum())
    return reler_step.Batch(inputs, targets._replace(parts_total=parts))


def reler_loss(model: ReLER, batch: reler_step.Batch) -> torch.Tensor:
    """What a training step minimises."""
    inputs, targets = batch
    return losses(model(*inputs, PARTS), targets, inputs.video_mask, LossOptions())["total"]


def training(case: Case, options: Namespace) -> Iterator[list[str]]:
    """A row of the table for each way to take a step."""
    device = torch.device(options.device)
    model = case.model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-6, fused=True)
    pieces = pieces_of(case, device)
    host = case.batch(-(-case.queries // pieces))
    to_there = partial(moved, device=device)
    there = tree_map(to_there, host)
    compiled_model = compiled(model, device, case.queries)
    half = half_precision(device)
    kinds = [
        ("", torch.float32, lambda: case.loss(model, there)),
        ("", half, lambda: case.loss(model, there)),
        (" from the host", half, lambda: case.loss(model, tree_map(to_there, host))),
    ]
    if device.type != "cpu":  # where it takes minutes, and gains nothing
        kinds.append((" compiled", half, lambda: case.loss(compiled_model, there)))
    for name, dtype, loss in kinds:
        step = training_step(loss, optimizer, 1.0, dtype, options.device)
        with fast_products(device):
            seconds = pieces * median_time(step, options.steps, options.device)
            peak = measured_peak(device, step) / 1e9 if device.type == "cuda" else 0
            kernels, filled = kernels_of(step, device)
        rate = case.queries / seconds
        epochs = {stage: row.epochs for stage, row in STAGES[case.package].items()}
        hours = [f"{epochs[stage] * count / rate / 3600:.2f}" for stage, count in QUERIES.items()]
        what = f"{case.name}, {dtype_name(dtype)}{name}"
        yield [what, f"{rate:,.0f}", f"{peak:.1f}", str(pieces), str(kernels),
               f"{filled:.0%}", *hours]  # fmt: skip


def half_precision(device: torch.device) -> torch.dtype:
    """bfloat16, or float32 on a CPU without its instructions."""
    return mixed_dtype("auto", device) or torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def moved(x: object, device: torch.device) -> object:
    """A tensor on the device, as training puts it there."""
    return to_device(x, device) if isinstance(x, torch.Tensor) else x


def pieces_of(case: Case, device: torch.device) -> int:
    """In how many pieces the batch fits in bfloat16."""
    if device.type == "cpu":
        return 1

    def peak(queries: int) -> int:
        batch = tree_map(partial(moved, device=device), case.batch(queries))

        def backward() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                loss = case.loss(case.model, batch)
            loss.backward()

        bytes_taken = measured_peak(device, backward)
        case.model.zero_grad(set_to_none=True)
        return bytes_taken

    return pieces_that_fit(case.queries, peak, free_memory(device))


def kernels_of(step: Callable[[], object], device: torch.device) -> tuple[int, float]:
    """Kernels of a step on a GPU, and the share of its time that they fill."""
    if device.type == "cpu":
        return 0, 0.0
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    events = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    begin = min(event.time_range.start for event in events)
    end = max(event.time_range.end for event in events)
    return len(events), sum(event.time_range.elapsed_us() for event in events) / (end - begin)


def inference(case: Case, options: Namespace) -> str:
    """Queries a second of the whole model, one clip a query."""
    model, queries = case.model.eval(), min(case.queries, 64)
    device = torch.device(options.device)
    batch = tree_map(partial(moved, device=device), case.batch(queries))

    @torch.inference_mode()
    def predict() -> None:
        with autocast(device, "auto"):
            case.predict(model, batch)

    rate = queries / median_time(predict, options.steps, options.device)
    return f"{case.name}: inference in {dtype_name(half_precision(device))}, {rate:,.0f} queries/s"


def extraction(options: Namespace) -> str:
    """Feature rows a second of CLIP's image encoder."""
    images = 8 if options.small else IMAGES
    encode = clip_encoder(options.device, images, options.small)
    rate = images / median_time(encode, options.steps, options.device)
    return f"CLIP ViT-B/16 in float32: {rate:,.0f} rows/s"


def clip_encoder(device: str, images: int, small: bool = False) -> Work:
    """CLIP's image encoder, with random weights, on 8-bit pixels that lie on the host."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2} if small else {}
    config = CLIPVisionConfig(patch_size=16, **sizes)
    encoder = CLIPVisionModelWithProjection(config).to(device).eval()
    pixels = torch.randint(0, 255, (images, 3, 224, 224), dtype=torch.uint8)

    @torch.inference_mode()
    def encode() -> None:
        encoder(pixel_values=to_device(pixels, device).float() / 255)

    return encode


if __name__ == "__main__":
    run_program(main)
