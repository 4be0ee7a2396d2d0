"""A folder of `.pt` features of three small clips, for the tests of what reads them."""

import json
from pathlib import Path

import numpy as np
import torch

LENGTHS = {"a": 40, "b": 7, "c": 16}  # rows, of width 5


def write_features(data_root: Path) -> Path:
    """`features/egovlp` with its lengths, under the data root; returns the root."""
    folder = data_root / "features" / "egovlp"
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for uid, rows in LENGTHS.items():
        torch.save(torch.randn(rows, 5, generator=draw), folder / f"{uid}.pt")
    (folder / "feature_shapes.json").write_text(json.dumps(LENGTHS))
    return data_root


def source(data_root: Path, uid: str) -> np.ndarray:
    """The rows that were written for a clip, as they are in its file now."""
    return torch.load(data_root / "features/egovlp" / f"{uid}.pt", weights_only=True).numpy()
