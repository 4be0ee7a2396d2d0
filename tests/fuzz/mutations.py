"""Hypothesis strategies that harm a valid input: JSON, tables, tensors, HDF5, checkpoints.

Each takes a valid content and draws a file's bytes. What they draw is meant to be almost right:
wholly random bytes are refused at the first check and reach nothing.
"""

import argparse
import copy
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import strategies as st

from utils.base.tensor_files import is_plain

HOSTILE_VALUES = [
    None, True, False, 0, -1, 1, 2, 3.5, -4e-7, 1e-320, 1e308, -1e308, 2**31, 2**53, 2**63,
    2**70, 10**400, float("nan"), float("inf"), float("-inf"), "", " ", "?", "a", "1", "nan",
    "../x", "a/b", ".", "..", "c\x00d", "c\nd", "\ud800", "🤢", "x" * 300, "x" * 5000, "#", [],
    [[]], [1], [1, 2], [1, 2, 3], [None, None], ["a", "b"], [[1, 2]], [[2, 1]], [["a", 1]], {},
    {"a": 1}, [[[[[]]]]], [1e308, -1e308],
]  # fmt: skip


class Hostile:
    """Runs a command if it is unpickled without care."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch canary",)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths to everything inside a nested value."""
    found = [path]
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


@st.composite
def edited(draw: Callable, content: Any) -> Any:
    """The content with one to three places removed, replaced, doubled, renamed or swapped."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(content)[1:]
        if not places:
            return content
        *above, key = draw(st.sampled_from(places))
        parent = content
        for step in above:
            parent = parent[step]
        act = draw(st.sampled_from(["replace", "replace", "remove", "double", "rename", "swap"]))
        if act == "replace":
            parent[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE_VALUES)))
        elif act == "remove":
            del parent[key]
        elif act == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif act == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "other", "../x", "a/b", "x" * 300, "\x00"]))] = (
                parent.pop(key)
            )
        elif act == "swap":
            *others, last = draw(st.sampled_from(places))
            other = content
            try:
                for step in others:
                    other = other[step]
                parent[key] = copy.deepcopy(other[last])
            except (KeyError, IndexError, TypeError):
                pass
    return content


@st.composite
def torn(draw: Callable, whole: bytes) -> bytes:
    """Bytes cut off, changed, put in or repeated."""
    act = draw(st.sampled_from(["cut", "flip", "insert", "repeat", "empty", "zeros"]))

    def somewhere() -> int:  # drawn alike for any length: what libraries write differs in it
        return draw(st.integers(0, 2**20 - 1)) * len(whole) >> 20

    place = somewhere()
    if act == "cut":
        return whole[:place]
    if act == "flip":
        for _ in range(draw(st.integers(1, 8))):
            whole = whole[:place] + bytes([draw(st.integers(0, 255))]) + whole[place + 1 :]
            place = somewhere()
        return whole
    if act == "insert":
        junk = draw(st.sampled_from([b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"[" * 3000]))
        return whole[:place] + junk + whole[place:]
    if act == "repeat":
        return whole + whole
    return b"" if act == "empty" else bytes(len(whole))


def json_bytes(content: Any) -> bytes:
    """JSON as Python writes it, with NaN and lone surrogates if there are any."""
    return json.dumps(content).encode("utf-8", "surrogatepass")


def json_files(content: Any) -> st.SearchStrategy[bytes]:
    """Harmed JSON: mostly another value somewhere, sometimes no JSON any more."""
    return st.one_of(
        edited(content).map(json_bytes),
        edited(content).map(json_bytes),
        edited(content).map(json_bytes),
        torn(json_bytes(content)),
    )


def json_copies(whole: bytes) -> st.SearchStrategy[bytes]:
    """Harmed JSON, of JSON as it lies in a file."""
    return json_files(json.loads(whole))


@st.composite
def heads(draw: Callable, whole: bytes) -> bytes:
    """A numpy file with another type or shape in its head, bytes changed, or pickled objects."""
    if draw(st.integers(0, 3)) == 0:
        return draw(torn(whole))
    if draw(st.integers(0, 3)) == 0:
        stream = io.BytesIO()
        np.save(stream, np.array([Hostile()], object), allow_pickle=True)
        return stream.getvalue()[: len(whole)].ljust(len(whole), b"\0")
    old = draw(st.sampled_from([b"<f2", b"<f4", b"<i8", b"False", b"(", b",", b"1", b"2", b"'"]))
    new = draw(st.sampled_from([b"|O ", b"<i2", b">i8", b"True ", b"-", b"9", b"0", b" ", b"("]))
    return whole.replace(old, new.ljust(len(old))[: len(old)], draw(st.sampled_from([1, -1])))


@st.composite
def tables(draw: Callable, whole: bytes) -> bytes:
    """A harmed table: fields replaced, added or taken away, or bytes changed."""
    if draw(st.integers(0, 3)) == 0:
        return draw(torn(whole))
    lines = [line.split(b"\t") for line in whole.split(b"\n")]
    junk = [b"", b"nan", b"inf", b"-inf", b"1e400", b"-5", b"1e308", b'"', b"\r", b"\x00", b"\xff"]
    for _ in range(draw(st.integers(1, 4))):
        fields = lines[draw(st.integers(0, len(lines) - 1))]
        place = draw(st.integers(0, len(fields) - 1)) if fields else 0
        act = draw(st.sampled_from(["replace", "remove", "insert", "line"]))
        if act == "insert" or not fields:
            fields.insert(place, draw(st.sampled_from(junk)))
        elif act == "replace":
            fields[place] = draw(st.sampled_from(junk))
        elif act == "remove":
            del fields[place]
        else:
            lines.append(list(fields))
    return b"\n".join(b"\t".join(fields) for fields in lines)


def _saved(value: Any, **more: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **more)
    return stream.getvalue()


def _odd_tensors(rows: int, width: int) -> list[Any]:
    whole = torch.ones(rows, width)
    holed = whole.clone()
    holed[rows // 2, 0] = torch.nan
    return [
        whole.half(), whole.bfloat16(), whole.double(), whole.int(), whole.bool(), whole.cfloat(),
        whole.to(torch.float8_e4m3fn), whole.to_sparse(), whole[:, :3], whole[:0], whole[:, :0],
        whole[0], whole[None], torch.tensor(1.0), holed, whole * torch.inf, whole * 1e38,
        whole * 1e5, whole.T, whole[:1].expand(rows, width), torch.nn.Parameter(whole),
        torch.empty(rows, width, device="meta"), whole.clone().requires_grad_(), [whole],
        {"x": whole}, whole.numpy(), None, 3, "text", whole.repeat(3, 1), whole.to_sparse_csr(),
        torch.quantize_per_tensor(torch.ones(rows, width), 0.1, 0, torch.qint8), Hostile(),
        torch.nested.nested_tensor([torch.ones(2, width), torch.ones(3, width)]),
    ]  # fmt: skip


@st.composite
def tensor_files(draw: Callable, rows: int, width: int) -> bytes:
    """A harmed `.pt` file of a clip's features."""
    act = draw(st.sampled_from(["odd", "odd", "torn", "legacy torn"]))
    if act == "odd":
        return _saved(draw(st.sampled_from(_odd_tensors(rows, width))))
    new = act == "torn"
    return draw(torn(_saved(torch.ones(rows, width), _use_new_zipfile_serialization=new)))


@st.composite
def packed_files(draw: Callable, uids: list[str], rows: int, width: int) -> bytes:
    """A harmed packed feature file with the same number of rows for each clip."""
    features = np.ones((rows * len(uids), width), np.float32)
    offsets = np.arange(len(uids) + 1) * rows
    parts: dict[str, Any] = {"rows": features, "clip_uids": uids, "offsets": offsets}
    card: dict[str, Any] = {"frame_rate": 30.0, "stride": 16, "width": width}
    name = draw(st.sampled_from(["rows", "clip_uids", "offsets", "card", "bytes", "chunks"]))
    odd = {
        "rows": [features[0], features[:0], features[:, :0], features[:5], features.astype(int),
                 features.astype(">f4"), features.astype("f8"), features * np.nan, None, "text",
                 features[None], np.float32(1)],
        "clip_uids": [uids[:1], uids * 2, [1, 2], [], [b"\xff"], None, "a", [["a", "b"]],
                      ["../x", ""]],
        "offsets": [offsets[::-1], offsets + 1, offsets - 1, offsets * 10**6, offsets[:1], [], None,
                    offsets * 0.5, "text", offsets[None], [0, 2**63 - 1, 5], offsets * np.nan],
        "card": [{"stride": 0}, {"stride": -1}, {"width": "x"}, {"width": 7}, {"frame_rate": "30"},
                 {"stride": [1, 2]}, {"width": np.nan}, {"frame_rate": np.inf}, {"stride": np.nan},
                 {"width": [5]}, {"frame_rate": True}, {"stride": 1e-320}],
    }  # fmt: skip
    if name in parts:
        parts[name] = draw(st.sampled_from(odd[name]))
    elif name == "card":
        card |= draw(st.sampled_from(odd["card"]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packed.h5"
        with h5py.File(file, "w") as packed:
            for key, value in parts.items():
                if value is None:
                    continue
                chunked = name == "chunks" and key == "rows"
                packed.create_dataset(key, data=value, **({"chunks": True} if chunked else {}))
            packed.attrs.update(card)
        whole = file.read_bytes()
    return draw(torn(whole)) if name == "bytes" else whole


@st.composite
def state_dicts(draw: Callable, state: dict[str, torch.Tensor]) -> Any:
    """A harmed state dict."""
    state = dict(state)
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from(sorted(map(str, state)) or [""]))
        act = draw(st.sampled_from(["remove", "rename", "odd", "other", "number"]))
        value = state.pop(key, None)
        if not torch.is_tensor(value) or not value.dim() or not is_plain(value):
            value = torch.ones(2, 3)
        odd = [value[..., :1], value.double(), value.half(), value.int(), value * torch.nan,
               value[None], value.to_sparse(), value.to("meta"), value.bool(), value.cfloat(),
               torch.nn.Parameter(value, requires_grad=False),
               value.expand(2, *value.shape)]  # fmt: skip
        if act == "rename":
            state[draw(st.sampled_from(["module." + key, "", "x" * 200]))] = value
        elif act == "odd":
            state[key] = draw(st.sampled_from(odd))
        elif act == "other":
            state[key] = draw(st.sampled_from([None, 1, "a", [value], {"a": value}, value.numpy()]))
        elif act == "number":
            state[draw(st.integers(0, 3))] = value
    return draw(st.sampled_from([state, state, state, state, [state], {"model": state}, None]))


@st.composite
def edited_part(draw: Callable, part: Any) -> Any:
    """A part of a checkpoint with something edited inside, if it is a container."""
    if isinstance(part, argparse.Namespace):
        opt = draw(edited(vars(part)))
        return draw(st.sampled_from([opt, argparse.Namespace(**{str(k): opt[k] for k in opt})]))
    return draw(edited(part))


@st.composite
def state_files(draw: Callable, state: dict[str, torch.Tensor]) -> bytes:
    """A harmed VSLNet checkpoint, a plain state dict."""
    if draw(st.integers(0, 3)) == 0:
        return draw(torn(_saved(state)))
    return _saved(draw(state_dicts(state)))


@st.composite
def run_files(draw: Callable, content: dict[str, Any]) -> bytes:
    """A harmed checkpoint of several parts: weights as `model`, options as `opt`, and others."""
    content = dict(content)
    act = draw(st.sampled_from(["torn", "model", "inside", "inside", "remove", "replace"]))
    if act == "torn":
        return draw(torn(_saved(content)))
    key = draw(st.sampled_from(sorted(content)))
    if act == "model":
        content["model"] = draw(state_dicts(content["model"]))
    elif act == "inside":
        content[key] = draw(edited_part(content[key]))
    elif act == "remove":
        del content[key]
    else:
        hostile = [None, 1, "text", [], [1], {}, {"a": 1}, Hostile(), argparse.Namespace(a=1)]
        content[key] = draw(st.sampled_from(hostile))
    return _saved(content)
