"""Inputs changed at random: every program reads them or says in one line what is wrong.

A few of each kind, the same in every run; thousands, other ones each time, with `-m long`. A fault
that is found here becomes a case of test_cases.py.
"""

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch

from tests.bad_inputs import world
from tests.bad_inputs.world import (
    CLIPS,
    GROUNDNLQ_RUN,
    OTHER_NARRATIONS,
    PREPARED,
    RELER_RUN,
    ROWS,
    VSLNET_RUN,
    WIDTH,
    Hostile,
)

VALUES = [
    None, True, 0, -1, 2, 3.5, -4e-7, 1e308, 2**31, 2**63, float("nan"), float("inf"), "", " ",
    "?", "a", "1", "../x", "a/b", "..", "c\x00d", "c\nd", "🤢", "x" * 300, "#", [], [1], [1, 2],
    [2, 1], [None, None], ["a", "b"], [[1, 2]], [["a", 1]], {}, {"a": 1},
]  # fmt: skip
FIELDS = [b"", b"nan", b"inf", b"1e400", b"-5", b"1e308", b'"', b"\r", b"\x00", b"\xff"]


def containers(value: Any) -> list[Any]:
    """All lists and objects inside a JSON value that hold something."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    here = [value] if len(inner) else []
    return here + [container for part in inner for container in containers(part)]


def mutate_json(content: bytes, draw: random.Random) -> bytes:
    """Replace, remove, repeat or rename one to three values; now and then damage the bytes."""
    if draw.random() < 0.2:
        return mutate_bytes(content, draw)
    value = json.loads(content)
    for _ in range(draw.randint(1, 3)):
        parent = draw.choice(containers(value) or [[0]])
        key = draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        act = draw.choice(["replace", "replace", "remove", "again"])
        if act == "replace":
            parent[key] = draw.choice(VALUES)
        elif act == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.append(parent[key])
        else:
            parent[draw.choice(["", "other", "../x", "x" * 300])] = parent.pop(key)
    return json.dumps(value).encode()


def mutate_json_lines(content: bytes, draw: random.Random) -> bytes:
    """Change one of the lines."""
    lines = content.split(b"\n")
    number = draw.randrange(len(lines))
    lines[number] = mutate_json(lines[number], draw)
    return b"\n".join(lines)


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """Cut off, overwritten here and there, with something put in, repeated, empty or all zeros."""
    position = draw.randrange(len(content))
    flipped = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        flipped[draw.randrange(len(content))] = draw.randrange(256)
    junk = draw.choice([b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"[" * 3000])
    inserted = content[:position] + junk + content[position:]
    damaged = [content[:position], bytes(flipped), inserted, content * 2, b"", bytes(len(content))]
    return draw.choice(damaged)


def mutate_table(content: bytes, draw: random.Random) -> bytes:
    """Replace, add or remove fields; now and then damage the bytes."""
    if draw.random() < 0.2:
        return mutate_bytes(content, draw)
    lines = [line.split(b"\t") for line in content.split(b"\n")]
    for _ in range(draw.randint(1, 4)):
        fields = draw.choice(lines)
        position = draw.randrange(len(fields) + 1)
        fields[position : position + draw.randint(0, 1)] = draw.choice([[], [draw.choice(FIELDS)]])
    return b"\n".join(b"\t".join(fields) for fields in lines)


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def unusual(tensor: torch.Tensor) -> list[Any]:
    """Other things than this tensor."""
    return [
        tensor.half(), tensor.bfloat16(), tensor.double(), tensor.int(), tensor.bool(),
        tensor.cfloat(), tensor.to_sparse(), tensor[:, :1], tensor[:0], tensor[0], tensor[None],
        tensor * torch.nan, tensor * 1e38, tensor.T, tensor[:1].expand(len(tensor), -1),
        torch.nn.Parameter(tensor), tensor.to("meta"), [tensor], {"x": tensor}, tensor.numpy(),
        tensor.repeat(3, 1), None, 3, "text", Hostile(),
    ]  # fmt: skip


def mutate_tensor(content: bytes, draw: random.Random) -> bytes:
    """Another value in a `.pt` file, or a damaged one of the new or the old layout."""
    tensor = torch.ones(ROWS, WIDTH)
    if draw.random() < 0.6:
        return saved(draw.choice(unusual(tensor)))
    return mutate_bytes(saved(tensor, _use_new_zipfile_serialization=draw.random() < 0.5), draw)


def mutate_packed(content: bytes, draw: random.Random) -> bytes:
    """A packed feature file with a part missing or of another type or shape, or damaged."""
    uids = [uid for split in CLIPS.values() for uid in split]
    parts: dict[str, Any] = {
        "rows": np.ones((ROWS * len(uids), WIDTH), np.float32),
        "clip_uids": np.array(uids, "S"),
        "offsets": np.arange(len(uids) + 1) * ROWS,
    }
    card: dict[str, Any] = {"frame_rate": 30.0, "stride": 16, "width": WIDTH}
    name = draw.choice([*parts, *card, "bytes"])
    if name in parts:
        value = parts.pop(name)
        numbers = np.zeros(value.shape) if name == "clip_uids" else value
        others = [value[:1], value[::-1], value[None], value[:0], numbers * 0.5, numbers * np.nan,
                  (numbers + 1).astype(">i8"), "text"]  # fmt: skip
        if draw.random() < 0.9:  # else it is missing
            parts[name] = draw.choice(others)
    elif name in card:
        card[name] = draw.choice([0, -1, 7, np.nan, np.inf, "x", [1, 2]])
    stream = io.BytesIO()
    with h5py.File(stream, "w") as packed:
        for part, value in parts.items():
            packed[part] = value
        packed.attrs.update(card)
    return mutate_bytes(stream.getvalue(), draw) if name == "bytes" else stream.getvalue()


def mutate_checkpoint(content: bytes, draw: random.Random) -> bytes:
    """A checkpoint with a part missing, renamed or replaced, or damaged."""
    if draw.random() < 0.3:
        return mutate_bytes(content, draw)
    whole = torch.load(io.BytesIO(content), weights_only=False)  # it is our own
    part = whole["model"] if "model" in whole and draw.random() < 0.7 else whole
    key = draw.choice(sorted(part))
    value = part.pop(key)
    act = draw.choice(["remove", "rename", "replace", "replace", "replace"])
    if act == "rename":
        part[f"module.{key}"] = value
    elif act == "replace":
        matrix = torch.is_tensor(value) and value.dim() == 2
        part[key] = draw.choice(unusual(value if matrix else torch.ones(2, 3)))
    return saved(whole)


class Kind(NamedTuple):
    """A kind of file, what is done to it, and the programs that read it."""

    file: str
    mutate: Callable[[bytes, random.Random], bytes]
    programs: list[str]
    number: int = 12  # of inputs


ANNOTATED = [
    "utils/prepare_ego4d_dataset.py", "utils/create_naq_dataset.py", "utils/subsample_clips.py",
    "utils/check_data.py", "utils/simulate_dataset.py",
]  # fmt: skip
SCORED = [
    "utils/evaluate_ego4d_nlq.py", "utils/validate_submission.py", "utils/ensemble_predictions.py",
]  # fmt: skip
READ, PACKED = ["utils/check_data.py", "utils/prepare_features.py"], "features/egovlp.h5"
VSLNET, RELER, GROUNDNLQ = "VSLNet/main.py", "ReLER/main.py", "GroundNLQ/main.py"
KINDS = {
    "train annotations": Kind("nlq_train.json", mutate_json, ANNOTATED, 30),
    "val annotations": Kind("nlq_val.json", mutate_json, SCORED[:2], 30),
    "narrations": Kind("egoclip.csv", mutate_table, ["utils/create_naq_dataset.py"], 30),
    **{
        f"narrations, {form}": Kind(
            f"narrations/train0.{form}",
            mutate_json if form.startswith("ego") else mutate_bytes,
            [f"utils/create_naq_dataset.py {form}"],
        )
        for form in OTHER_NARRATIONS
    },
    "TACoS": Kind("tacos/val.json", mutate_json, ["utils/convert_tacos.py"], 20),
    "JSON lines": Kind("lines.jsonl", mutate_json_lines, ["utils/convert_jsonl.py"], 20),
    "prepared train": Kind(f"{PREPARED}/train.json", mutate_json, ["utils/check_data.py"], 30),
    "prepared val": Kind(f"{PREPARED}/val.json", mutate_json, [VSLNET, RELER]),
    "clip list": Kind("clips.json", mutate_json, ["VSLNet/main.py train few"], 6),
    "tensor": Kind("features/egovlp/v1.pt", mutate_tensor, [*READ, VSLNET, RELER], 20),
    "lengths": Kind("features/egovlp/feature_shapes.json", mutate_json, [*READ, VSLNET]),
    "card": Kind("features/egovlp/feature_card.json", mutate_json, [*READ, VSLNET]),
    "packed features": Kind(PACKED, mutate_packed, [READ[0], VSLNET], 20),
    "word vectors": Kind("features/glove.840B.4d.txt", mutate_table, ["VSLNet/main.py train rnn"]),
    "VSLNet checkpoint": Kind(f"{VSLNET_RUN}/vslnet_1.t7", mutate_checkpoint, [VSLNET]),
    "ReLER checkpoint": Kind(f"{RELER_RUN}/model_1.t7", mutate_checkpoint, [RELER]),
    "GroundNLQ checkpoint": Kind(f"{GROUNDNLQ_RUN}/model_1.t7", mutate_checkpoint, [GROUNDNLQ]),
    "VSLNet options": Kind(f"{VSLNET_RUN}/configs.json", mutate_json, [VSLNET]),
    "text encoder of a run": Kind(f"{VSLNET_RUN}/text.json", mutate_json, [VSLNET]),
    "token features": Kind("tokens.npz", mutate_bytes, ["GroundNLQ/main.py tokens"]),
    "encoder folder": Kind("bert/config.json", mutate_json, [VSLNET]),
    "challenge file": Kind("challenge.json", mutate_json, SCORED, 30),
    "scores": Kind("challenge_scores.json", mutate_json, SCORED[1:], 15),
    "manifest": Kind("manifest.json", mutate_json, ["utils/download_features.py"], 20),
}


def read_mutated(small_root: Path, folder: Path, kind: Kind, seed: str) -> None:
    """Give the programs of a kind one input."""
    data = shutil.copytree(small_root, folder / "data")
    file = data / kind.file
    if kind.file.endswith("feature_card.json"):
        file.write_text(json.dumps({"frame_rate": 30, "stride": 16, "width": WIDTH}))
    content = file.read_bytes() if file.is_file() else b""
    file.write_bytes(kind.mutate(content, random.Random(seed)))
    for program in kind.programs:
        world.run(program, data, *(["--restart"] if "train" in program else []))
        (data / PACKED).unlink(missing_ok=True)  # made by prepare_features.py
    shutil.rmtree(data)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("few", [True, pytest.param(False, marks=[pytest.mark.long])])
def test_changed_inputs_are_read_or_refused_in_one_line(small_root, tmp_path, name, few):
    start, factor = (0, 1) if few else (random.randrange(10**9), 20)
    for number in range(start, start + factor * KINDS[name].number):
        read_mutated(small_root, tmp_path, KINDS[name], f"{name} {number}")
