"""The published model's numbers, and our model with its weights."""

import numpy as np
import pytest
import torch

from ReLER.model import ReLER
from ReLER.options import ModelOptions
from utils.data.records import Records


@pytest.fixture(scope="session")
def reference(golden) -> dict[str, torch.Tensor]:
    """Inputs, outputs, losses, gradients and weights of the published model."""
    with np.load(golden / "reler.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def published_model(reference) -> ReLER:
    """In evaluation mode, as the numbers were computed."""
    model = ReLER(
        ModelOptions(
            hidden_dim=32,
            max_v_l=48,
            v_intermediate_size=64,
            intermediate_size=64,
            contrastive_hdim=16,
        ),
        video_dim=26,
        text_dim=48,
    )
    weights = {
        name.removeprefix("weight/"): value
        for name, value in reference.items()
        if name.startswith("weight/")
    }
    model.load_state_dict(weights)
    return model.eval()


def make_records(clip: np.ndarray, fps: np.ndarray, num_frames: np.ndarray, exact: np.ndarray):
    """Queries with windows (R, 2) in seconds; every second one is a narration."""
    numbers = np.arange(len(clip), dtype=np.int32)
    return Records(
        clip_uids=[f"clip{i}" for i in range(len(num_frames))],
        sentences=[f"{'#c c ' if i % 2 else ''}sentence {i}?" for i in numbers],
        annotation_uids=["a"],
        fps=fps,
        num_frames=num_frames,
        clip=clip.astype(np.int32),
        sentence=numbers,
        annotation=numbers * 0,
        query_idx=numbers,
        timestamps=np.floor(exact * 1.875),
        exact=exact,
        is_narration=numbers % 2 == 1,
    )


@pytest.fixture(scope="session")
def inputs(reference) -> tuple[torch.Tensor, ...]:
    """Video, its mask, text and its mask."""
    names = ("video_features", "video_mask", "text_features", "text_mask")
    return tuple(reference[name] for name in names)
