"""Weights and inputs of the golden numbers: drawn from their names, not stored."""

import math
import zlib

import numpy as np
import torch

OFFSETS_OF_BIASES = {"cls_head.cls_head.conv.bias": -2.0, "reg_head.offset_head.conv.bias": 1.5}


def generator(name):
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)


def weight(name, shape):
    """The weight of that name; its kind says how the normal draws are scaled."""
    draws = np.asarray(generator(name).standard_normal(tuple(shape)))
    if name.endswith(".bias"):
        draws = 0.05 * draws + OFFSETS_OF_BIASES.get(name, 0.0)
    elif name.endswith(".scale"):
        draws = 0.5 + 0.1 * draws if shape else 1 + 0.1 * draws
    elif shape[0] == 1 and shape[2] == 1:
        draws = 1 + 0.1 * draws
    elif shape[1] == 1 and "_conv." in name:
        draws = 0.5 * draws
    else:
        draws = 2 * draws * math.sqrt(2.0 / (shape[0] + shape[1] * shape[2]))
    return torch.tensor(draws, dtype=torch.float32)


def state_dict(schema):
    return {name: weight(name, shape) for name, shape in schema.items()}


def rows_of(name, rows, dim):
    draw = generator(name)
    walk = np.cumsum(draw.standard_normal((rows, dim)), 0) * 0.2
    return (walk + draw.standard_normal((rows, dim))).astype(np.float32)
