"""ReLER's data path: samples a second, compared with a plain implementation and a training step.

Made-up clips of 900 rows lie in files, mapped as in training; batches are cut, spliced, normalised,
pooled to 600 units and labelled. The plain version does the same sample by sample, as in the
worker of a data loader. Both must give the same tensors.

    python benchmarks/reler_data.py               # some minutes; 0.6 GB of disk
    python benchmarks/reler_data.py --clips 10 --batches 3
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks.timing import circumstances, spent, training_step
from ReLER.augment import COLUMNS, Draws, cut_windows
from ReLER.data import Inputs, Split
from ReLER.losses import Targets, losses
from ReLER.model import ReLER
from ReLER.options import LossOptions, ModelOptions, Options
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.data.records import Records
from utils.features.mapped import FeatureStore, pool_rows
from utils.features.stores import create_array, map_array
from utils.features.tokens import Text
from utils.training.processes import Processes

ROWS, QUERIES, TOKENS, TEXT_WIDTH = 900, 1000, 12, 512
PARTS = 4
DRAWS = np.random.default_rng(2018).random((QUERIES, COLUMNS))


def main(arguments: list[str] | None = None) -> None:
    """Time the data path for both widths of features."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="samples a batch")
    parser.add_argument("--batches", type=int, default=20, help="timed batches")
    parser.add_argument("--clips", type=int, default=50, help="clips in the made-up split")
    parser.add_argument("--steps", type=int, default=3, help="timed training steps")
    options = parser.parse_args(arguments)
    print(f"clips of {ROWS} rows, batch {options.batch}, {circumstances()}; medians")
    for width in (256, 2304):
        with tempfile.TemporaryDirectory(prefix="naq-benchmark-") as folder:
            compare(Path(folder), width, options)


def compare(folder: Path, width: int, options: object) -> None:
    """Ours, plain and a training step on features of one width."""
    stores = [
        make_store(folder / "feature.npy", options.clips, width),
        make_store(folder / "clip.npy", options.clips, TEXT_WIDTH),
    ]
    cpu = torch.device("cpu")
    chosen = Options(task="nlq", fv="feature")
    data = Split(make_records(options.clips), stores, Sentences(), chosen, cpu)
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, QUERIES, options.batch) for _ in range(options.batches)]
    read = partial(data.batch, parts=PARTS, draws=DRAWS, processes=Processes(0, 1, cpu))
    video = read(batches[0])[0].video
    if not torch.allclose(video, plain(data, stores, batches[0]), atol=1e-6):
        raise UserError("the two versions made different tensors")

    first = float(np.mean([spent(read, rows)[0] for rows in batches]))
    ours = median(read, batches)
    plain_seconds = median(lambda rows: plain(data, stores, rows), batches)
    train = reler_step(data.width)
    step = median(lambda rows: train(read(rows)), batches[: options.steps])
    print(
        f"{width}+{TEXT_WIDTH} dims: {options.batch / ours:5.0f} samples/s "
        f"(rows seen for the first time {options.batch / first:.0f}/s), plain "
        f"{options.batch / plain_seconds:.0f}/s, ratio {plain_seconds / ours:.1f}x; "
        f"{1e3 * ours:.0f} ms of a CPU training step of {1e3 * step:.0f} ms: {ours / step:.1%}"
    )


def median(work: Callable, batches: list[np.ndarray]) -> float:
    """Median seconds of the work on a batch."""
    return float(np.median([spent(work, rows)[0] for rows in batches]))


def reler_step(width: int) -> Callable[[tuple[Inputs, Targets]], object]:
    """A float32 step of the full-size model."""
    torch.manual_seed(0)
    model = ReLER(ModelOptions(), width).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=1e-4)

    def loss(batch: tuple[Inputs, Targets]) -> torch.Tensor:
        inputs, targets = batch
        outputs = model(*inputs, PARTS)
        return losses(outputs, targets, inputs.video_mask, LossOptions())["total"]

    return training_step(loss, optimizer, 0.1)


def plain(data: Split, stores: list[FeatureStore], rows: np.ndarray) -> torch.Tensor:
    """The video tensor of a batch, sample by sample from whole clips."""
    videos = []
    for row in rows:
        clip = data.records.clip[row : row + 1]
        seconds, draws = data.records.exact[row : row + 1], Draws.of(DRAWS[row : row + 1])
        clip_rows = np.full(len(data.records.clip_uids), ROWS)
        cuts, _ = cut_windows(clip, seconds, clip_rows, data.records.clip, draws)
        video = plain_clip(stores, clip[0])[cuts.first[0] :][: cuts.length[0]]
        if cuts.other[0] >= 0:
            around, cut = plain_clip(stores, cuts.other[0]), cuts.cut[0]
            video = np.concatenate((around[:cut], video, around[cut:]))
        pooled = pool_rows(video, data.options.max_v_l)
        border = np.arange(len(pooled) + 1, dtype=np.float32) / len(pooled)
        videos.append(np.concatenate((pooled, border[:-1, None], border[1:, None]), 1))
    padded = max(map(len, videos))
    return torch.stack(
        [torch.from_numpy(np.pad(video, ((0, padded - len(video)), (0, 0)))) for video in videos]
    )


def plain_clip(stores: list[FeatureStore], clip: int) -> np.ndarray:
    features = [store.rows(clip) for store in stores]
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in features]
    return np.concatenate([x / (n + 1e-5) for x, n in zip(features, lengths, strict=True)], 1)


class Sentences:
    """Random token features."""

    def __init__(self) -> None:
        self.tokens = torch.randn(QUERIES, TOKENS, TEXT_WIDTH)

    def __call__(self, sentences: np.ndarray, device: torch.device) -> Text:
        """(B, Q, T) and (B, Q)."""
        return Text(self.tokens[sentences], torch.ones(len(sentences), TOKENS))


def make_store(file: Path, clips: int, width: int) -> FeatureStore:
    """Random rows in a file, mapped."""
    joined = create_array(file, (clips * ROWS, width), np.float32)
    draws = np.random.default_rng(width)
    for clip in range(clips):
        joined[clip * ROWS : (clip + 1) * ROWS] = draws.standard_normal((ROWS, width), np.float32)
    joined.flush()
    lengths = np.full(clips, ROWS)
    names = [str(clip) for clip in range(clips)]
    return FeatureStore(names, lengths, np.cumsum(lengths) - ROWS, map_array(file))


def make_records(clips: int) -> Records:
    """Queries and narrations of a few seconds, anywhere in the clips."""
    draws = np.random.default_rng(0)
    number = np.arange(QUERIES, dtype=np.int32)
    start = draws.random(QUERIES) * 460
    exact = np.stack((start, start + draws.random(QUERIES) * 10), 1)
    return Records(
        clip_uids=[str(clip) for clip in range(clips)],
        sentences=[f"sentence {i}" for i in number],
        annotation_uids=["annotation"],
        fps=np.full(clips, 1.875),
        num_frames=np.full(clips, ROWS),
        clip=draws.integers(0, clips, QUERIES).astype(np.int32),
        sentence=number,
        annotation=np.zeros_like(number),
        query_idx=number,
        timestamps=np.floor(exact * 1.875),
        exact=exact,
        is_narration=number % 2 == 0,
    )


if __name__ == "__main__":
    run_program(main)
