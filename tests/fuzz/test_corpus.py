"""Inputs that once ended a program with a traceback, or could have done harm."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.fuzz import models, programs, project
from tests.fuzz.mutations import Hostile
from utils.base.tensor_files import load_last_whole
from utils.features.stores import open_store

DEEP = json.loads("[" * 300 + "]" * 300)


class Case(NamedTuple):
    """A file with a content, and what a program says of it; nothing if it does its work."""

    what: str
    program: Callable[[Path], tuple]
    file: Callable[[Path], Path]
    content: Callable[[Path], bytes]
    said: str | None


def text(value: Any) -> Callable[[Path], bytes]:
    return lambda root: json.dumps(value).encode()


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def reler(**opt: Any) -> Callable[[Path], bytes]:
    """A checkpoint with other options."""

    def content(root: Path) -> bytes:
        whole = models.reler_content(root)
        return saved(whole | {"opt": vars(whole["opt"]) | opt})

    return content


def state(**parts: Any) -> Callable[[Path], bytes]:
    """The state of a run with other parts."""
    return lambda root: saved(models.saved_state(root) | parts)


def optimizer(name: str, value: Any) -> Callable[[Path], bytes]:
    """The state of a run with other moments in its optimizer."""

    def content(root: Path) -> bytes:
        whole = models.saved_state(root)
        whole["optimizer"]["state"][0][name] = value
        return saved(whole)

    return content


def annotations_with(value: Any) -> bytes:
    content = project.annotations("train")
    content["videos"][0]["more"] = value
    return json.dumps(content).encode()


CARD = lambda root: root / "features" / "egovlp" / "feature_card.json"  # noqa: E731
SIMULATED = lambda root: CARD(root / "stand_ins")  # noqa: E731
TEXT = lambda root: models.vslnet_file(root).with_name("text.json")  # noqa: E731
WORDS = lambda root: models.words_file(root).with_name("text.json")  # noqa: E731
STATE = lambda root: project.toy_folder(root) / "state.pt"  # noqa: E731
MADE = lambda root: project.toy_folder(root) / "made.json"  # noqa: E731
METRICS = lambda root: project.toy_folder(root) / "metrics.jsonl"  # noqa: E731
TRAIN = lambda root: root / "nlq_train.json"  # noqa: E731

CASES = [
    Case("annotations that nest deeply", programs.create, TRAIN,
         lambda root: annotations_with(DEEP), "nested too deeply"),
    Case("a card with a name of no letters", programs.pack, CARD, text({"": 6}), "feature card"),
    Case("a card with a NUL byte", programs.pack, CARD, text({"a\0b": 1}), "feature card"),
    Case("a card that is a list", programs.simulate, SIMULATED, text([1]), "must hold names"),
    Case("an encoder without a hash", programs.vslnet, TEXT, text({"encoder": "x"}),
         "name and hash"),
    Case("an encoder without a name", programs.vslnet, TEXT, text({"hash": "x"}), "name and hash"),
    Case("an encoder in a list", programs.vslnet, TEXT, text([1]), "name and hash"),
    Case("words that are none", programs.vslnet_words, WORDS,
         text({"words": None, "characters": []}), "lists of words"),
    Case("words that are lists", programs.vslnet_words, WORDS,
         text({"words": [["a"]], "characters": []}), "lists of words"),
    Case("no characters", programs.vslnet_words, WORDS, text({"words": []}), "lists of words"),
    Case("VSLNet's width as a text", programs.vslnet,
         lambda root: models.vslnet_file(root).with_name("configs.json"), text({"dim": "x"}),
         "--dim must be a whole number, is 'x'"),
    Case("a width that is a text", programs.reler, models.reler_file, reler(hidden_dim="x"),
         "--hidden_dim must be a whole number, is 'x'"),
    Case("a width beyond memory", programs.reler, models.reler_file, reler(hidden_dim=50_000),
         "--hidden_dim must be in [1, 8192], is 50000"),
    Case("a width beyond numbers", programs.reler, models.reler_file, reler(hidden_dim=10**400),
         "--hidden_dim must be in [1, 8192], is 1000"),
    Case("layers without end", programs.reler, models.reler_file,
         reler(num_cross_encoder_layers=99_999), "must be in [0, 100], is 99999"),
    Case("heads that divide nothing", programs.reler, models.reler_file,
         reler(bi_num_attention_heads=0), "--bi_num_attention_heads must be in [1, 8192], is 0"),
    Case("a state of another model", programs.toy, STATE, state(model={}), "does not fit"),
    Case("an optimizer of another model", programs.toy, STATE,
         optimizer("exp_avg", torch.ones(2)), "its optimizer does not fit"),
    Case("starts that are a number", programs.toy, MADE, text(1), "must be a list of starts"),
    Case("half a surrogate pair", programs.validate, lambda root: root / "challenge.json",
         text(project.challenge() | {"version": "\ud800"}), "another version"),
    Case("scores that are null", programs.compare, METRICS,
         text(project.EVALUATION | {"mIoU": None}), "mIoU of its evaluations is no number"),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = project.make(tmp_path_factory.mktemp("corpus") / "data")
    models.write_runs(root)
    return root


@pytest.fixture
def data(whole, tmp_path, monkeypatch) -> Iterator[Path]:
    """A data root to be harmed, in an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    # At the same place in every test: runs and stores name it.
    kept = shutil.copytree(whole, whole.with_name("kept"))
    yield whole
    shutil.rmtree(whole)
    kept.rename(whole)
    assert not list(work.iterdir())


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_an_input_that_did_harm(data, case):
    case.file(data).parent.mkdir(parents=True, exist_ok=True)
    case.file(data).write_bytes(case.content(data))
    main, *arguments = case.program(data)
    said = project.ends_well(main, *arguments)
    assert (said is None) == (case.said is None) and (case.said or "") in (said or ""), said


@pytest.mark.parametrize("part", ["kept", "sizes"])
def test_a_state_from_elsewhere_deletes_and_cuts_nothing(data, part):
    """It names the files that are deleted or cut when the run goes on."""
    victim = data / "victim.txt"
    victim.write_text("whole")
    names = [f"../{victim.name}", str(victim), "..", "toy_1.t7", "toy_2.t7"]
    parts = {"kept": names} if part == "kept" else {"sizes": dict.fromkeys(names, 0)}
    STATE(data).write_bytes(state(**parts, step=1)(data))
    main, *arguments = programs.toy(data)
    assert "names files outside of its folder" in project.ends_well(main, *arguments)
    assert victim.read_text() == "whole"


def hostile_array(size: int) -> bytes:
    """A numpy file of that many bytes which runs a command if its objects are unpickled."""
    stream = io.BytesIO()
    np.save(stream, np.array([Hostile()], object), allow_pickle=True)
    return stream.getvalue().ljust(size, b"\0")


STORES = [
    ("tokens", "tokens.npy", programs.vslnet),
    ("tokens", "offsets.npy", programs.vslnet),
    ("pooled", "pooled.npy", programs.vslnet),
    ("pooled", "rows.npy", programs.vslnet),
    ("rows", "lengths.npy", programs.reler),
    ("rows", "rows.npy", programs.reler),
]


@pytest.mark.parametrize("cunning", [False, True])
@pytest.mark.parametrize(("role", "name", "program"), STORES)
def test_a_hostile_pickle_in_a_store_is_not_run(data, role, name, program, cunning):
    """It is built again; with a card that fits the hostile file, it is refused or just numbers."""
    store = models.store(data, role)
    before = (store / name).read_bytes()
    (store / name).write_bytes(hostile := hostile_array(len(before)))
    main, *arguments = program(data)
    if cunning:
        card = json.loads((store / "card.json").read_bytes())
        key, role_and_name = card["key"], store.name.removesuffix(f"-{card['key']}")
        said = {k: v for k, v in card.items() if k not in ("key", "files", "mark")}
        shutil.copytree(store, data / "hostile")
        shutil.rmtree(store)
        (data / "hostile" / "card.json").unlink()
        open_store(store.parent, role_and_name, key,
                   lambda folder: shutil.copytree(data / "hostile", folder, dirs_exist_ok=True)
                   and said)  # fmt: skip
        project.ends_well(main, *arguments)
        assert (store / name).read_bytes() == hostile
    else:
        assert project.ends_well(main, *arguments) is None
        assert (store / name).read_bytes() == before


@pytest.mark.parametrize(
    ("file", "program"),
    [(STATE, programs.toy), (models.vslnet_file, programs.vslnet),
     (models.reler_file, programs.reler),
     (lambda root: root / "features" / "egovlp.h5", programs.vslnet),
     (lambda root: root / "features" / "egovlp" / "v1.pt", programs.pack)],
)  # fmt: skip
def test_a_hostile_pickle_that_is_read_back_is_refused(data, file, program):
    """Of a state, the one before it is taken."""
    file(data).write_bytes(saved({"model": Hostile()}))
    main, *arguments = program(data)
    said = project.ends_well(main, *arguments)
    if file is STATE:
        assert said is None and load_last_whole(STATE(data))[0]["step"] == 24
    else:
        assert str(file(data)) in said
