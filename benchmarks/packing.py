"""Packing features at scale: our program beside plain loops, and what the packed file saves later.

Makes a folder of clips as large as the published ones (900 rows each), packs it as a process of its
own with both versions, which must write the same rows, and then opens folder and packed file.

    python benchmarks/packing.py                  # 200 clips 2304 wide: minutes, 7 GB of disk
    python benchmarks/packing.py --clips 20
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import h5py
import numpy as np
import torch

from benchmarks.create_naq import machine, measure
from utils.base.errors import UserError, run_program
from utils.base.options import ArgumentParser
from utils.features.mapped import open_features

ROOT = Path(__file__).resolve().parents[1]
NAME, ROWS = "slowfast", 900


def main(arguments: list[str] | None = None) -> None:
    """Make features, pack them in each way, open what came of it."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200, help="clips in the folder")
    parser.add_argument("--width", type=int, default=2304, help="of their features")
    parser.add_argument("--plain", metavar="DIR", help="run the plain version on a data root")
    options = parser.parse_args(arguments)
    if options.plain:
        plain(Path(options.plain))
        return
    with tempfile.TemporaryDirectory(prefix="naq-benchmark-") as folder:
        data_root = Path(folder)
        make_features(data_root / "features" / NAME, options.clips, options.width)
        size = options.clips * ROWS * options.width * 4 / 1e9
        print(f"{options.clips} clips, {size:.2f} GB in single precision; {machine()}")
        compare(data_root, size)
        open_both(data_root, [str(clip) for clip in range(options.clips)])


def make_features(folder: Path, clips: int, width: int) -> None:
    """Random rows, one `.pt` a clip."""
    folder.mkdir(parents=True)
    for clip in range(clips):
        draw = torch.Generator().manual_seed(clip)
        torch.save(torch.randn(ROWS, width, generator=draw), folder / f"{clip}.pt")


def compare(data_root: Path, size: float) -> None:
    """Time and peak memory of both versions; leaves our packed file."""
    program = ROOT / "utils" / "prepare_features.py"
    file = data_root / "features" / f"{NAME}.h5"
    plainly = data_root / "plain.h5"
    measure("plain", [Path(__file__).resolve(), "--plain"], data_root)
    for name, words in (("float16", ["--dtype", "float16"]), ("ours", [])):
        file.unlink(missing_ok=True)
        seconds, _ = measure(name, [program, "--features", NAME, *words], data_root)
        print(f"{'':8}{size / seconds:.2f} GB/s read", flush=True)
    with h5py.File(file) as ours, h5py.File(plainly) as theirs:
        uids = ours["clip_uids"].asstr()[:].tolist()
        for clip, uid in enumerate(uids):
            first, stop = ours["offsets"][clip : clip + 2]
            if not np.array_equal(ours["rows"][first:stop], theirs[uid]):
                raise UserError(f"the two programs wrote different rows for clip {uid}")
    print("both wrote the same rows")


def open_both(data_root: Path, clip_uids: list[str]) -> None:
    """Open the packed file, then the folder, twice each: time, and disk that the store takes."""
    packed = data_root / "features" / f"{NAME}.h5"
    for name in ("packed", "folder"):
        if name == "folder":
            packed.unlink()
        cache = data_root / f"cache-{name}"
        for visit in ("first", "again"):
            begin = time.perf_counter()
            open_features(data_root, NAME, clip_uids, cache)
            seconds = time.perf_counter() - begin
            size = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()) / 1e6
            print(f"open {name} {visit}: {seconds:.2f} s, {size:.1f} MB in the cache", flush=True)
        shutil.rmtree(cache)


def plain(data_root: Path) -> None:
    """The same as one would first write it: clip by clip, a data set each."""
    with h5py.File(data_root / "plain.h5", "w") as file:
        for path in sorted((data_root / "features" / NAME).glob("*.pt")):
            features = torch.load(path, weights_only=True).float().numpy()
            if not np.isfinite(features).all():
                raise UserError(f"{path}: NaN")
            file.create_dataset(path.stem, data=features)


if __name__ == "__main__":
    run_program(main)
