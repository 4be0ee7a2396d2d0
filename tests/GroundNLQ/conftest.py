"""The published model's numbers, and our models with its weights."""

import json

import numpy as np
import pytest
import torch

from GroundNLQ.model import GroundNLQ
from tests.GroundNLQ.drawn import state_dict

SMALL = {"video_dim": 24, "text_dim": 12, "dim": 32, "drop_path": 0.0, "masked": False}
ARCHITECTURES = {"small": (2, 2, 2, 0, 3), "small_star": (2, 2, 2, 3, 0)}


@pytest.fixture(scope="session")
def folder(golden):
    """Where the golden numbers of this model lie."""
    return golden / "groundnlq"


@pytest.fixture(scope="session")
def reference(folder):
    """Arrays by name."""
    with np.load(folder / "groundnlq.npz") as arrays:
        numbers = {name: arrays[name] for name in arrays if not name.endswith("/tag")}
    return {name: torch.from_numpy(array) for name, array in numbers.items()}


@pytest.fixture(scope="session")
def schema(folder):
    """Names and shapes of weights."""
    return json.loads((folder / "schema_groundnlq.json").read_text())


@pytest.fixture(scope="session")
def weights(schema):
    """The small models' weights by their kind."""
    return {kind: state_dict(schema[f"state_dict_{kind}"]) for kind in ARCHITECTURES}


@pytest.fixture
def small(weights):
    """A small model with the golden weights, which tests may change."""

    def make(kind="small", **settings):
        model = GroundNLQ(**{**SMALL, "arch": ARCHITECTURES[kind], **settings})
        model.load_state_dict(weights[kind])
        return model.eval()

    return make


@pytest.fixture
def inputs(reference):
    """The small model's batch: three clips, padded."""
    return (
        reference["video_features"],
        reference["video_mask"].float(),
        reference["text_features"],
        reference["query_mask"].float(),
    )
