"""EgoVLP's golden numbers, and made-up checkpoints in the released layout."""

import json
import math
import sys
import types
import zlib
from argparse import Namespace
from pathlib import Path, PosixPath
from unittest.mock import patch

import numpy as np
import torch

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "egovlp"


def golden(name):
    """The arrays of a file, and its config."""
    with np.load(GOLDEN / f"{name}.npz") as content:
        arrays = {key: torch.from_numpy(content[key]) for key in content if key != "config"}
        return arrays, json.loads(str(content["config"]))


def weight(name, shape):
    """The weight of that name, drawn from it."""
    seed = zlib.crc32(name.encode()) & 0x7FFFFFFF
    draws = np.asarray(np.random.RandomState(seed).standard_normal(tuple(shape)))
    if name.endswith(".bias"):
        draws = 0.05 * draws
    elif len(shape) == 1:
        draws = 1 + 0.1 * draws
    else:
        draws = draws * math.sqrt(2 / (shape[0] + math.prod(shape[1:])))
    return torch.tensor(draws, dtype=torch.float32)


def weights(shapes):
    return {name: weight(name, shape) for name, shape in shapes.items()}


SMALL = {**golden("egovlp")[1]["keys"], **golden("egovlp_text")[1]["keys"]}


def released_shapes():
    """Of the full model."""
    schema = json.loads((GOLDEN / "schema_egovlp.json").read_text())
    parts = ("text_model", "video_model", "txt_proj", "vid_proj")
    return {name: shape for part in parts for name, shape in schema[part].items()}


class ConfigParser:
    """Stands for the class of that name that the released file holds an object of."""

    def __init__(self, **state):
        vars(self).update(state)


def write_checkpoint(file, shapes=SMALL, **more):
    """A checkpoint in the released layout; the class that it names is nowhere to be found."""
    module = types.ModuleType("parse_config")
    module.ConfigParser = ConfigParser
    state = {f"module.{name}": value for name, value in weights(shapes).items()}
    content = {
        "arch": "FrozenInTime",
        "epoch": 5,
        "state_dict": state,
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": []},
        "monitor_best": np.float64(1.5),
        "config": ConfigParser(args=Namespace(rank=0), _save_dir=PosixPath("results"), **more),
    }
    with (
        patch.dict(sys.modules, parse_config=module),
        patch.object(ConfigParser, "__module__", "parse_config"),
    ):
        torch.save(content, file)
    return file
