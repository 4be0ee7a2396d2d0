"""Memory of an open split by number of clips: VSLNet's, ReLER's, and a dictionary of all rows.

Makes data roots that differ in the number of clips alone (900 rows each, packed; the same number of
queries), opens the training split of each in a new process, draws batches from all over it, and
reads that process's memory from /proc/self/smaps_rollup. Linux only.

own:    anonymous memory, which no other process shares and the system can't drop
mapped: resident pages of files (features, stores, libraries), shared by all processes that map
        them, and dropped when memory is short

    python benchmarks/memory.py                   # 150 and 1,500 clips: minutes, 9 GB of disk
    python benchmarks/memory.py --clips 5 50
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

import ReLER.data
import ReLER.options
import utils.prepare_features
import VSLNet.data
import VSLNet.options
from utils.base.errors import UserError, run_program
from utils.base.files import write_json
from utils.base.options import ArgumentParser
from utils.features.tokens import EncoderText
from utils.training.processes import Processes

ROWS, RATE = 900, 1.875
WIDTHS = {"egovlp": 256, "clip": 512}
QUERIES, SENTENCES, TOKENS = 15_000, 2_000, 12  # whatever the number of clips
BATCH, BATCHES = 32, 100
TASK = "made_up"


def main(arguments: list[str] | None = None) -> None:
    """Measure each reader at each number of clips."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[150, 1500], help="in the split")
    parser.add_argument("--read", nargs=2, metavar=("READER", "DIR"), help="measure one, here")
    options = parser.parse_args(arguments)
    if options.read:
        reader, data_root = options.read
        print(json.dumps(measure(reader, Path(data_root))))
        return
    for clips in options.clips:
        with tempfile.TemporaryDirectory(prefix="naq-benchmark-") as folder:
            data_root = Path(folder)
            make(data_root, clips)
            for reader in READERS:
                for visit in ("stores built", "stores there")[reader == "dictionary" :]:
                    print(f"{clips:5} clips, {reader:10}, {visit}: {child(reader, data_root)}")


def child(reader: str, data_root: Path) -> str:
    """Run one reader in a new process; returns its figures as text."""
    command = [sys.executable, __file__, "--read", reader, str(data_root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{reader} failed: {done.stderr[-300:]}")
    before, opened, drawn, seconds = json.loads(done.stdout.splitlines()[-1])
    text = f"own {before['own']:.0f} MB before, +{opened['own'] - before['own']:.1f} opened, "
    text += f"+{drawn['own'] - before['own']:.1f} after {BATCHES} batches"
    return f"{text}; mapped {drawn['mapped']:.0f} MB; opened in {seconds:.1f} s"


def measure(reader: str, data_root: Path) -> list:
    """Memory before the split is opened, then, and after the batches; seconds to open it."""
    torch.manual_seed(0)
    torch.randn(8, 8) @ torch.randn(8, 8)  # what torch takes once
    before, begin = held_memory(), time.perf_counter()
    split, draw = READERS[reader](data_root)
    seconds = time.perf_counter() - begin
    opened = held_memory()
    rows = np.random.default_rng(0).permutation(QUERIES)
    for batch in range(BATCHES):
        draw(split, rows[batch * BATCH : (batch + 1) * BATCH])
    return [before, opened, held_memory(), seconds]


def held_memory() -> dict[str, float]:
    """MB of this process's memory: anonymous, and pages of files."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, amount, _ = line.split()
        fields[name] = int(amount) / 1e3
    return {"own": fields["Anonymous:"], "mapped": fields["Rss:"] - fields["Anonymous:"]}


def open_vslnet(data_root: Path) -> tuple:
    """VSLNet's split: features pooled to 128 units."""
    options = VSLNet.options.Options(task=TASK, fv="egovlp", data_root=str(data_root))
    text = EncoderText(MadeUpEncoder(768), False, options.cache)
    split = VSLNet.data.open_split(options, "train", text, torch.device("cpu"), False)
    draws = np.random.default_rng(0).random((QUERIES, 2))
    alone = Processes(0, 1, torch.device("cpu"))
    return split, lambda split, rows: split.batch(*alone.shares(rows), draws, alone.device)


def open_reler(data_root: Path) -> tuple:
    """ReLER's split: all rows of both features."""
    options = ReLER.options.Options(task=TASK, fv="egovlp", data_root=str(data_root))
    text = EncoderText(MadeUpEncoder(512), False, options.cache)
    split = ReLER.data.open_split(options, "train", text, torch.device("cpu"), False)
    draws = np.random.default_rng(0).random((QUERIES, ReLER.augment.COLUMNS))
    alone = Processes(0, 1, torch.device("cpu"))
    return split, lambda split, rows: split.batch(*alone.shares(rows), 2, draws, alone.device)


def open_dictionary(data_root: Path) -> tuple:
    """The plain way: both features of every clip read into a dictionary."""
    clips = {
        file.stem: np.concatenate(
            [
                torch.load(data_root / "features" / name / file.name, weights_only=True).numpy()
                for name in WIDTHS
            ],
            1,
        )
        for file in sorted((data_root / "features" / "clip").glob("*.pt"))
    }
    names = list(clips)
    return clips, lambda clips, rows: [clips[names[row % len(names)]] for row in rows]


READERS = {"VSLNet": open_vslnet, "ReLER": open_reler, "dictionary": open_dictionary}


class MadeUpEncoder:
    """A stand-in for a text encoder: TOKENS random token features a sentence."""

    name, pad_token = "made up", 0

    def __init__(self, width: int):
        self.width = width
        self.fingerprint = f"made up {width}"

    def tokenize(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers and where each sentence's begin."""
        offsets = np.arange(len(sentences) + 1) * TOKENS
        return np.zeros(offsets[-1], np.int64), offsets

    def useful(self, lengths: np.ndarray) -> np.ndarray:
        """All tokens."""
        return lengths

    def encode_batch(self, numbers: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, Q, T)."""
        return torch.randn(*numbers.shape, self.width)

    def release(self) -> None:
        """Holds no weights."""


def make(data_root: Path, clips: int) -> None:
    """Features in `.pt` and packed, and a training split."""
    names = [f"clip{clip:05}" for clip in range(clips)]
    for name, width in WIDTHS.items():
        folder = data_root / "features" / name
        folder.mkdir(parents=True)
        for clip, uid in enumerate(names):
            draw = torch.Generator().manual_seed(clip)
            torch.save(torch.randn(ROWS, width, generator=draw), folder / f"{uid}.pt")
    utils.prepare_features.main(["--features", *WIDTHS, "--data_root", str(data_root)])
    draws = np.random.default_rng(0)
    split = {}
    for uid, queries in zip(names, np.array_split(np.arange(QUERIES), clips), strict=True):
        start = draws.random(len(queries)) * 460
        times = np.stack((start, start + 1 + draws.random(len(queries)) * 10), 1)
        split[uid] = {
            "fps": RATE,
            "num_frames": ROWS,
            "timestamps": np.floor(times * RATE).astype(int).tolist(),
            "exact_times": times.tolist(),
            "sentences": [f"where is thing number {n % SENTENCES}?" for n in queries],
            "annotation_uids": [uid] * len(queries),
            "query_idx": list(range(len(queries))),
        }
    write_json(data_root / "dataset" / TASK / "train.json", split)


if __name__ == "__main__":
    run_program(main)
