"""Kinds of input: a file of the data root, how it is harmed, and which programs read it."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.fuzz import models, mutations, programs, project

CACHE, PACKED = "cache", "features/egovlp.h5"


class Kind(NamedTuple):
    """What is harmed, and for whom."""

    file: Callable[[Path], Path]
    harmed: Callable[[Path], st.SearchStrategy[bytes]]
    programs: list[Callable[[Path], tuple]]
    quick: int  # inputs in the quick suite
    long: int
    derived: tuple[str, ...] = (CACHE, PACKED)  # of the root, deleted before each program


def json_of(content: Any) -> Callable[[Path], st.SearchStrategy[bytes]]:
    return lambda root: mutations.json_files(content)


def harmed_copy(change: Callable[[bytes], st.SearchStrategy[bytes]], file: Callable) -> Callable:
    """A change to what the file holds at first."""
    return lambda root: change(file(root).read_bytes())


def under(*names: str) -> Callable[[Path], Path]:
    return lambda root: root.joinpath(*names)


def tensors(root: Path) -> st.SearchStrategy[bytes]:
    return mutations.tensor_files(project.ROWS, project.WIDTH)


def packed(root: Path) -> st.SearchStrategy[bytes]:
    uids = list(chain.from_iterable(project.UIDS.values()))
    return mutations.packed_files(uids, project.ROWS, project.WIDTH)


PREPARED = "dataset", "nlq_official_v1"
FEATURES = "features", "egovlp"
TOY = project.toy_folder
SHAPES, CARD = {"v1": 60, "v2": 60, "t1": 60}, {"frame_rate": 30, "stride": 16, "width": 6}
KEPT = {"derived": ()}  # what is harmed is derived itself

KINDS = {
    "train annotations": Kind(
        under("nlq_train.json"), json_of(project.annotations("train")),
        [programs.prepare, programs.create, programs.subsample, programs.simulate, programs.check],
        15, 350,
    ),
    "val annotations": Kind(
        under("nlq_val.json"), json_of(project.annotations("val")),
        [programs.prepare, programs.evaluate, programs.validate], 20, 400,
    ),
    "prepared train": Kind(
        under(*PREPARED, "train.json"), json_of(project.prepared("train")),
        [programs.check], 15, 350,
    ),
    "prepared val": Kind(
        under(*PREPARED, "val.json"), json_of(project.prepared("val")),
        [programs.vslnet, programs.reler], 6, 150,
    ),
    "clip list": Kind(
        under("clips.json"), json_of(["t1", "t2"]), [programs.few_clips], 6, 100,
    ),
    "narrations": Kind(
        under("egoclip.csv"), lambda root: mutations.tables(project.NARRATIONS),
        [programs.create], 15, 300,
    ),
    "TACoS": Kind(
        under("tacos", "val.json"), json_of(project.tacos()), [programs.convert], 10, 200,
    ),
    "tensors": Kind(
        under(*FEATURES, "v1.pt"), tensors, [programs.check, programs.pack], 12, 200,
    ),
    "tensors in a model": Kind(
        under(*FEATURES, "v1.pt"), tensors, [programs.vslnet, programs.reler], 6, 100,
    ),
    "feature shapes": Kind(
        under(*FEATURES, "feature_shapes.json"), json_of(SHAPES),
        [programs.check, programs.pack, programs.vslnet], 6, 100,
    ),
    "feature card": Kind(
        under(*FEATURES, "feature_card.json"), json_of(CARD),
        [programs.check, programs.pack, programs.simulate, programs.vslnet], 6, 100,
    ),
    "packed features": Kind(
        under(PACKED), packed, [programs.check, programs.vslnet], 12, 200, (CACHE,),
    ),
    "VSLNet checkpoint": Kind(
        models.vslnet_file, lambda root: mutations.state_files(models.vslnet_state(root)),
        [programs.vslnet], 8, 150,
    ),
    "VSLNet text encoder": Kind(
        lambda root: models.vslnet_file(root).with_name("text.json"),
        lambda root: mutations.json_files(models.encoder_description(root)),
        [programs.vslnet], 5, 80,
    ),
    "VSLNet words": Kind(
        lambda root: models.words_file(root).with_name("text.json"),
        json_of(models.VOCABULARY), [programs.vslnet_words], 5, 80,
    ),
    "word vectors": Kind(
        under("features", "glove.840B.4d.txt"), lambda root: mutations.tables(models.VECTORS),
        [programs.read_vectors], 6, 100,
    ),
    "ReLER checkpoint": Kind(
        models.reler_file, lambda root: mutations.run_files(models.reler_content(root)),
        [programs.reler], 12, 300,
    ),
    "how a run was made": Kind(
        lambda root: TOY(root) / "made.json", json_of([{"command": "x", "inputs": {"a": "b"}}]),
        [programs.toy], 3, 50,
    ),
    "scores of a run": Kind(
        lambda root: TOY(root) / "metrics.jsonl", json_of(project.EVALUATION),
        [programs.compare], 6, 100,
    ),
    "challenge file": Kind(
        under("challenge.json"), json_of(project.challenge()),
        [programs.evaluate, programs.validate, programs.ensemble], 20, 400,
    ),
    "scores of windows": Kind(
        under("challenge_scores.json"), json_of(project.challenge_scores()),
        [programs.validate, programs.ensemble], 8, 150,
    ),
    "download manifest": Kind(
        under("manifest.json"), json_of(project.MANIFEST), [programs.manifest], 8, 150,
    ),
    "card of a store": Kind(
        lambda root: models.store(root, "pooled") / "card.json",
        harmed_copy(mutations.json_copies, lambda root: models.store(root, "pooled") / "card.json"),
        [programs.vslnet], 4, 80, **KEPT,
    ),
    "card of joined rows": Kind(
        lambda root: models.store(root, "rows") / "card.json",
        harmed_copy(mutations.json_copies, lambda root: models.store(root, "rows") / "card.json"),
        [programs.reler], 4, 80, **KEPT,
    ),
    "tokens in a store": Kind(
        lambda root: models.store(root, "tokens") / "tokens.npy",
        harmed_copy(mutations.heads, lambda root: models.store(root, "tokens") / "tokens.npy"),
        [programs.vslnet], 5, 100, **KEPT,
    ),
    "offsets in a store": Kind(
        lambda root: models.store(root, "tokens") / "offsets.npy",
        harmed_copy(mutations.heads, lambda root: models.store(root, "tokens") / "offsets.npy"),
        [programs.vslnet], 5, 100, **KEPT,
    ),
    "lengths in a store": Kind(
        lambda root: models.store(root, "rows") / "lengths.npy",
        harmed_copy(mutations.heads, lambda root: models.store(root, "rows") / "lengths.npy"),
        [programs.reler], 5, 100, **KEPT,
    ),
}  # fmt: skip
